"""Is a meta-gradient right? Comparison with finite differences, for any agent."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from components.inner_loop import AgentState, InnerLoop
from components.learner import Learner
from components.meta_optimisers.meta_gradient import MetaGradient
from components.types import EpisodeTotals, MetaParams, Trajectory


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
    are those at the unperturbed meta-parameters. Scalar meta-parameters are moved up and down by `step`.

    Args:
      learner: whose meta-optimiser is a `MetaGradient`; keep it small.
      step: of the unconstrained values.

    Returns:
      A comparison for every scalar meta-parameter, by path.
    """
    meta_gradient = learner.agent.meta_optimiser
    assert isinstance(meta_gradient, MetaGradient)
    agent, meta_params = jax.tree.map(lambda x: x[0], (learner.state.agents, learner.state.meta_params))
    agent = jax.tree.map(lambda x: x[0], agent)
    inner_loop, agent = record(meta_gradient, learner.inner_loop, meta_params, agent)

    with jax.enable_x64(True):
        inner_loop, agent, meta_params = _as_double((inner_loop, agent, meta_params))
        loop: InnerLoop = inner_loop

        @jax.jit
        def gradient_and_targets(meta_params):
            def loss(meta_params):
                loss, _, _, targets = meta_gradient.lifetime_loss(meta_params, agent, loop)
                return loss, targets

            return jax.grad(loss, has_aux=True)(meta_params)

        loss = jax.jit(lambda meta_params, targets: meta_gradient.lifetime_loss(meta_params, agent, loop, targets)[0])
        gradient, fixed = gradient_and_targets(meta_params)

        def slope(path: str) -> float:
            up, down = ({**meta_params, path: meta_params[path] + sign * step} for sign in (1, -1))
            return float((loss(up, fixed) - loss(down, fixed)) / (2 * step))

        scalars = [path for path, value in meta_params.items() if jnp.ndim(value) == 0]
        return {path: Comparison(float(gradient[path]), slope(path)) for path in scalars}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Replay:
    """Acting that repeats what was recorded; the actor state counts the trajectories of each length so far.

    Attributes:
      trajectories: by their length, stacked in the order in which they were acted.
    """

    trajectories: dict[int, Trajectory]

    def start(self) -> dict[int, Any]:
        return {length: jnp.int32(0) for length in self.trajectories}

    def __call__(self, params: Any, counts: Any, key: Any, unroll_length: int) -> tuple[Any, Trajectory, EpisodeTotals]:
        del params, key
        trajectory = jax.tree.map(lambda x: x[counts[unroll_length]], self.trajectories[unroll_length])
        nothing = EpisodeTotals(jnp.int32(0), jnp.int32(0), jnp.float32(0), jnp.int32(0))
        return {**counts, unroll_length: counts[unroll_length] + 1}, trajectory, nothing


def record(
    meta_gradient: MetaGradient, inner_loop: InnerLoop, meta_params: MetaParams, agent: AgentState
) -> tuple[InnerLoop, AgentState]:
    """Acts what one meta-step would, once.

    Returns:
      The inner loop and the agent, with acting replaced by a replay of these trajectories.
    """
    advance, act = jax.jit(inner_loop.advance), jax.jit(inner_loop.act, static_argnums=3)
    acted: dict[int, list[Trajectory]] = {}
    now = agent
    for _ in range(meta_gradient.num_inner_steps):
        now, _ = advance(meta_params, now)
        acted.setdefault(inner_loop.unroll_length, []).append(now.trajectory)
        if meta_gradient.validation_unroll_length is not None:
            key, act_key = jax.random.split(now.key)
            actor_state, validation, _ = act(
                now.params, now.actor_state, act_key, meta_gradient.validation_unroll_length
            )
            now = now._replace(actor_state=actor_state, key=key)
            acted.setdefault(meta_gradient.validation_unroll_length, []).append(validation)
    replay = _Replay({n: jax.tree.map(lambda *xs: jnp.stack(xs), *ts) for n, ts in acted.items()})
    return inner_loop._replace(act=replay), agent._replace(actor_state=replay.start())


def _as_double(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: x.astype(jnp.float64) if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) else x,
        tree,
    )
