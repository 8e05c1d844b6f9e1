"""The exact meta-gradient in mixed mode: reverse over updates, forward inside of each."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from components.component import component
from components.inner_loop import AgentState, InnerLoop, PlainUpdate
from components.meta_optimisers.gradient_estimators.base import Estimate, reverse_mode
from components.meta_optimisers.outer_loss import OuterLoss
from components.metrics import NamedLogs
from components.networks.network import NetworkFunctions
from components.objectives.base import Unroll
from components.optimisers import check_differentiable
from components.types import (
    FieldValues,
    MetaParams,
    ObjectiveState,
    OptState,
    Outputs,
    Params,
    Scalar,
    Targets,
    Trajectory,
)
from components.update_rule import UpdateRule

Inputs = tuple[FieldValues, Params, ObjectiveState, Trajectory]
"""Of an update's gradient."""


@component
class Mixed:
    """Exact; reverse mode from update to update, mixed with forward mode inside of each. The default.

    Second derivatives of a loss are symmetric: the transpose of a gradient's derivative, which a reverse pass through
    an update asks for, is the derivative of the gradient along a vector. So the reverse pass through an update starts
    from what the update started from, and neither keeps nor differentiates the update's own reverse pass. The inner
    gradient is a semi-gradient, whose derivative is not symmetric: the exchange is made for the loss with its targets
    as one more argument, and the targets are differentiated in reverse mode by themselves.

    Args:
      rematerialise: keeps of each update only the weights, the optimiser's state and the trajectory before it, and
        recomputes the gradient in the reverse pass. Acting is never repeated.

    Source: Kemaev et al. (2025), without their block structure; with targets apart, this project.
    """

    rematerialise: bool = False

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(
        self, outer_loss: OuterLoss, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, state: PyTree
    ) -> Estimate:
        inner_loop = inner_loop.over(lambda plain: MixedModeUpdate.of(plain, rematerialise=self.rematerialise))
        return reverse_mode(outer_loss, meta_params, agent, inner_loop, state)


@dataclasses.dataclass(frozen=True)
class MixedModeUpdate(PlainUpdate):
    """The plain update with the reverse pass of `Mixed`."""

    @classmethod
    def of(cls, plain: PlainUpdate, **changes: object) -> 'MixedModeUpdate':
        """From a plain update, with some of its fields changed."""
        fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
        return cls(**{**fields, **changes})

    def gradient(
        self, field_values: FieldValues, params: Params, state: ObjectiveState, trajectory: Trajectory
    ) -> tuple[Params, ObjectiveState, NamedLogs]:
        return mixed_mode_gradient(self.bind, self.network)(field_values, params, state, trajectory)

    def step(
        self, field_values: FieldValues, gradient: Params, opt_state: OptState, params: Params
    ) -> tuple[Params, OptState]:
        # What an optimiser computes on its way is cheaper to repeat than to keep for each update.
        return jax.checkpoint(super().step)(field_values, gradient, opt_state, params)


def mixed_mode_gradient(
    bind: Callable[[FieldValues], UpdateRule], network: NetworkFunctions
) -> Callable[[FieldValues, Params, ObjectiveState, Trajectory], tuple[Params, ObjectiveState, NamedLogs]]:
    """`UpdateRule.gradient` with the reverse pass of `Mixed`: one forward pass along the cotangent, and one back.

    Args:
      bind: from values of its fields to the update rule.
      network: whose weights are learned.

    Returns:
      `(values, params, state, trajectory) -> gradient, state, logs`; differentiable in the first three, in reverse mode
      only.
    """

    @jax.custom_vjp
    def gradient(
        values: FieldValues, params: Params, state: ObjectiveState, trajectory: Trajectory
    ) -> tuple[Params, ObjectiveState, NamedLogs]:
        return bind(values).gradient(network, params, state, trajectory)

    def forward(
        values: FieldValues, params: Params, state: ObjectiveState, trajectory: Trajectory
    ) -> tuple[tuple[Params, ObjectiveState, NamedLogs], Inputs]:
        return gradient(values, params, state, trajectory), (values, params, state, trajectory)

    def backward(
        inputs: Inputs, cotangents: tuple[Params, ObjectiveState, NamedLogs]
    ) -> tuple[FieldValues, Params, ObjectiveState, None]:
        values, params, state, trajectory = inputs
        along, along_state, _ = cotangents  # Logs are not differentiated.

        # The network's outputs, and how they change as the weights move along the cotangent.
        def run(params: Params) -> tuple[Outputs, Outputs]:
            return jax.jvp(lambda params: network.outputs(params, trajectory), (params,), (along,))

        (outputs, d_outputs), pullback = jax.vjp(run, params)

        # The loss is a function of these values, outputs and targets; its slopes change as the outputs do.
        def targets_of(
            values: FieldValues, outputs: Outputs, params: Params, state: ObjectiveState
        ) -> tuple[Targets, ObjectiveState]:
            return bind(values).targets(Unroll(outputs, trajectory, params, network), state)

        (targets, _), targets_pullback = jax.vjp(targets_of, values, outputs, params, state)

        def slopes(outputs: Outputs) -> tuple[FieldValues, Outputs, Targets]:
            def loss(values: FieldValues, outputs: Outputs, targets: Targets) -> Scalar:
                return bind(values).loss(outputs, targets, trajectory)[0]

            return jax.grad(loss, argnums=(0, 1, 2))(values, outputs, targets)

        (_, slope, _), (to_fields, d_slope, to_targets) = jax.jvp(slopes, (outputs,), (d_outputs,))

        # Targets have moved with the weights too. What reaches the outputs goes back through the network once.
        through_targets, to_outputs, directly, to_state = targets_pullback((to_targets, along_state))
        (to_params,) = pullback((jax.tree.map(jnp.add, d_slope, to_outputs), slope))
        to_fields, to_params = jax.tree.map(jnp.add, (to_fields, to_params), (through_targets, directly))
        return to_fields, to_params, to_state, None

    gradient.defvjp(forward, backward)
    return gradient
