"""Shared by all tests."""

import gin
import jax
import pytest


@pytest.fixture(autouse=True, scope='session')
def _compile_fast(tmp_path_factory):
    """Programs of a few steps are compiled in a hurry, and once for all tests; those of the command line are not."""
    jax.config.update('jax_disable_most_optimizations', True)
    jax.config.update('jax_compilation_cache_dir', str(tmp_path_factory.mktemp('compiled')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)


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
