"""The exact meta-gradient in mixed mode: reverse over updates, forward inside of each."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from components.component import PositiveInt, component
from components.inner_loop import AgentState, InnerLoop, PlainUpdate
from components.meta_optimisers.gradient_estimators.base import Estimate, reverse_mode
from components.meta_optimisers.outer_loss import OuterLoss
from components.metrics import NamedLogs
from components.networks.network import NetworkFunctions, with_bootstrap
from components.objectives.base import Unroll
from components.optimisers import check_differentiable
from components.types import (
    FieldValues,
    MetaParams,
    ObjectiveState,
    OptState,
    Params,
    Predictions,
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
        recomputes the gradient in the reverse pass. It repeats no acting.
      num_segments: parts of the `K` updates, which it divides. Of each, what it starts with is kept; its updates and
        its acting are repeated in the reverse pass. With a number near sqrt(K), memory grows like that root, at the cost
        of one more forward pass. It takes environments that are computed inside the program.

    Source: Kemaev et al. (2025), without their block structure; with targets apart, this project.
    """

    rematerialise: bool = False
    num_segments: PositiveInt = 1

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        check_differentiable(update_rule.optimiser, params)

    def __call__(
        self, outer_loss: OuterLoss, meta_params: MetaParams, agent: AgentState, inner_loop: InnerLoop, state: PyTree
    ) -> Estimate:
        def mixed(plain: PlainUpdate) -> MixedModeUpdate:
            return MixedModeUpdate.of(
                plain, rematerialise=self.rematerialise, repeats_step=outer_loss.num_inner_steps > 1
            )

        inner_loop = dataclasses.replace(inner_loop.over(mixed), num_segments=self.num_segments)
        return reverse_mode(outer_loss, meta_params, agent, inner_loop, state)


@dataclasses.dataclass(frozen=True)
class MixedModeUpdate(PlainUpdate):
    """The plain update with the reverse pass of `Mixed`.

    Args:
      repeats_step: whether the reverse pass repeats the optimiser's step: what it computes on its way is cheaper to
        repeat than to keep for each of several updates.
    """

    repeats_step: bool = True

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
        step = jax.checkpoint(super().step) if self.repeats_step else super().step
        return step(field_values, gradient, opt_state, params)


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

        # The network's predictions, and how they change as the weights move along the cotangent. What targets bootstrap
        # from is in no loss: of it, the weights' own derivative is enough.
        def run(params: Params) -> tuple[Predictions, Predictions, Predictions]:
            (predictions, bootstrap), (d_predictions, _) = jax.jvp(
                lambda params: network.predictions(params, trajectory), (params,), (along,)
            )
            return predictions, bootstrap, d_predictions

        (predictions, bootstrap, d_predictions), pullback = jax.vjp(run, params)

        # The loss is a function of these values, predictions and targets; its slopes change as the predictions do.
        def targets_of(
            values: FieldValues, predictions: Predictions, bootstrap: Predictions, params: Params, state: ObjectiveState
        ) -> tuple[Targets, ObjectiveState]:
            outputs = with_bootstrap(predictions, bootstrap)
            return bind(values).targets(Unroll(outputs, trajectory, params, network), state)

        (targets, _), targets_pullback = jax.vjp(targets_of, values, predictions, bootstrap, params, state)

        def slopes(predictions: Predictions) -> tuple[FieldValues, Predictions, Targets]:
            def loss(values: FieldValues, predictions: Predictions, targets: Targets) -> Scalar:
                return bind(values).loss(predictions, targets, trajectory)[0]

            return jax.grad(loss, argnums=(0, 1, 2))(values, predictions, targets)

        (_, slope, _), (to_fields, d_slope, to_targets) = jax.jvp(slopes, (predictions,), (d_predictions,))

        # Targets have moved with the weights too. What reaches the outputs goes back through the network once.
        through_targets, to_predictions, to_bootstrap, directly, to_state = targets_pullback((to_targets, along_state))
        (to_params,) = pullback((jax.tree.map(jnp.add, d_slope, to_predictions), to_bootstrap, slope))
        to_fields, to_params = jax.tree.map(jnp.add, (to_fields, to_params), (through_targets, directly))
        return to_fields, to_params, to_state, None

    gradient.defvjp(forward, backward)
    return gradient
