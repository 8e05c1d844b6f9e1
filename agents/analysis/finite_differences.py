"""Finite differences of the outer loss, compared with the meta-gradient of any agent."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import PyTree

from agents.learner import Learner
from components.component_tree import components_of, replace_all
from components.inner_loop import AgentState, InnerLoop
from components.meta_optimisers.base import LearnerState
from components.meta_optimisers.gradient_estimators.base import Estimate, GradientEstimator, repeat
from components.meta_optimisers.gradient_estimators.evolution_strategies import normal_like
from components.meta_optimisers.meta_gradient import MetaGradient
from components.replay import Replay, replayed
from components.types import Array, CompositionError, MetaParams
from components.update_rule import UpdateRule


class Comparison(NamedTuple):
    """A derivative with respect to one unconstrained meta-parameter, found in two ways."""

    autodiff: float
    finite_difference: float

    @property
    def relative_error(self) -> float:
        """Difference over the larger of the two; 0 if both are 0."""
        scale = max(abs(self.autodiff), abs(self.finite_difference))
        return abs(self.autodiff - self.finite_difference) / scale if scale else 0.0


def compare_with_finite_differences(learner: Learner, step: float = 1e-5) -> dict[str, Comparison]:
    """Compares the meta-gradient of a learner's first lifetime with central differences in double precision.

    What a meta-gradient holds fixed is held fixed: trajectories are recorded once and replayed, and the outer targets
    are those at the unperturbed meta-parameters. Finite differences see through what else stops a gradient, so that
    fields of the update rule that say so (`stop_...`) are switched off, in both. A scalar meta-parameter is moved up
    and down by `step`, a larger one along a random direction.

    Args:
      learner: keep it small.
      step: of the unconstrained values.

    Returns:
      A comparison for every meta-parameter, by path.

    Raises:
      CompositionError: if the learner's meta-optimiser takes no exact derivative.
    """
    gradient_estimator = getattr(learner.agent.meta_optimiser, 'gradient_estimator', None)
    if not getattr(gradient_estimator, 'is_exact', True):
        raise CompositionError(
            f'{gradient_estimator} is not the whole derivative on purpose; check the variant with Mixed()'
        )
    with jax.enable_x64(True):
        lifetime = recorded_lifetime(learner, jnp.float64)
        whole = lifetime.inner_loop.over(
            lambda plain: dataclasses.replace(plain, update_rule=without_stops(plain.update_rule))
        )
        return lifetime._replace(inner_loop=whole).compare_with_finite_differences(step)


def stops(update_rule: UpdateRule) -> list[str]:
    """Paths of the fields of an update rule that stop a gradient on purpose."""
    return [
        path
        for path, value in components_of(update_rule).items()
        if path.rpartition('.')[2].startswith('stop_') and value is True
    ]


def without_stops(update_rule: UpdateRule) -> UpdateRule:
    """The update rule with nothing in it that stops a gradient on purpose; its updates are the same."""
    return replace_all(update_rule, dict.fromkeys(stops(update_rule), False))


class RecordedLifetime(NamedTuple):
    """One lifetime, whose trajectories are what was acted once, whatever is learned from them.

    Attributes:
      meta_optimiser: of the learner.
      meta_params: at the start.
      agent: at the start.
      state: of the outer loss in this lifetime.
      inner_loop: sees the recorded trajectories.
    """

    meta_optimiser: MetaGradient
    meta_params: MetaParams
    agent: AgentState
    state: PyTree
    inner_loop: InnerLoop

    def estimate(self, meta_params: MetaParams, gradient_estimator: GradientEstimator | None = None) -> Estimate:
        """Its meta-gradient, by the meta-optimiser's own gradient estimator or by another."""
        gradient_estimator = gradient_estimator or self.meta_optimiser.gradient_estimator
        return gradient_estimator(self.meta_optimiser.outer_loss, meta_params, self.agent, self.inner_loop, self.state)

    def compare_with_finite_differences(self, step: float = 1e-5) -> dict[str, Comparison]:
        """As the function of that name."""
        estimate = jax.jit(self.estimate)(self.meta_params)
        gradient, fixed = estimate.gradient, estimate.result.targets

        @jax.jit
        def loss(meta_params: MetaParams) -> Array:
            outer_loss = self.meta_optimiser.outer_loss
            per_update = repeat(meta_params, outer_loss.num_inner_steps)
            return outer_loss(per_update, self.agent, self.inner_loop, self.state, fixed)[0]

        def compare(path: str, meta_param: PyTree) -> Comparison:
            along = direction(meta_param)

            def moved(sign: int) -> MetaParams:
                return {**self.meta_params, path: jax.tree.map(lambda x, d: x + sign * step * d, meta_param, along)}

            slope = (loss(moved(1)) - loss(moved(-1))) / (2 * step)
            return Comparison(float(optax.tree.vdot(gradient[path], along)), float(slope))

        return {path: compare(path, meta_param) for path, meta_param in self.meta_params.items()}


def recorded_lifetime(learner: Learner, dtype: DTypeLike) -> RecordedLifetime:
    """Records the next updates of a learner's first lifetime.

    Where the objective has a state, they are not the first two of an agent, in which there is nothing to remember.

    Args:
      learner: is left as it is, but for environments outside of the program, which take the steps that are recorded.
      dtype: of the recording; `float64` needs `jax.enable_x64` around it.

    Raises:
      CompositionError: if the learner's meta-optimiser estimates no meta-gradient.
    """
    meta_optimiser = learner.agent.meta_optimiser
    if not isinstance(meta_optimiser, MetaGradient):
        raise CompositionError(f'there is no meta-gradient: the meta-optimiser is {meta_optimiser}')
    with jax.enable_x64(False):
        meta_params, agent = jax.jit(_first_lifetime)(learner.state)
        if jax.tree.leaves(agent.learning.objective_state):
            agent = jax.jit(lambda m, a: _advanced(learner.inner_loop, m, a))(meta_params, agent)
        outer_loss = meta_optimiser.outer_loss
        initial = outer_loss.init(jax.tree.map(lambda x: x[None], agent))
        state = jax.tree.map(lambda x: x[0], initial)

        @jax.jit
        def record(meta_params: MetaParams, agent: AgentState) -> Replay:
            per_update = repeat(meta_params, outer_loss.num_inner_steps)
            return outer_loss(per_update, agent, learner.inner_loop, state)[1].replay

        recorded = record(meta_params, agent)
    recorded, agent, state, meta_params = jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
        (recorded, agent, state, meta_params),
    )
    inner_loop = replayed(learner.inner_loop, agent, recorded)
    return RecordedLifetime(meta_optimiser, meta_params, agent, state, inner_loop)


def _first_lifetime(state: LearnerState) -> tuple[MetaParams, AgentState]:
    """Of the first seed."""
    meta_params, agents = jax.tree.map(lambda x: x[0], (state.meta_params, state.agents))
    return meta_params, jax.tree.map(lambda x: x[0], agents)


def _advanced(inner_loop: InnerLoop, meta_params: MetaParams, agent: AgentState) -> AgentState:
    """After two updates."""
    return jax.lax.fori_loop(0, 2, lambda _, agent: inner_loop.advance(meta_params, agent)[0], agent)


def direction(meta_param: PyTree) -> PyTree:
    """What a meta-parameter is moved along: 1 for a scalar; for anything larger a random direction of length 1."""
    if isinstance(meta_param, jax.Array) and meta_param.ndim == 0:
        return jnp.ones_like(meta_param)
    drawn = normal_like(jax.random.key(0), meta_param)
    return optax.tree.scale(1 / optax.tree.norm(drawn), drawn)
