"""Objectives: targets and losses of an agent's predictions."""
