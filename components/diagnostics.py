"""Is a meta-gradient right? Comparison with finite differences, for any agent."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from components.inner_loop import replay
from components.learner import Learner
from components.meta_optimisers.bootstrapped import Bootstrapped
from components.meta_optimisers.differentiation import EvolutionStrategies, Truncated, normal_like, repeat
from components.meta_optimisers.meta_gradient import MetaGradient
from components.types import CompositionError


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
    are those at the unperturbed meta-parameters. A scalar meta-parameter is moved up and down by `step`, a larger one along
    a random direction.

    Args:
      learner: keep it small.
      step: of the unconstrained values.

    Returns:
      A comparison for every meta-parameter, by path.

    Raises:
      CompositionError: if the learner's meta-optimiser takes no exact derivative.
    """
    meta_optimiser = learner.agent.meta_optimiser
    if not isinstance(meta_optimiser, MetaGradient | Bootstrapped):
        raise CompositionError(f'there is no meta-gradient: the meta-optimiser is {meta_optimiser}')
    differentiation, num_inner_steps = meta_optimiser.differentiation, meta_optimiser.num_inner_steps
    if isinstance(differentiation, Truncated | EvolutionStrategies):
        raise CompositionError(
            f'{differentiation} is not the whole derivative on purpose; check the variant with Mixed()'
        )
    meta_params, agent = jax.tree.map(lambda x: x[0], (learner.state.meta_params, learner.state.agents))
    agent = jax.tree.map(lambda x: x[0], agent)

    @jax.jit
    def record(meta_params):
        return meta_optimiser.lifetime_loss(repeat(meta_params, num_inner_steps), agent, learner.inner_loop)[1]

    inner_loop, agent = replay(learner.inner_loop, agent, _as_double(record(meta_params).recording))
    with jax.enable_x64(True):
        agent, meta_params = _as_double((agent, meta_params))

        @jax.jit
        def estimate(meta_params):
            found = differentiation(meta_optimiser.lifetime_loss, meta_params, num_inner_steps, agent, inner_loop)
            return found.gradient, found.lifetime.targets

        @jax.jit
        def loss(meta_params, targets):
            return meta_optimiser.lifetime_loss(repeat(meta_params, num_inner_steps), agent, inner_loop, targets)[0]

        gradient, fixed = estimate(meta_params)

        def compare(path: str) -> Comparison:
            direction = _direction(meta_params[path])

            def moved(sign: int) -> dict[str, Any]:
                return {
                    **meta_params,
                    path: jax.tree.map(lambda x, d: x + sign * step * d, meta_params[path], direction),
                }

            slope = (loss(moved(1), fixed) - loss(moved(-1), fixed)) / (2 * step)
            return Comparison(float(optax.tree.vdot(gradient[path], direction)), float(slope))

        return {path: compare(path) for path in meta_params}


def _direction(meta_param: Any) -> Any:
    """1 for a scalar; for anything larger a random direction of length 1."""
    if isinstance(meta_param, jax.Array) and meta_param.ndim == 0:
        return jnp.ones_like(meta_param)
    direction = normal_like(jax.random.key(0), meta_param)
    return optax.tree.scale(1 / optax.tree.norm(direction), direction)


def _as_double(tree: Any) -> Any:
    with jax.enable_x64(True):
        return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
