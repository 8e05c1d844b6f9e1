"""Compiling what runs once, where making machine code takes longer than running it."""

from collections.abc import Callable

import jax
from jax.sharding import NamedSharding
from jaxtyping import PyTree


def jit_to_run_once(function: Callable, out_shardings: PyTree[NamedSharding] | None = None) -> jax.stages.Wrapped:
    """`jax.jit` without XLA's optimisations: it compiles about twice as fast, and the program runs slower.

    Args:
      function: to compile.
      out_shardings: where its results lie; None for where `jax.jit` puts them.
    """
    return jax.jit(function, out_shardings=out_shardings, compiler_options={'xla_backend_optimization_level': 0})
