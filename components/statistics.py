"""How noisy a meta-gradient is: many independent estimates from one frozen agent, and what they say of each estimator.

From a frozen agent, an unroll of `K` updates gives the derivatives g_1 to g_K of the outer losses after each of them. The plain
meta-gradient through k updates is g_k, a mixture is sum_k w_k g_k: every estimator is evaluated on the same unrolls, so
that comparisons are paired.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from components.actors import Actor
from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.differentiation import MAX_FORWARD_SCALARS, repeat
from components.meta_optimisers.meta_gradient import MetaGradient
from components.meta_optimisers.step_weights import LastStep, StepWeights, Uniform
from components.optimisers import Optimiser
from components.types import Array, MetaParams


class FrozenAgent(NamedTuple):
    """What is frozen: an agent, of which neither trajectory nor environments are used again, and the meta-parameters."""

    agent: AgentState
    meta_params: MetaParams


def freeze(state: Any) -> FrozenAgent:
    """The first seed's first lifetime of a learner's state."""
    meta_params, agent = jax.tree.map(lambda x: x[0], (state.meta_params, state.agents))
    return FrozenAgent(jax.tree.map(lambda x: x[0], agent), meta_params)


def with_optimiser(frozen: FrozenAgent, optimiser: Optimiser) -> FrozenAgent:
    """The agent with that optimiser inside, from its initial state unless the present one has the same structure."""
    agent = frozen.agent
    fresh = optimiser.init(agent.params)
    structures: list[Any] = [jax.tree.structure(state) for state in (fresh, agent.opt_state)]
    return frozen if structures[0] == structures[1] else frozen._replace(agent=agent._replace(opt_state=fresh))


class Sampler:
    """Draws independent meta-gradients of a frozen agent.

    Each unroll starts new episodes, acts `num_start_steps` so that they stand at different times, and then learns for
    `num_inner_steps` updates with action and environment randomness of its own.

    Args:
      meta_gradient: its outer objective and validation are used; its number of steps and their weights are not.
      inner_loop: of the agent.
      actor: starts the episodes.
      num_inner_steps: the largest `K`.
      num_start_steps: acted before an unroll.
    """

    def __init__(
        self,
        meta_gradient: MetaGradient,
        inner_loop: InnerLoop,
        actor: Actor,
        num_inner_steps: int,
        num_start_steps: int,
    ):
        self._meta_gradient = dataclasses.replace(
            meta_gradient, num_inner_steps=num_inner_steps, step_weights=Uniform(), overlapping=False
        )
        self._inner_loop, self._actor, self._num_start_steps = inner_loop, actor, num_start_steps
        self._sample = jax.jit(lambda frozen, keys: jax.lax.map(lambda key: self._one(frozen, key), keys))

    def __call__(self, frozen: FrozenAgent, key: Array, num_unrolls: int) -> np.ndarray:
        """Derivatives of the outer loss after each update, `[N, K, P]`, with respect to `P` numbers in all."""
        return np.asarray(self._sample(frozen, jax.random.split(key, num_unrolls)))

    def _one(self, frozen: FrozenAgent, key: Array) -> Array:
        reset_key, start_key, act_key, key = jax.random.split(key, 4)
        state, inner_loop = self._actor.init(reset_key), self._inner_loop
        _, acting_params = inner_loop.follow(frozen.agent.behaviour, frozen.agent.params)
        if self._num_start_steps:
            state, _, _ = inner_loop.act(acting_params, state, start_key, self._num_start_steps)
        state, trajectory, _ = inner_loop.act(acting_params, state, act_key, inner_loop.unroll_length)
        agent = frozen.agent._replace(actor_state=state, trajectory=trajectory, key=key)
        flat, unravel = ravel_pytree(frozen.meta_params)

        def losses(flat: Array) -> Array:
            by_update = repeat(unravel(flat), self._meta_gradient.num_inner_steps)
            return self._meta_gradient.lifetime_losses(by_update, agent, inner_loop)[0]

        return (jax.jacfwd if flat.size <= MAX_FORWARD_SCALARS else jax.jacrev)(losses)(flat)


@dataclasses.dataclass(frozen=True)
class Estimator:
    """A meta-gradient through `num_inner_steps` updates with their weights."""

    num_inner_steps: int
    step_weights: StepWeights

    def __call__(self, gradients: np.ndarray) -> np.ndarray:
        """Its estimates `[N, P]` from `[N, K, P]`, the largest `K` being at least its own."""
        weights = self.step_weights(self.num_inner_steps)
        return np.einsum('k,nkp->np', weights, gradients[:, : self.num_inner_steps].astype(float))


Interval = tuple[float, float]


class Summary(NamedTuple):
    """What `N` unrolls say of an estimator of a number, or of several at once.

    Attributes:
      mean: of the estimates; the length of it for several.
      variance: of one estimate; the sum of several.
      squared_iqr: square of the interquartile range, which heavy tails leave alone; the sum of several.
      largest_share: of one unroll in the variance.
      signal_to_noise: mean over standard deviation of one estimate.
      signal_to_noise_interval: 95%, bootstrapped over unrolls.
      variance_ratio: variance of the plain estimate through as many updates, over this one's.
      variance_ratio_interval: 95%, paired.
      squared_iqr_ratio: the same of squared interquartile ranges.
      signal_to_noise_gain: signal-to-noise less that of the plain estimate through as many updates.
      signal_to_noise_gain_interval: 95%, paired.
      cosine: with the reference, for one number the agreement in sign; NaN where the reference is not resolved.
    """

    mean: float
    variance: float
    squared_iqr: float
    largest_share: float
    signal_to_noise: float
    signal_to_noise_interval: Interval
    variance_ratio: float
    variance_ratio_interval: Interval
    squared_iqr_ratio: float
    signal_to_noise_gain: float
    signal_to_noise_gain_interval: Interval
    cosine: float


def summarise(
    gradients: np.ndarray,
    estimators: list[Estimator],
    components: Mapping[str, slice],
    reference: np.ndarray,
    num_resamples: int = 2_000,
    seed: int = 0,
) -> dict[tuple[Estimator, str], Summary]:
    """Compares estimators with the plain ones through as many updates.

    Args:
      gradients: from a `Sampler`, `[N, K, P]`.
      estimators: what to compare.
      components: which of the `P` numbers to look at together, by name.
      reference: estimates `[M, P]` of what the mean should be.
      num_resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    resamples = _resampling_weights(len(gradients), num_resamples, seed)
    summaries = {}
    for estimator in estimators:
        ours = estimator(gradients)
        plain = Estimator(estimator.num_inner_steps, LastStep())(gradients)
        for name, part in components.items():
            summaries[estimator, name] = _summarise(ours[:, part], plain[:, part], reference[:, part], resamples)
    return summaries


