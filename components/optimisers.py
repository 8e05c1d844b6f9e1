"""Inner optimisers: an optax transformation and a learning rate that can be meta-learned."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from components.schedules import first_value
from components.types import OptState, Params


def chain(transforms: Sequence[optax.GradientTransformation]) -> optax.GradientTransformation:
    """`optax.chain` with its transformations as one argument, which a gin file can bind."""
    return optax.chain(*transforms)


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """Steps of `-learning_rate * transform(gradient)`.

    Args:
      transform: from a gradient to a direction, *without* a learning rate: `optax.scale_by_rms()`,
        `optax.scale_by_adam(eps_root=1e-8)`, `optax.identity()` for SGD, or a `chain` of such.
      learning_rate: positive.

    Raises:
      ValueError: if the learning rate is not positive.
    """

    transform: optax.GradientTransformation
    learning_rate: float

    def __post_init__(self):
        if not first_value(self.learning_rate) > 0:
            raise ValueError(f'Optimiser.learning_rate must be positive, got {self.learning_rate}')

    def init(self, params: Params) -> OptState:
        """State before the first step."""
        return self.transform.init(params)

    def step(self, gradient: Params, state: OptState, params: Params) -> tuple[Params, OptState]:
        """Takes one step, differentiable in all arguments and in `learning_rate`.

        Args:
          gradient: of the loss, as `params`.
          state: of the transformation.
          params: to move.

        Returns:
          The moved parameters and the next state.
        """
        direction, state = self.transform.update(gradient, state, params)
        return jax.tree.map(lambda p, d: p - self.learning_rate * d, params, direction), state


def check_differentiable(optimiser: Optimiser) -> None:
    """Makes sure that meta-gradients through an optimiser are finite where gradients are zero.

    A dead unit has a gradient of exactly zero, and the derivative of a square root or of a norm there makes a whole
    meta-gradient NaN. So two steps are differentiated, once with one zero coordinate and once with nothing but zeros.

    Raises:
      ValueError: if the derivative is not finite.
    """
    optimiser = dataclasses.replace(optimiser, learning_rate=1.0)  # Which may be scheduled, and does not matter.

    def moved(gradient):
        params = jnp.ones(2)
        state = optimiser.init(params)
        for _ in range(2):
            params, state = optimiser.step(gradient, state, params)
        return params

    for gradient in (jnp.array([0.0, 1.0]), jnp.zeros(2)):
        if not jnp.isfinite(jax.jacobian(moved)(gradient)).all():
            raise ValueError(
                'Optimiser.transform cannot be differentiated where a gradient is zero, so meta-gradients would be '
                'NaN: give Adam-like transformations eps_root > 0 (1e-8, say), and clip by norm in the '
                "meta-optimiser's chain instead"
            )
