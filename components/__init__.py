"""The parts an agent is composed of. Nothing here knows about gin, files or the command line."""
