"""Environments of other libraries, and environments on the host."""

from components.environments.adapters.common import spec_of_reset

_spec = spec_of_reset
"""The name until version 0.1, which adapters outside of this project import."""
