"""Parts of a meta-step, each compiled alone and repeated, and the peak of the machine beside them."""

import time
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp

from components.meta_optimisers.base import LearnerState
from components.types import Array
from tools.benchmarks.measure import cpu_and_wall
from tools.benchmarks.operations import matrix_operations

SECONDS = 0.3
"""That a sample of a part should take, about."""
SIDE = 1_024
"""Of the matrices whose product is the machine's peak."""

Part = Callable[[LearnerState], tuple[LearnerState, Any]]
"""From a learner's state to the next one, and what else is computed."""


class RepeatedPart:
    """A part that is repeated inside of one compiled program; goes on at each call.

    Args:
      part: what is repeated.
      state: what it starts from.

    Attributes:
      length: repetitions of a call, about 0.3 CPU seconds.
      operations: floating-point operations of the matrix products of one.
      compile_seconds: of CPU time.
      mebibytes: of temporary memory.
    """

    def __init__(self, part: Part, state: LearnerState):
        def repeat(state: LearnerState, length: Array) -> tuple[LearnerState, Any]:
            shapes = jax.eval_shape(part, state)[1]
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

            def body(_: Array, carry: tuple[LearnerState, Any]) -> tuple[LearnerState, Any]:
                state, more = part(carry[0])
                return state, jax.tree.map(jnp.add, carry[1], more)

            return jax.lax.fori_loop(0, length, body, (state, nothing))

        lowered, start = jax.jit(repeat).lower(state, 1), time.process_time()
        self._compiled = cast(Any, lowered.compile())
        self.compile_seconds = time.process_time() - start
        self.mebibytes = self._compiled.memory_analysis().temp_size_in_bytes / 2**20
        self.operations = matrix_operations(self._compiled.as_text())
        self._state, self.length = state, 1
        self()
        self.length = max(1, round(SECONDS / cpu_and_wall(self)[0]))

    def __call__(self) -> None:
        self._state, _ = jax.block_until_ready(self._compiled(self._state, self.length))


def peak() -> Callable[[], Any]:
    """A large product of matrices."""
    matrix = jnp.ones((SIDE, SIDE))
    product = jax.jit(lambda x: x @ x)
    return lambda: jax.block_until_ready(product(matrix))
