"""Noise of meta-gradients: independent estimates from one frozen agent, and statistics of each estimator.

From a frozen agent, an unroll of `K` updates gives the derivatives g_1 to g_K of the outer losses after each of them.
The plain meta-gradient through k updates is g_k, a mixture is sum_k w_k g_k: every estimator is evaluated on the same
unrolls, so that comparisons are paired. A `ValidationLoss` is evaluated after every update of one unroll; for any other
outer loss, the first k updates are taken again, from the same keys, for each k that an estimator uses.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from agents.analysis import signal_to_noise
from agents.analysis.signal_to_noise import Draws, Interval
from agents.learner import Learner
from components.acting.actor import Actor
from components.component_tree import replace_at
from components.environments.base import check_can_be_copied
from components.inner_loop import AgentState, InnerLoop, acting_source
from components.meta_optimisers.base import LearnerState
from components.meta_optimisers.gradient_estimators.base import repeat
from components.meta_optimisers.gradient_estimators.exact import MAX_FORWARD_SCALARS
from components.meta_optimisers.outer_loss import OuterLoss
from components.meta_optimisers.step_weights import LastStep, StepWeights, Uniform
from components.meta_optimisers.validation_loss import ValidationLoss
from components.optimisers import Optimiser
from components.types import Array, CompositionError, MetaParams

UNROLLS_AT_ONCE = 16
"""In one compiled call of `draw`."""


class FrozenAgent(NamedTuple):
    """What is frozen: an agent, of which neither trajectory nor environments are used again, and the
    meta-parameters.
    """

    agent: AgentState
    meta_params: MetaParams


def freeze(state: LearnerState) -> FrozenAgent:
    """The first seed's first lifetime of a learner's state."""
    meta_params, agent = jax.tree.map(lambda x: x[0], (state.meta_params, state.agents))
    return FrozenAgent(jax.tree.map(lambda x: x[0], agent), meta_params)


def with_optimiser(frozen: FrozenAgent, optimiser: Optimiser) -> FrozenAgent:
    """The agent with that optimiser inside, from its initial state unless the present one has the same structure."""
    learning = frozen.agent.learning
    fresh = optimiser.init(learning.params)
    structures: list[object] = [jax.tree.structure(state) for state in (fresh, learning.opt_state)]
    if structures[0] == structures[1]:
        return frozen
    return frozen._replace(agent=frozen.agent._replace(learning=learning._replace(opt_state=fresh)))


class Sampler:
    """Draws independent meta-gradients of a frozen agent.

    The outer loss starts from its initial state. Each unroll starts new episodes, acts `num_start_steps` so that they
    stand at different times, and then learns with action and environment randomness of its own.

    Args:
      outer_loss: its number of steps and their weights are not used.
      inner_loop: of the agent.
      actor: starts the episodes.
      estimators: what the meta-gradients are for.
      num_start_steps: acted before an unroll.
    """

    def __init__(
        self,
        outer_loss: OuterLoss,
        inner_loop: InnerLoop,
        actor: Actor,
        estimators: Sequence['WeightedEstimator'],
        num_start_steps: int,
    ):
        self._numbers_of_steps = sorted(
            {k for estimator in estimators for k in (*(estimator.used + 1), estimator.num_inner_steps)}
        )
        self._outer_loss = outer_loss
        self._inner_loop, self._actor, self._num_start_steps = inner_loop, actor, num_start_steps
        self._sample = jax.jit(lambda frozen, keys: jax.lax.map(lambda key: self._one(frozen, key), keys))

    def __call__(self, frozen: FrozenAgent, key: Array, num_unrolls: int) -> np.ndarray:
        """Derivatives of the outer loss after each update, `[N, K, P]`, with respect to `P` numbers in all; NaN after
        those that neither an estimator nor the plain one beside it uses.
        """
        found = np.asarray(self._sample(frozen, jax.random.split(key, num_unrolls)))
        gradients = np.full((num_unrolls, self._numbers_of_steps[-1], found.shape[-1]), np.nan, found.dtype)
        gradients[:, np.array(self._numbers_of_steps) - 1] = found
        return gradients

    def _one(self, frozen: FrozenAgent, key: Array) -> Array:
        reset_key, start_key, act_key, key = jax.random.split(key, 4)
        state, inner_loop = self._actor.init(reset_key), self._inner_loop
        source = acting_source(inner_loop)
        _, acting_params = source.behaviour.update(frozen.agent.behaviour, frozen.agent.params)
        if self._num_start_steps:
            state, _, _ = source.actor.unroll(acting_params, state, start_key, self._num_start_steps)
        state, trajectory, _ = source.actor.unroll(acting_params, state, act_key, inner_loop.unroll_length)
        agent = frozen.agent._replace(actor_state=state, trajectory=trajectory, key=key)
        flat, unravel = ravel_pytree(frozen.meta_params)
        return _jacobian(lambda flat: self._losses(unravel(flat), agent), flat)

    def _losses(self, meta_params: MetaParams, agent: AgentState) -> Float[Array, ' K']:
        """The outer losses of an agent after the numbers of updates that are used."""
        state = self._outer_loss.init(jax.tree.map(lambda x: x[None], agent))
        inputs = agent, self._inner_loop, jax.tree.map(lambda x: x[0], state)
        if isinstance(self._outer_loss, ValidationLoss):
            num_steps = self._numbers_of_steps[-1]
            every = dataclasses.replace(self._outer_loss, num_inner_steps=num_steps, step_weights=Uniform())
            losses, _ = every.losses(repeat(meta_params, num_steps), *inputs)
            return losses[np.array(self._numbers_of_steps) - 1]
        each = {k: replace_at(self._outer_loss, 'num_inner_steps', k) for k in self._numbers_of_steps}
        return jnp.stack([loss(repeat(meta_params, k), *inputs)[0] for k, loss in each.items()])


def draw(
    sampler: Sampler,
    frozen: FrozenAgent,
    num_unrolls: int,
    seed: int,
    track: Callable[[Array], Iterable[Array]] = iter,
) -> np.ndarray:
    """Draws meta-gradients in compiled calls of a few unrolls each.

    Args:
      sampler: what draws them.
      frozen: the agent.
      num_unrolls: `N`.
      seed: of the unrolls.
      track: what shows progress, from the keys of the calls to the same keys.

    Returns:
      `[N, K, P]`, as of the sampler.
    """
    keys = jax.random.split(jax.random.key(seed), -(-num_unrolls // UNROLLS_AT_ONCE))
    return np.concatenate([sampler(frozen, key, UNROLLS_AT_ONCE) for key in track(keys)])[:num_unrolls]


def sampler_of(learner: Learner, estimators: Sequence['WeightedEstimator'], num_start_steps: int) -> Sampler:
    """The sampler of a learner's meta-gradients.

    Raises:
      CompositionError: if it has none, or its environments cannot be copied.
    """
    check_can_be_copied(learner.agent.environment, 'the noise of meta-gradients')
    outer_loss = getattr(learner.agent.meta_optimiser, 'outer_loss', None)
    if outer_loss is None:
        name = type(learner.agent.meta_optimiser).__name__
        raise CompositionError(f'there are no meta-gradients to measure: the meta-optimiser is {name}')
    return Sampler(outer_loss, learner.inner_loop, learner.actor, estimators, num_start_steps)


def _jacobian(function: Callable[[Array], Array], at: Array) -> Array:
    """Derivatives `[K, P]` of `K` numbers with respect to `P`.

    In forward mode the function is evaluated once and its linearisation `P` times, in turn: a batch of `P` tangents
    would make a grouped convolution of each convolution, and takes about 1.8 times as long on CPU.
    """
    if at.size > MAX_FORWARD_SCALARS:
        return jax.jacrev(function)(at)
    _, along = jax.linearize(function, at)
    return jax.lax.map(along, jnp.eye(at.size, dtype=at.dtype)).T


@dataclasses.dataclass(frozen=True)
class WeightedEstimator:
    """A meta-gradient through `num_inner_steps` updates with their weights."""

    num_inner_steps: int
    step_weights: StepWeights

    def __call__(self, gradients: np.ndarray) -> np.ndarray:
        """Its estimates `[N, P]` from `[N, K, P]`, the largest `K` being at least its own."""
        weights = self.step_weights(self.num_inner_steps)
        return np.einsum('k,nkp->np', weights[self.used], gradients[:, self.used].astype(float))

    @property
    def used(self) -> np.ndarray:
        """Which of the updates, from 0, are followed by an outer loss of any weight."""
        return np.flatnonzero(self.step_weights(self.num_inner_steps))


class NoiseSummary(NamedTuple):
    """What `N` unrolls say of an estimator of a number, or of several at once.

    `agents/analysis/signal_to_noise.py` states the coverage of the intervals of signal-to-noise and of its gain. That
    of the ratio of variances, by a percentile bootstrap of 256 unrolls, is 93% to 95%.
    Quotients of estimates that do not vary are NaN.

    Attributes:
      mean: of the estimates; for several the length |mu|, estimated without the bias of the length of a mean.
      variance: of one estimate; the sum of several.
      squared_iqr: square of the interquartile range, which heavy tails leave alone; the sum of several.
      largest_share: of one unroll in the variance.
      signal_to_noise: |mu| / sqrt(tr Sigma) of one estimate, without a sign for one number too:
        sqrt(max(0, T) / tr Sigma), where T is the unbiased estimate of |mu|^2.
      signal_to_noise_interval: 95%, score interval.
      variance_ratio: variance of the plain estimate through as many updates, over this one's.
      variance_ratio_interval: 95%, paired, bootstrapped over unrolls.
      squared_iqr_ratio: the same of squared interquartile ranges.
      signal_to_noise_gain: signal-to-noise less that of the plain estimate through as many updates.
      signal_to_noise_gain_interval: 95%, paired, from the limits of both.
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


