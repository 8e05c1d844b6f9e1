"""How the derivative of an outer loss through inner updates is taken: the same estimate at another price, or a coarser one.

`Mixed`, `Reverse` and `Forward` are exact and agree; they differ in time and memory. `Truncated` looks through one update
only. `EvolutionStrategies` needs no derivative at all.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from components.component import Positive, component
from components.inner_loop import AgentState, InnerLoop, Recording, replay
from components.networks.network import NetworkFunctions
from components.optimisers import check_differentiable
from components.types import Array, Logs, MetaParams, Metrics, Params, Targets, Trajectory, Values
from components.update_rule import UpdateRule


class Lifetime(NamedTuple):
    """What came of a few updates of one agent, beside the outer loss.

    Attributes:
      agent: after them.
      metrics: of them.
      targets: of the outer loss, which are held fixed.
      recording: what was acted.
      memory: whatever else its meta-optimiser keeps of it.
    """

    agent: AgentState
    metrics: Metrics
    targets: Targets
    recording: Recording
    memory: Any = ()


class LifetimeLoss(Protocol):
    """The outer loss of one agent in the course of a few updates."""

    def __call__(
        self, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, targets: Targets = None
    ) -> tuple[Array, Lifetime]:
        """Takes the updates, and judges them.

        Args:
          meta_params: to learn with, one for each of the `K` updates, leaves `[K, ...]`.
          agent: before the first.
          inner_loop: of the agent.
          targets: of the outer loss, to be held fixed; None for those at the agent's own weights, which are returned.
        """
        ...


class Estimate(NamedTuple):
    """An estimate of a meta-gradient from one lifetime.

    Attributes:
      gradient: as the meta-parameters.
      by_update: what of it came through each of the `K` updates, leaves `[K, ...]`; None where that is not known.
      lifetime: what came of the updates.
    """

    gradient: MetaParams
    by_update: MetaParams | None
    lifetime: Lifetime


class Differentiation(Protocol):
    """A frozen dataclass that estimates the derivative of a `LifetimeLoss` with respect to meta-parameters."""

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        """Raises ValueError if it cannot be had for these."""
        ...

    def __call__(
        self,
        lifetime_loss: LifetimeLoss,
        meta_params: MetaParams,
        num_inner_steps: int,
        agent: AgentState,
        inner_loop: InnerLoop,
    ) -> Estimate:
        """Estimates it at `meta_params`, which every one of the `K` updates shares."""
        ...


@component
class Mixed:
    """Exact; reverse mode from update to update, mixed with forward mode inside of each. The default.

    Second derivatives of a loss are symmetric: the transpose of a gradient's derivative, which a reverse pass through an
    update asks for, is the derivative of the gradient along a vector. So the reverse pass through an update starts from what
    the update started from, and neither keeps nor differentiates the update's own reverse pass. The inner gradient is a
    semi-gradient, whose derivative is not symmetric: the exchange is made for the loss with its targets as one more
    argument, and the targets are differentiated in reverse mode by themselves.

    Args:
      rematerialise: keeps of each update only the weights, the optimiser's state and the trajectory before it, and computes
        the gradient anew in the reverse pass. Acting is never repeated.

    Source: Kemaev et al. (2025), without their block structure; with targets apart, this project.
    """

    rematerialise: bool = False

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(self, lifetime_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
        inner_loop = _in_mixed_mode(inner_loop)._replace(rematerialise=self.rematerialise)
        return _reverse(lifetime_loss, meta_params, num_inner_steps, agent, inner_loop)


@component
class Reverse:
    """Exact; reverse mode throughout, which keeps what every update computes.

    Args:
      rematerialise: keeps of each update only the weights, the optimiser's state and the trajectory before it, and computes
        it anew in the reverse pass. Acting is never repeated.
    """

    rematerialise: bool = False

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(self, lifetime_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
        inner_loop = inner_loop._replace(rematerialise=self.rematerialise)
        return _reverse(lifetime_loss, meta_params, num_inner_steps, agent, inner_loop)


@component
class Truncated:
    """Through the last update before each outer loss only: weights and optimiser state from before it are constants.

    The estimate of Xu et al. (2018), biased for more than one inner step. It does not save the time of a whole one.
    """

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(self, lifetime_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
        whole = _in_mixed_mode(inner_loop)

        def gradient(values, params, trajectory):
            return whole.gradient(values, jax.lax.stop_gradient(params), trajectory)

        def step(values, gradient, opt_state, params):
            return whole.step(values, gradient, *jax.lax.stop_gradient((opt_state, params)))

        inner_loop = whole._replace(gradient=gradient, step=step)
        return _reverse(lifetime_loss, meta_params, num_inner_steps, agent, inner_loop)


MAX_FORWARD_SCALARS = 64
"""Each costs `Forward` one more pass."""


@component
class Forward:
    """Exact; one forward-mode pass for each scalar meta-parameter, all at once. Its memory does not grow with `K`."""

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)
        for path, value in meta_params.items():
            if not isinstance(value, jax.Array):
                raise ValueError(
                    f'Forward takes a pass for each number, but meta-parameter {path!r} is a whole network; use Mixed'
                )
        num_scalars = sum(math.prod(value.shape) for value in meta_params.values())
        if num_scalars > MAX_FORWARD_SCALARS:
            raise ValueError(
                f'Forward takes a pass for each number, at most {MAX_FORWARD_SCALARS}, but the meta-parameters are '
                f'{num_scalars} numbers; use Mixed'
            )

    def __call__(self, lifetime_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
        def loss(meta_params):
            return lifetime_loss(repeat(meta_params, num_inner_steps), agent, inner_loop)

        gradient, lifetime = jax.jacfwd(loss, has_aux=True)(meta_params)
        return Estimate(gradient, None, lifetime)


@component
class EvolutionStrategies:
    """The gradient-free arm: how the same outer loss differs between meta-parameters moved one way and the other.

        direction ~ N(0, 1), one for each lifetime
        gradient  = direction (loss(eta + standard_deviation direction) - loss(eta - standard_deviation direction))
                    / (2 standard_deviation)

    Acting happens once, at eta; the moved lifetimes learn from the same trajectories, and the outer targets are those at
    eta. So what is estimated is the meta-gradient of the other modes, but for the smoothing, whatever the inner optimiser;
    the effect of eta on data is left out here as there. A lifetime knows one direction, hence several lifetimes.

    Args:
      standard_deviation: of the unconstrained meta-parameters' perturbations.

    Raises:
      ValueError: if it is not positive.

    Source: Salimans et al. (2017), antithetic sampling, section 2; with data held fixed, this project.
    """

    standard_deviation: Positive = 0.1

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        if num_lifetimes < 2:
            raise ValueError(
                'EvolutionStrategies draws one direction for each lifetime, so that one lifetime says nothing of the '
                'others: set num_lifetimes (NUM_LIFETIMES) to at least 2'
            )

    def __call__(self, lifetime_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
        _, lifetime = lifetime_loss(repeat(meta_params, num_inner_steps), agent, inner_loop)
        replayed, agent = replay(inner_loop, agent, lifetime.recording)
        key, direction_key = jax.random.split(lifetime.agent.key)
        direction = normal_like(direction_key, meta_params)

        def loss(sign: int) -> Array:
            moved = jax.tree.map(lambda x, d: x + sign * self.standard_deviation * d, meta_params, direction)
            return lifetime_loss(repeat(moved, num_inner_steps), agent, replayed, lifetime.targets)[0]

        slope = (loss(1) - loss(-1)) / (2 * self.standard_deviation)
        gradient = jax.tree.map(lambda d: slope * d, direction)
        return Estimate(gradient, None, lifetime._replace(agent=lifetime.agent._replace(key=key)))


def _in_mixed_mode(inner_loop: InnerLoop) -> InnerLoop:
    return inner_loop._replace(
        gradient=mixed_mode_gradient(inner_loop.bind, inner_loop.network),
        # What an optimiser computes on its way is cheaper to repeat than to keep for each update.
        step=jax.checkpoint(inner_loop.step),
    )


def mixed_mode_gradient(
    bind: Callable[[Values], UpdateRule], network: NetworkFunctions
) -> Callable[[Values, Params, Trajectory], tuple[Params, Logs]]:
    """`UpdateRule.gradient` with the reverse pass of `Mixed`: one forward pass along the cotangent, and one back.

    Args:
      bind: from values of its fields to the update rule.
      network: whose weights are learned.

    Returns:
      `(values, params, trajectory) -> gradient, logs`; differentiable in the first two, in reverse mode only.
    """

    @jax.custom_vjp
    def gradient(values, params, trajectory):
        return bind(values).gradient(network, params, trajectory)

    def forward(values, params, trajectory):
        return gradient(values, params, trajectory), (values, params, trajectory)

    def backward(inputs, cotangents):
        values, params, trajectory = inputs
        along, _ = cotangents  # Logs are not differentiated.

        # The network's outputs, and how they change as the weights move along the cotangent.
        def run(params):
            return jax.jvp(lambda params: network.outputs(params, trajectory), (params,), (along,))

        (outputs, d_outputs), pullback = jax.vjp(run, params)

        # The loss is a function of these values, outputs and targets; its slopes change as the outputs do.
        targets, targets_pullback = jax.vjp(
            lambda values, outputs: bind(values).targets(outputs, trajectory), values, outputs
        )

        def slopes(outputs):
            def loss(values, outputs, targets):
                return bind(values).loss(outputs, targets, trajectory)[0]

            return jax.grad(loss, argnums=(0, 1, 2))(values, outputs, targets)

        (_, slope, _), (to_fields, d_slope, to_targets) = jax.jvp(slopes, (outputs,), (d_outputs,))

        # Targets have moved with the weights too. What reaches the outputs goes back through the network once.
        through_targets, to_outputs = targets_pullback(to_targets)
        (to_params,) = pullback((jax.tree.map(jnp.add, d_slope, to_outputs), slope))
        return jax.tree.map(jnp.add, to_fields, through_targets), to_params, None

    gradient.defvjp(forward, backward)
    return gradient


def _reverse(lifetime_loss, meta_params, num_inner_steps, agent, inner_loop) -> Estimate:
    by_update, lifetime = jax.grad(lambda m: lifetime_loss(m, agent, inner_loop), has_aux=True)(
        repeat(meta_params, num_inner_steps)
    )
    return Estimate(jax.tree.map(lambda x: x.sum(0), by_update), by_update, lifetime)


def repeat(meta_params: MetaParams, num_inner_steps: int) -> MetaParams:
    """The same meta-parameters for each of `K` updates, leaves `[K, ...]`."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_inner_steps, *x.shape)), meta_params)


def normal_like(key: Array, tree: Any) -> Any:
    """Standard normal numbers in the structure of a tree of arrays."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)
