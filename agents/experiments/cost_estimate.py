"""Cost of training (time, memory, operations), estimated without training."""

import math
import statistics
import time
from typing import Any, NamedTuple

import jax
import rich.box
import rich.console
import rich.table
from jax.extend.core import Jaxpr, jaxprs_in_params

from agents.experiments.compilation_cache import use_compilation_cache
from agents.experiments.experiment import Experiment
from agents.learner import Learner

NUM_TIMED = 3
"""Calls of the compiled program."""

MAX_META_STEPS = 10
"""In a timed call."""


class CostEstimate(NamedTuple):
    """Of an experiment, all seeds together unless it says otherwise.

    Attributes:
      env_steps_per_update: of one seed: time x environments x lifetimes.
      updates_per_meta_update: inner updates.
      num_meta_updates: of the whole training.
      compile_seconds: from nothing to the compiled program, taken from the cache if it is there.
      memory_bytes: of the compiled program: what it is given, works with and returns.
      flops_per_meta_update: floating-point operations of matrix products and convolutions, which are nearly all.
      seconds_per_meta_update: median of the timed calls.
    """

    env_steps_per_update: int
    updates_per_meta_update: int
    num_meta_updates: int
    compile_seconds: float
    memory_bytes: int
    flops_per_meta_update: float
    seconds_per_meta_update: float

    @property
    def training_seconds(self) -> float:
        """Of the whole training, without compiling, evaluation and checkpoints."""
        return self.num_meta_updates * self.seconds_per_meta_update

    def show(self) -> None:
        """Prints it."""
        table = rich.table.Table('', '', box=rich.box.SIMPLE, show_header=False)
        for name, value in (
            ('environment steps per update', f'{self.env_steps_per_update:,}'),
            ('updates per meta-update', f'{self.updates_per_meta_update:,}'),
            ('meta-updates in all', f'{self.num_meta_updates:,}'),
            ('memory', f'{self.memory_bytes / 2**20:,.1f} MiB'),
            ('floating-point operations per meta-update', f'{self.flops_per_meta_update / 1e9:,.3g} G'),
            ('compiling', f'{self.compile_seconds:.1f} s'),
            ('a meta-update', f'{1e3 * self.seconds_per_meta_update:,.3g} ms'),
            ('training', _duration(self.training_seconds)),
        ):
            table.add_row(name, value)
        rich.console.Console().print(table)


def estimate_cost(experiment: Experiment) -> CostEstimate:
    """Builds, compiles and takes a few steps; writes nothing but the cache of compiled programs.

    Raises:
      CompositionError: as training would.
    """
    use_compilation_cache(experiment.compilation_cache)
    agent = experiment.agent
    start = time.monotonic()
    learner = experiment.make_learner(placement=experiment.placement)
    learner.compile()
    traced = learner.trace()
    program = traced.lower().compile()  # The one that is compiled.
    compile_seconds = time.monotonic() - start
    return CostEstimate(
        env_steps_per_update=agent.steps_per_meta_step // agent.meta_optimiser.num_updates,
        updates_per_meta_update=agent.meta_optimiser.num_updates,
        num_meta_updates=experiment.num_meta_steps,
        compile_seconds=compile_seconds,
        memory_bytes=_memory_bytes(program),
        flops_per_meta_update=num_operations(traced.jaxpr.jaxpr),
        seconds_per_meta_update=_seconds_per_meta_update(learner, program, experiment.num_meta_steps),
    )


def num_operations(jaxpr: Jaxpr) -> float:
    """Floating-point operations of matrix products and convolutions in a program.

    Of a loop whose length is not known, such as that over meta-updates, one passage is counted. (XLA's own count leaves
    out how often a loop of known length is passed through.)
    """
    return sum(_num_operations(equation) for equation in jaxpr.eqns)


def _num_operations(equation: Any) -> float:
    if equation.primitive.name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        shape = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
    if equation.primitive.name == 'conv_general_dilated':
        kernel = equation.invars[1].aval.shape
        outputs = kernel[equation.params['dimension_numbers'].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) / outputs
    inner = [num_operations(getattr(part, 'jaxpr', part)) for part in jaxprs_in_params(equation.params)]
    if equation.primitive.name == 'shard_map':  # Each device does the same to its own part.
        mesh = equation.params['mesh']
        return math.prod(mesh.shape[axis] for axis in equation.params['manual_axes']) * sum(inner)
    if equation.primitive.name == 'cond':
        return max(inner)
    return equation.params.get('length', 1) * sum(inner)


def _memory_bytes(program: jax.stages.Compiled) -> int:
    """What is given, worked with and returned; what is written over is counted once."""
    memory: Any = program.memory_analysis()
    given_and_returned = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return given_and_returned + memory.temp_size_in_bytes


def _seconds_per_meta_update(learner: Learner, program: jax.stages.Compiled, num_meta_steps: int) -> float:
    num_steps = min(MAX_META_STEPS, num_meta_steps)
    state, *_ = jax.block_until_ready(
        program(learner.state, num_steps, learner.replica_values)
    )  # The first one also warms up.
    seconds = []
    for _ in range(NUM_TIMED):
        start = time.monotonic()
        state, *_ = jax.block_until_ready(program(state, num_steps, learner.replica_values))
        seconds.append((time.monotonic() - start) / num_steps)
    learner.agent.environment.close(jax.device_get(state.agents.actor_state.environment))
    return statistics.median(seconds)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min {seconds} s' if minutes else f'{seconds} s'
