"""What a learned objective has discovered: its targets beside known returns, and their sensitivity to later rewards.

An `Inspector` acts trajectories with an agent and computes on them the learned targets, the targets of known returns
from the same values, and the derivatives of the learned ones; `summarise_objective` makes figures of them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from agents.agent import Agent
from agents.analysis.reference_returns import ReturnInputs, known_estimates, known_returns
from components.acting.actor import ActorState
from components.acting.policies import log_rho
from components.component_tree import HasWeights, component_at, replace_at
from components.inner_loop import AgentState, InnerLoop, acting_source
from components.objectives.base import Unroll
from components.objectives.learned_policy_gradient import LearnedPolicyGradient
from components.objectives.learned_returns import LearnedReturn
from components.objectives.returns import ReturnEstimate, ReturnEstimator, next_mask
from components.types import Array, CompositionError, MetaParams, ObjectiveState, Outputs, Trajectory
from components.update_rule import UpdateRule

MIN_WINDOWS = 8
"""Consecutive windows of a batch that trajectories are drawn from: its episodes may all be at the same step."""


def learned_objectives(agent: Agent) -> list[str]:
    """Paths from the update rule to what an agent learns that makes targets: returns, and learned policy gradients.

    Raises:
      CompositionError: if it learns none.
    """
    paths = [path.removesuffix('.weights') for path in agent.meta_parameters.parameters if path.endswith('.weights')]
    components = {path: component_at(agent.update_rule, path) for path in paths}
    found = [
        path
        for path, component in components.items()
        if isinstance(component, HasWeights) and (isinstance(component, LearnedPolicyGradient) or callable(component))
    ]
    if not found:
        learned = ', '.join(agent.meta_parameters.parameters) or 'nothing'
        raise CompositionError(
            f'the run has no learned objective: what it learns is {learned}, and no weights of a LearnedReturn or a '
            'LearnedPolicyGradient'
        )
    return found


class Inspection(NamedTuple):
    """What an `Inspector` saw, on `N` trajectories.

    Attributes:
      target: G_t, or the policy target of a `LearnedPolicyGradient`, `[T, N]`.
      known: what to compare it with: targets of the `M` known returns, or their advantages, `[M, T, N]`.
      derivatives: of the target at step t with respect to an input at step k, `[T, T, N]`, by the input's name:
        `reward` r_{k+1}, `value` v_{k+1}, `log_rho` of a_k; 0 where the target cannot depend on it.
      pairs: which of these t <= k count, bool, likewise.
      mask: of the transitions, `[T, N]`.
      has_scale: whether the target is of the same units as the known ones.
    """

    target: Array
    known: Array
    derivatives: Mapping[str, Array]
    pairs: Mapping[str, Array]
    mask: Array
    has_scale: bool


class Inspector:
    """Looks at a learned objective of an agent, on trajectories that the agent acts.

    Known returns, and derivatives, are of the values and ratios that the learned return is called with, wherever in the
    objective it stands. A `LearnedPolicyGradient` is given no values: its policy target is compared with the advantages
    that known returns have with the agent's values, or with values of 0 if it has none.

    Args:
      inner_loop: of the agent.
      path: of the learned objective, from the update rule.
      unroll_length: steps of a trajectory, `T`.
      num_trajectories: `N`.
    """

    def __init__(self, inner_loop: InnerLoop, path: str, unroll_length: int, num_trajectories: int):
        self.known = known_returns(unroll_length)
        self._inner_loop, self._path = inner_loop, path
        self._unroll_length, self._num_trajectories = unroll_length, num_trajectories
        self._inspect = jax.jit(self._one)

    def __call__(self, meta_params: MetaParams, agent: AgentState, key: Array) -> Inspection:
        """Looks at one agent with its meta-parameters; NumPy arrays."""
        return jax.device_get(self._inspect(meta_params, agent, key))

    def _one(self, meta_params: MetaParams, agent: AgentState, key: Array) -> Inspection:
        rule = self._inner_loop.update.rule(meta_params, agent)
        trajectory = sample_trajectories(self._inner_loop, agent, key, self._unroll_length, self._num_trajectories)
        network = self._inner_loop.network
        unroll = Unroll(network.outputs(agent.params, trajectory), trajectory, agent.params, network)
        component = component_at(rule, self._path)
        if isinstance(component, LearnedPolicyGradient):
            target, slopes = _policy_target(component, unroll)
            ratio = log_rho(component.policy(unroll.outputs, trajectory.first.shape), trajectory)
            inputs = ReturnInputs(critic_values(unroll.outputs), ratio, trajectory)
            known = known_estimates(self.known, inputs).advantage
        else:
            inputs = return_inputs(rule, self._path, unroll, agent.learning.objective_state)
            target, slopes = component(*inputs).target, return_derivatives(component, inputs)
            known = known_estimates(self.known, inputs).target
        pairs = pairs_within_episodes(trajectory)
        has_scale = not isinstance(component, LearnedPolicyGradient)
        return Inspection(target, known, slopes, {name: pairs[name] for name in slopes}, trajectory.mask, has_scale)


def sample_trajectories(
    inner_loop: InnerLoop, agent: AgentState, key: Array, unroll_length: int, num_trajectories: int
) -> Trajectory:
    """Trajectories acted as the agent would act the next ones to learn from, onwards from where it stands.

    Args:
      inner_loop: of the agent.
      agent: acts, and learns nothing.
      key: of acting, and of which of the acted trajectories are taken.
      unroll_length: `T`.
      num_trajectories: `N`, in place of the number of environments in the batch.
    """
    source = acting_source(inner_loop)
    _, params = source.behaviour.update(agent.behaviour, agent.params)
    batch_size = agent.trajectory.reward.shape[1]
    num_windows = max(MIN_WINDOWS, -(-num_trajectories // batch_size))
    key, choice_key = jax.random.split(key)

    def act(state: ActorState, key: Array) -> tuple[ActorState, Trajectory]:
        state, trajectory, _ = source.actor.unroll(params, state, key, unroll_length)
        return state, trajectory

    _, windows = jax.lax.scan(act, agent.actor_state, jax.random.split(key, num_windows))
    chosen = jax.random.choice(choice_key, num_windows * batch_size, (num_trajectories,), replace=False)

    def take(x: Array, axis: int) -> Array:
        x = jnp.moveaxis(x, 0, axis)
        return jnp.take(x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :]), chosen, axis)

    core_state = jax.tree.map(lambda x: take(x, 0), windows.core_state)
    time_major = jax.tree.map(lambda x: take(x, 1), windows._replace(core_state=()))
    return time_major._replace(core_state=core_state)


def return_inputs(rule: UpdateRule, path: str, unroll: Unroll, state: ObjectiveState) -> ReturnInputs:
    """What an update calls the return at a path with.

    Raises:
      CompositionError: if the objective's targets do not come from it.
    """
    calls: list[ReturnInputs] = []

    def listen(*inputs: PyTree) -> ReturnEstimate:
        calls.append(ReturnInputs(*inputs))
        return component_at(rule, path)(*inputs)

    replace_at(rule, path, listen).objective.targets(unroll, state)
    if not calls:
        raise CompositionError(f'{path} is called for no target of the objective')
    return calls[-1]


def return_derivatives(returns: ReturnEstimator, inputs: ReturnInputs) -> dict[str, Array]:
    """Derivatives of the target with respect to what comes after each step, `[T, T, B]`, as in `Inspection`.

    Ratios are left out where the return is on-policy. What `stop_value_inputs` stops counts here all the same.
    """
    if isinstance(returns, LearnedReturn):
        returns = dataclasses.replace(returns, stop_value_inputs=False)

    def target(x: Mapping[str, Array]) -> Array:
        values = jnp.concatenate([inputs.values[:1], x['value']])
        trajectory = inputs.trajectory._replace(reward=x['reward'])
        return returns(values, x.get('log_rho', inputs.log_rho), trajectory).target

    arguments = {'reward': inputs.trajectory.reward, 'value': inputs.values[1:]}
    return derivatives(target, arguments if returns.is_on_policy else {**arguments, 'log_rho': inputs.log_rho})


def _policy_target(objective: LearnedPolicyGradient, unroll: Unroll) -> tuple[Array, dict[str, Array]]:
    """The policy target, `[T, B]`, and its derivatives with respect to rewards, `[T, T, B]`."""

    def target(x: Mapping[str, Array]) -> Array:
        targets, _ = objective.targets(unroll._replace(trajectory=unroll.trajectory._replace(**x)), ())
        return targets.policy

    arguments = {'reward': unroll.trajectory.reward}
    return target(arguments), derivatives(target, arguments)


def derivatives(function: Callable[[Mapping[str, Array]], Array], arguments: Mapping[str, Array]) -> dict[str, Array]:
    """Derivatives `[T, T, B]` of a function's `[T, B]` with respect to each argument `[T, B]`, of the same column of
    `B`.

    One reverse pass for each step: columns, which do not depend on each other, go through it together.
    """
    result, pullback = jax.vjp(function, dict(arguments))
    return jax.lax.map(lambda t: pullback(jnp.zeros_like(result).at[t].set(1))[0], jnp.arange(len(result)))


def critic_values(outputs: Outputs) -> Array:
    """Values of the states `[T+1, B]`: the head `value`, else the first scalar one, else 0 everywhere."""
    scalar = {name: x for name, x in sorted(outputs.items()) if x.ndim == 2}
    if scalar:
        return scalar.get('value', next(iter(scalar.values())))
    return jnp.zeros(next(iter(outputs.values())).shape[:2])


def pairs_within_episodes(trajectory: Trajectory) -> dict[str, Array]:
    """Which steps t <= k are of one episode, bool `[T, T, B]`, for each input of `Inspection.derivatives`.

    The state whose value an input is has to be of that episode too: there is none after a termination.
    """
    goes_on = (trajectory.discount != 0) & (next_mask(trajectory) != 0)
    episode = jnp.cumsum(~goes_on, 0) - ~goes_on  # How many have ended before each step.
    steps = jnp.arange(len(goes_on))
    same = (episode[:, None] == episode[None]) & (steps[:, None] <= steps)[..., None] & (trajectory.mask != 0)[:, None]
    return {'reward': same, 'value': same & (trajectory.discount != 0)[None], 'log_rho': same}


class ObjectiveSummary(NamedTuple):
    """What an `Inspection` says; over transitions that are not masked.

    Attributes:
      distance: square root of the mean squared difference between the target and each of the `M` known ones, `[M]`; NaN
        for the policy target of a `LearnedPolicyGradient`, which has no scale to be near to.
      r_squared: fraction of the target's variance that the best linear function of each known one explains, `[M]`; 0 if
        that is constant, NaN if the target is.
      correlation: whose squares these are, `[M]`.
      sensitivity: mean derivative with respect to each input j steps ahead, `[T]`, by the input's name; NaN where there
        are no two steps so far apart in one episode.
      num_pairs: how many pairs of steps that is the mean of, likewise.
    """

    distance: np.ndarray
    r_squared: np.ndarray
    correlation: np.ndarray
    sensitivity: Mapping[str, np.ndarray]
    num_pairs: Mapping[str, np.ndarray]


def summarise_objective(seen: Inspection) -> ObjectiveSummary:
    """The figures of an inspection."""
    distance, correlation = np.transpose([compare(seen.target, known, seen.mask) for known in seen.known])
    ahead = {name: mean_by_steps_ahead(x, seen.pairs[name]) for name, x in seen.derivatives.items()}
    return ObjectiveSummary(
        distance if seen.has_scale else np.full_like(distance, np.nan),
        correlation**2,
        correlation,
        {name: means for name, (means, _) in ahead.items()},
        {name: counts for name, (_, counts) in ahead.items()},
    )


def nearest(summary: ObjectiveSummary) -> int | None:
    """Which known return the target is nearest to, or correlates with most if it has no scale; the first of those that
    tie.

    None if the target is constant and has no scale.
    """
    scores = -summary.correlation if np.isnan(summary.distance).all() else summary.distance
    return _first_of_lowest(scores)


def best_fit(summary: ObjectiveSummary) -> int | None:
    """Which known return explains most of the target by a linear function; None if the target is constant."""
    return _first_of_lowest(-summary.r_squared)


def _first_of_lowest(scores: np.ndarray) -> int | None:
    """On-policy some known returns are the same but for rounding."""
    if np.isnan(scores).all():
        return None
    lowest = np.nanmin(scores)
    return int(np.argmax(scores <= lowest + 1e-5 * max(1, abs(lowest))))


def compare(target: Array, known: Array, mask: Array) -> tuple[float, float]:
    """Distance and correlation, as in `ObjectiveSummary`, of two targets `[T, B]` where the mask is not 0."""
    x, y = (np.asarray(array, float)[np.asarray(mask) != 0] for array in (known, target))
    if not y.size:
        return np.nan, np.nan
    distance = float(np.sqrt(np.mean(np.square(y - x))))
    if np.ptp(y) == 0:
        return distance, np.nan
    return distance, 0.0 if np.ptp(x) == 0 else float(np.corrcoef(x, y)[0, 1])


def mean_by_steps_ahead(derivative: Array, pairs: Array) -> tuple[np.ndarray, np.ndarray]:
    """Mean derivative over the pairs (t, t+j) that count, for each j.

    Args:
      derivative: `[T, T, B]`.
      pairs: bool, likewise.

    Returns:
      The means `[T]`, NaN where there is no pair, and the numbers of pairs `[T]`.
    """
    ahead = [(np.diagonal(derivative, j), np.diagonal(pairs, j)) for j in range(len(derivative))]
    means = [float(np.mean(x[counts], dtype=float)) if counts.any() else np.nan for x, counts in ahead]
    return np.array(means), np.array([int(counts.sum()) for _, counts in ahead])
