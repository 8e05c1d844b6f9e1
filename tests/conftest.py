"""Shared by all tests."""

import os

import gin
import jax
import pytest


@pytest.fixture(autouse=True, scope='session')
def _compile_fast(tmp_path_factory):
    """Programs of a few steps are compiled in a hurry, and once for all tests and the processes that they start."""
    base = tmp_path_factory.getbasetemp()
    cache = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base) / 'compiled'
    for name, value in {
        'jax_disable_most_optimizations': True,
        'jax_compilation_cache_dir': str(cache),
        'jax_persistent_cache_min_compile_time_secs': 0.3,
    }.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


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
