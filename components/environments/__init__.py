"""Environments: batches stepped by pure functions inside the compiled learner."""
