"""Objective modules: what an agent's predictions move towards, and how far each of them is from it."""
