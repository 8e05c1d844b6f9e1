"""Compiled programs that outlive the process."""

import os
import pathlib

import jax

DEFAULT = '~/.cache/meta_gradient_rl'
"""Where they are kept, unless the environment names another folder for caches (XDG_CACHE_HOME)."""


def use_compilation_cache(directory: str | None) -> None:
    """Keeps every program compiled from now on in a folder, and takes those that are there.

    A folder that JAX was told of in another way (JAX_COMPILATION_CACHE_DIR) is left as it is.

    Args:
      directory: the folder; None for none.
    """
    if directory is None or os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        return
    if directory == DEFAULT and os.environ.get('XDG_CACHE_HOME'):
        directory = str(pathlib.Path(os.environ['XDG_CACHE_HOME'], pathlib.Path(DEFAULT).name))
    jax.config.update('jax_compilation_cache_dir', str(pathlib.Path(directory).expanduser()))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
