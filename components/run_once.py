"""Compiling what runs once, where making machine code takes longer than running it."""

from collections.abc import Callable

import jax


def jit_to_run_once(function: Callable) -> jax.stages.Wrapped:
    """`jax.jit` without XLA's optimisations: it compiles about twice as fast, and the program runs slower."""
    return jax.jit(function, compiler_options={'xla_backend_optimization_level': 0})
