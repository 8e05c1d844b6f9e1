"""Experiments with agents: train, log, evaluate, checkpoint; and their configuration with gin."""
