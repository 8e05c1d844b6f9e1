"""Shared by all tests."""

import gin
import jax
import pytest


@pytest.fixture(autouse=True)
def _clean_configuration():
    """Every test starts without bindings."""
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture
def x64():
    """Double precision, for finite differences."""
    with jax.enable_x64(True):
        yield