def summarise_noise(
    gradients: np.ndarray,
    estimators: list[WeightedEstimator],
    components: Mapping[str, slice],
    reference: np.ndarray,
    num_resamples: int = 2_000,
    seed: int = 0,
) -> dict[tuple[WeightedEstimator, str], NoiseSummary]:
    """Compares estimators with the plain ones through as many updates.

    Args:
      gradients: from a `Sampler` for estimators of at least these numbers of steps, `[N, K, P]`; `N` is at least four.
      estimators: what to compare.
      components: which of the `P` numbers to look at together, by name.
      reference: estimates `[M, P]` of what the mean should be.
      num_resamples: of the bootstrap of the ratio of variances.
      seed: of the bootstrap.
    """
    resamples = _resampling_weights(len(gradients), num_resamples, seed)
    summaries = {}
    for estimator in estimators:
        ours = estimator(gradients)
        plain = WeightedEstimator(estimator.num_inner_steps, LastStep())(gradients)
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


def _summarise(ours: np.ndarray, plain: np.ndarray, reference: np.ndarray, resamples: np.ndarray) -> NoiseSummary:
    draws, plain_draws = Draws.standardise(ours), Draws.standardise(plain)
    gain, gain_interval = signal_to_noise.difference(draws, plain_draws)
    variance_ratio = _ratio(plain_draws.variance, draws.variance)
    plain_again, again = (_resampled_variances(x.values, resamples) for x in (plain_draws, draws))
    with np.errstate(divide='ignore', invalid='ignore'):  # A resample can miss the only draws that differ.
        variance_ratios = variance_ratio * plain_again / again
    mean, deviations, centre = ours.mean(0), np.square(draws.values - draws.values.mean(0)).sum(1), reference.mean(0)
    cosine = float(mean @ centre / max(np.linalg.norm(mean) * np.linalg.norm(centre), np.finfo(float).tiny))
    return NoiseSummary(
        mean=float(mean[0]) if mean.size == 1 else _length(mean, draws.variance / len(ours)),
        variance=draws.variance,
        squared_iqr=_squared_iqr(ours),
        largest_share=float(deviations.max() / deviations.sum()),
        signal_to_noise=draws.squared_norm.length,
        signal_to_noise_interval=draws.squared_norm.interval,
        variance_ratio=variance_ratio,
        variance_ratio_interval=_interval(variance_ratios),
        squared_iqr_ratio=_ratio(_squared_iqr(plain), _squared_iqr(ours)),
        signal_to_noise_gain=gain,
        signal_to_noise_gain_interval=gain_interval,
        cosine=cosine if is_resolved(reference) else np.nan,
    )


def _length(mean: np.ndarray, variance: float) -> float:
    """Length of a mean of that variance, without what the variance adds to its square."""
    return float(np.sqrt(max(mean @ mean - variance, 0)))


def _resampled_variances(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Total variance of `[N, P]` under each row of weights `[R, N]`, each `[R]`."""
    deviations = values - values.mean(0)
    return weights @ np.square(deviations).sum(1) - np.square(weights @ deviations).sum(1)


def _resampling_weights(size: int, num_resamples: int, seed: int) -> np.ndarray:
    """How much each of `N` unrolls counts in each resample, `[R, N]`; rows add up to 1."""
    return np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), num_resamples) / size


def _squared_iqr(estimates: np.ndarray) -> float:
    low, high = np.quantile(estimates, [0.25, 0.75], axis=0)
    return float(np.square(high - low).sum())


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _ratio(a: float, b: float) -> float:
    return a / b if b else np.nan
