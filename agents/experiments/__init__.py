"""Runs of agents in a folder: configuration, training, logs, checkpoints."""
