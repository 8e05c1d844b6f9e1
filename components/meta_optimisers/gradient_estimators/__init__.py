"""Estimators of the meta-gradient: how an outer loss is differentiated through inner updates."""
