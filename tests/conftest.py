"""Shared by all tests."""

import os
import signal

import gin
import jax
import jaxlib
import pytest

pytest.register_assert_rewrite(
    'tests.helpers.environments_for_tests'
)  # It holds checks, whose failures should say as much.

# Most of the time of tests goes into making machine code, half of it into one stage that has a faster, older form. XLA
# reads its flags once, at its first use, and ends a process that names one it does not know: hence the versions.
if jaxlib.version.__version_info__[:2] == (0, 10):
    flags = '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flags}'


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
def _clean_process():
    """Every test starts without bindings, and leaves the handlers of signals that it found, which a run replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    gin.clear_config()
    yield
    gin.clear_config()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def x64():
    """Double precision, for finite differences."""
    with jax.enable_x64(True):
        yield