def is_resolved(estimates: np.ndarray) -> bool:
    """Whether the mean of estimates `[M, P]` is at least three standard errors away from zero."""
    standard_error = np.sqrt(estimates.var(0, ddof=1).sum() / len(estimates))
    return bool(np.linalg.norm(estimates.mean(0)) >= 3 * standard_error)


def meta_param_slices(meta_params: MetaParams) -> dict[str, slice]:
    """Where each meta-parameter stands among the numbers of all of them."""
    start, slices = 0, {}
    for path in sorted(meta_params):  # The order in which JAX flattens a dictionary.
        size = sum(x.size for x in jax.tree.leaves(meta_params[path]))
        slices[path] = slice(start, start + size)
        start += size
    return slices


def _summarise(ours: np.ndarray, plain: np.ndarray, reference: np.ndarray, resamples: np.ndarray) -> Summary:
    mean, deviations = ours.mean(0), np.square(ours - ours.mean(0)).sum(1)
    signal_to_noise, variance = _moments(ours, np.full((1, len(ours)), 1 / len(ours)))
    plain_signal_to_noise, plain_variance = _moments(plain, np.full((1, len(ours)), 1 / len(ours)))
    ours_again, plain_again = _moments(ours, resamples), _moments(plain, resamples)
    centre = reference.mean(0)
    cosine = float(mean @ centre / max(np.linalg.norm(mean) * np.linalg.norm(centre), np.finfo(float).tiny))
    return Summary(
        mean=float(mean[0]) if mean.size == 1 else float(np.linalg.norm(mean)),
        variance=float(variance[0]),
        squared_iqr=_squared_iqr(ours),
        largest_share=float(deviations.max() / deviations.sum()),
        signal_to_noise=float(signal_to_noise[0]),
        signal_to_noise_interval=_interval(ours_again[0]),
        variance_ratio=float(plain_variance[0] / variance[0]),
        variance_ratio_interval=_interval(plain_again[1] / ours_again[1]),
        squared_iqr_ratio=_squared_iqr(plain) / _squared_iqr(ours),
        signal_to_noise_gain=float(signal_to_noise[0] - plain_signal_to_noise[0]),
        signal_to_noise_gain_interval=_interval(ours_again[0] - plain_again[0]),
        cosine=cosine if is_resolved(reference) else np.nan,
    )


def _moments(estimates: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signal-to-noise and variance of estimates `[N, P]` under each row of weights `[R, N]`, each `[R]`."""
    scale = max(np.abs(estimates).max(), np.finfo(float).tiny)  # Squares of meta-gradients can be very small.
    mean = weights @ (estimates / scale)
    variance = np.maximum(weights @ np.square(estimates / scale) - np.square(mean), 0).sum(1)
    variance *= len(estimates) / (len(estimates) - 1)
    return np.linalg.norm(mean, axis=1) / np.sqrt(variance), variance * scale**2


def _resampling_weights(size: int, num_resamples: int, seed: int) -> np.ndarray:
    """How much each of `N` unrolls counts in each resample, `[R, N]`; rows add up to 1."""
    return np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), num_resamples) / size


def _squared_iqr(estimates: np.ndarray) -> float:
    low, high = np.quantile(estimates, [0.25, 0.75], axis=0)
    return float(np.square(high - low).sum())


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
