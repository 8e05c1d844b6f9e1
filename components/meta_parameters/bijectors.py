"""Bijectors: from an unconstrained number, which is what is learned, to a value in the units of the field.

Each maps onto an *open* interval, also in floating point, and keeps a derivative other than zero as far out as
floating point allows, so that a meta-parameter cannot freeze at a bound.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from components.component import component
from components.types import Array, Scalar


class Bijector(Protocol):
    """An increasing map of the real line onto `(low, high)`."""

    @property
    def low(self) -> float | None:
        """Lower bound, never reached; None for none."""
        ...

    @property
    def high(self) -> float | None:
        """Upper bound, never reached; None for none."""
        ...

    def forward(self, x: Scalar) -> Scalar:
        """Value of an unconstrained number."""
        ...

    def inverse(self, y: Scalar) -> Scalar:
        """Unconstrained number of a value strictly between the bounds."""
        ...


@component
class Identity:
    """x: no bounds."""

    low: None = dataclasses.field(default=None, init=False)
    high: None = dataclasses.field(default=None, init=False)

    def forward(self, x: Array) -> Array:
        return x

    def inverse(self, y: Array) -> Array:
        return y


@component
class Exp:
    """e^x: positive, learned on a logarithmic scale, as suits a learning rate."""

    low: float = dataclasses.field(default=0.0, init=False)
    high: None = dataclasses.field(default=None, init=False)

    def forward(self, x: Array) -> Array:
        return jnp.exp(_clip(x, *np.log([np.finfo(x.dtype).tiny, np.finfo(x.dtype).max]) * 0.99))

    def inverse(self, y: Array) -> Array:
        return jnp.log(y)


@component
class Softplus:
    """log(1 + e^x): positive, nearly linear above 1, as suits a cost."""

    low: float = dataclasses.field(default=0.0, init=False)
    high: None = dataclasses.field(default=None, init=False)

    def forward(self, x: Array) -> Array:
        return jax.nn.softplus(_clip(x, 0.99 * np.log(np.finfo(x.dtype).tiny), np.inf))

    def inverse(self, y: Array) -> Array:
        return y + jnp.log(-jnp.expm1(-y))


@component
class Sigmoid:
    """low + (high - low) / (1 + e^-x): between two bounds, (0, 1) unless given.

    Args:
      low: lower bound.
      high: upper bound.

    Raises:
      ValueError: if the bounds are not in order.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f'Sigmoid needs low < high, got low={self.low}, high={self.high}')

    def forward(self, x: Array) -> Array:
        low, high = np.asarray(self.low, x.dtype), np.asarray(self.high, x.dtype)
        tiny = np.finfo(x.dtype).tiny  # Anything smaller counts as 0 in compiled programs.
        y = low + (high - low) * _logistic(x)
        return _clip(y, max(np.nextafter(low, high), low + tiny), min(np.nextafter(high, low), high - tiny))

    def inverse(self, y: Array) -> Array:
        return jnp.log(y - self.low) - jnp.log(self.high - y)


def _clip(x: Array, low: float, high: float) -> Array:
    """`jnp.clip` whose derivative is 1 also beyond the bounds."""
    return x + jax.lax.stop_gradient(jnp.clip(x, low, high) - x)


@jax.custom_jvp
def _logistic(x: Array) -> Array:
    return jax.nn.sigmoid(x)


@_logistic.defjvp
def _logistic_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # As sigmoid(x) rounds to 1, sigmoid(x) (1 - sigmoid(x)) would be exactly 0 from x = 17 on in float32.
    (x,), (dx,) = primals, tangents
    return _logistic(x), _logistic(x) * _logistic(-x) * dx
