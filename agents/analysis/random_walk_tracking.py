"""How well values of a random walk that switches its reward are tracked: by TD(lambda), at best, and by a run's agents.

All are judged, in every step, by the values with which that step is taken: those that TD(lambda) has learned from all
steps before, and a run's agent from all trajectories before.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.table

from agents.analysis import tables
from agents.learner import Learner
from components.axes import over_axis
from components.environments.random_walk import RandomWalk
from components.inner_loop import AgentState
from components.meta_optimisers.base import LearnerState
from components.types import Array, ConfigurationError

STEP_SIZES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)
LAMBDAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
PHASES = (0, 30, 60, 120, 240, 480, 960)
"""Steps after a switch between which errors are averaged."""

MOMENTS = (0, 30, 60, 120)
"""Steps after a switch at which errors are shown."""

RECOVERED = 0.1
"""Error below which a predictor counts as recovered: a third of that of who predicts 0."""


class Tracking(NamedTuple):
    """Mean squared errors of predictors by the number of steps since a switch, averaged over streams and switches.

    Attributes:
      td_lambda: of TD(lambda), `[step sizes, lambdas, switch_every]`.
      detector: of the predictor that only has to find the sign, `[switch_every]`.
    """

    td_lambda: np.ndarray
    detector: np.ndarray


def track(key: Array, num_streams: int = 256, num_periods: int = 10, skipped: int = 2) -> Tracking:
    """Runs TD(lambda), tabular and with accumulating traces, on independent streams of the walk.

    Args:
      key: of the walks.
      num_streams: averaged over.
      num_periods: between switches, all in all.
      skipped: periods at the start that do not count.
    """
    walk = RandomWalk()
    n, period = walk.num_states, walk.switch_every
    assert period is not None
    exact = walk.values(walk.reset(key)[0])
    alpha = jnp.array(STEP_SIZES)[:, None, None, None]
    lambda_ = jnp.array(LAMBDAS)[:, None, None]
    shape = len(STEP_SIZES), len(LAMBDAS), num_streams, n

    def step(
        carry: tuple[Array, ...], key_and_time: tuple[Array, Array]
    ) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        position, values, traces, guess = carry
        key, time = key_and_time
        sign = jnp.where(time // period % 2 == 0, 1.0, -1.0)
        after = position + jnp.where(jax.random.bernoulli(key, shape=(num_streams,)), 1, -1)
        right, over = after == n, (after < 0) | (after == n)
        here, there = jax.nn.one_hot(position, n), jax.nn.one_hot(after, n)  # All zeros beyond the ends.
        error = right * sign + (values * there).sum(-1) - (values * here).sum(-1)
        traces = lambda_ * traces + here
        values = values + alpha * error[..., None] * traces
        guess = jnp.where(right, sign, guess)
        carry = jnp.where(over, n // 2, after), values, jnp.where(over[:, None], 0, traces), guess
        now = jnp.where((time + 1) // period % 2 == 0, 1.0, -1.0) * exact
        wrong = jnp.square(guess[:, None] * exact - now).mean()
        return carry, (jnp.square(values - now).mean((-1, -2)), wrong)

    start: tuple[Array, ...] = jnp.full(num_streams, n // 2), jnp.zeros(shape), jnp.zeros(shape), jnp.ones(num_streams)
    times = jnp.arange(num_periods * period)
    errors, wrong = jax.jit(lambda: jax.lax.scan(step, start, (jax.random.split(key, len(times)), times))[1])()

    def by_phase(x: Array | np.ndarray) -> np.ndarray:
        x = np.roll(np.asarray(x), 1, 0)  # What is told after the last step of a period is measured after the switch.
        return x.reshape(num_periods, period, *x.shape[1:])[skipped:].mean(0)

    return Tracking(np.moveaxis(by_phase(errors), 0, -1), by_phase(wrong))


def recovery(learner: Learner, num_periods: int) -> np.ndarray:
    """Errors of a learner's agents by the number of steps since a switch, averaged over seeds, lifetimes and switches.

    Of a meta-step, the steps of its last trajectory count.

    Args:
      learner: continues from its state; a meta-step at a time, so that these should be shorter than phases are.
      num_periods: between switches, that it is watched for.

    Returns:
      Mean squared errors, `[switch_every]`; not a number where no trajectory had such a step.

    Raises:
      ConfigurationError: if its agents have no `StateValueError`, or are not on a walk that switches.
    """
    environment = getattr(learner.agent.environment, 'environment', None)
    if not (isinstance(environment, RandomWalk) and environment.switch_every):
        raise ConfigurationError(f'the run is not on a RandomWalk that switches, but on {learner.agent.environment}')
    if 'value_error' not in learner.agent.monitors:
        raise ConfigurationError("the run does not monitor 'value_error' (Agent.monitors, monitors.StateValueError)")
    agent = learner.agent
    step = over_axis(learner.meta_step, learner.num_replicas)
    tell = over_axis(
        over_axis(lambda state: _errors_in_force(state, learner), agent.num_lifetimes), learner.num_replicas
    )
    num_meta_steps = num_periods * environment.switch_every // (agent.meta_optimiser.num_updates * agent.unroll_length)

    @jax.jit
    def watch(state: LearnerState) -> tuple[Array, Array]:
        def advance(state: LearnerState, _: None) -> tuple[LearnerState, tuple[Array, Array]]:
            state = step(state, learner.replica_values)[0]
            return state, tell(state.agents)

        return jax.lax.scan(advance, state, length=num_meta_steps)[1]

    errors, ages = map(np.ravel, watch(learner.state))
    since, length = ages % environment.switch_every, environment.switch_every
    counts = np.bincount(since, minlength=length)
    return np.bincount(since, errors, length) / np.where(counts, counts, np.nan)


def _errors_in_force(state: AgentState, learner: Learner) -> tuple[Array, Array]:
    """Errors of an agent's values in the steps of its latest trajectory, and the walk's steps before each, `[T]`.

    The values have not changed in these steps: it has not learned from them yet.
    """
    batch = state.actor_state.environment
    steps = jnp.arange(-learner.agent.unroll_length, 0)

    def error(step: Array) -> Array:
        before = batch._replace(
            environment=batch.environment._replace(num_env_steps=batch.environment.num_env_steps + step)
        )
        then = state._replace(actor_state=state.actor_state._replace(environment=before))
        return learner.agent.monitors['value_error'](then, learner.network, learner.agent.environment)

    return jax.vmap(error)(steps), batch.environment.num_env_steps[0] + steps


def between_phases(errors: np.ndarray) -> np.ndarray:
    """Means between successive `PHASES` of errors by the number of steps since a switch, `[switch_every]`."""
    phases = [errors[start:end] for start, end in itertools.pairwise(PHASES)]
    return np.array([np.nanmean(phase) if np.isfinite(phase).any() else np.nan for phase in phases])


def time_to_recover(errors: np.ndarray) -> int | None:
    """Steps from a switch to the first mean error below `RECOVERED`, of `[switch_every]`; None if there is none."""
    recovered = errors < RECOVERED
    return int(recovered.argmax()) if recovered.any() else None


def references(key: Array) -> dict[str, np.ndarray]:
    """Errors of the predictors that a run is compared with, by the number of steps since a switch, `[switch_every]`.

    Args:
      key: of the walks of TD(lambda).

    Returns:
      By name: of always predicting 0, of the best TD(0) and TD(lambda) of the grid, and of the detector.
    """
    tracking = track(key)
    averages = tracking.td_lambda.mean(-1)

    def best(errors: np.ndarray) -> tuple[str, np.ndarray]:
        i, j = np.unravel_index(np.nanargmin(np.where(np.isfinite(errors), errors, np.inf)), errors.shape)
        return f'TD({LAMBDAS[j]}), step size {STEP_SIZES[i]}', tracking.td_lambda[i, j]

    exact = RandomWalk().values(RandomWalk().reset(jax.random.key(0))[0])
    td_0 = np.where(np.arange(len(LAMBDAS)) == 0, averages, np.inf)
    return {
        'always 0': np.full(len(tracking.detector), float(jnp.square(exact).mean())),
        **dict([best(td_0), best(averages)]),
        'knows the values, finds the sign': tracking.detector,
    }


def table(recoveries: Mapping[str, np.ndarray]) -> rich.table.Table:
    """A line for each predictor, from its errors by the number of steps since a switch, `[switch_every]`."""
    moments = [f'at {moment}' for moment in MOMENTS]
    phases = [f'{start}-{end}' for start, end in itertools.pairwise(PHASES)]
    columns = ['mean squared error, steps after a switch', *moments, *phases, 'all', f'below {RECOVERED} after']
    return tables.table(columns, [[name, *_cells(errors)] for name, errors in recoveries.items()])


def _cells(errors: np.ndarray) -> list[str]:
    at_moments = (errors[moment] if moment < len(errors) else np.nan for moment in MOMENTS)
    steps = time_to_recover(errors)
    numbers = [f'{x:.4f}' for x in (*at_moments, *between_phases(errors), np.nanmean(errors))]
    return [*numbers, 'never' if steps is None else f'{steps} steps']
