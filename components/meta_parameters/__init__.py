"""Learned and scheduled fields of an update rule."""
