"""Return estimators: value targets and advantages along a trajectory.

The recursions are those of rlax (tests compare them), on time-major batches and with every gradient flowing. A return
never reaches through a restart: where the *next* transition is masked, the present one bootstraps from the value of its
last observation.
"""

from typing import Annotated, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from components.component import Interval, UnitInterval, component
from components.shapes import checked
from components.types import Array, Trajectory


class ReturnEstimate(NamedTuple):
    """Value targets and advantages along a trajectory.

    Attributes:
      target: for the value of each state.
      advantage: of each action over the policy.
    """

    target: Float[Array, 'T B']
    advantage: Float[Array, 'T B']


class ReturnEstimator(Protocol):
    """A frozen dataclass whose numeric fields may hold traced values."""

    @property
    def is_on_policy(self) -> bool:
        """Whether it assumes that the actions were drawn from the present policy."""
        ...

    def __call__(
        self, values: Float[Array, 'T+1 B'], log_rho: Float[Array, 'T B'], trajectory: Trajectory
    ) -> ReturnEstimate:
        """Estimates returns; differentiable in values, ratios and fields, stops nothing.

        Args:
          values: of the observations.
          log_rho: log of the probability of each action under the present policy over that under the one that acted.
          trajectory: rewards, discounts and masks.
        """
        ...


def estimate_returns(returns: ReturnEstimator, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
    """What a return estimator makes of a trajectory.

    Raises:
      CompositionError: if arrays have other shapes than the interface says.
    """
    return checked(ReturnEstimator.__call__)(returns, values, log_rho, trajectory)


@component
class LambdaReturn:
    """The on-policy lambda-return, G_t = r_{t+1} + gamma_{t+1} [(1 - lambda) v_{t+1} + lambda G_{t+1}].

    lambda 0 is one-step TD, lambda 1 the longest return that the trajectory allows. The advantage is G_t - v_t.

    Args:
      discount: multiplies the environment's own; in [0, 1].
      lambda_: in [0, 1].
      bootstrap: whether values stand for what is not on the trajectory; False for its rewards alone.

    Raises:
      ValueError: if a number is out of range.

    Source: Sutton & Barto (2018), section 12.1; `rlax.lambda_returns`.
    """

    discount: UnitInterval = 0.99
    lambda_: UnitInterval = 0.95
    bootstrap: bool = True
    is_on_policy: ClassVar[bool] = True

    def __call__(self, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
        del log_rho  # On-policy.
        discount, lambda_ = self.discount * trajectory.discount, self.lambda_ * next_mask(trajectory)
        next_values = values[1:] if self.bootstrap else jnp.zeros_like(values[1:])
        one_step = trajectory.reward + discount * (1 - lambda_) * next_values
        target = accumulate(one_step, discount * lambda_, next_values[-1])
        return ReturnEstimate(target, target - values[:-1])


@component
class LeakyVTrace:
    """V-trace whose truncated importance ratios leak some of the plain ones.

        rho_t = alpha min(rho_bar, IS_t) + (1 - alpha) IS_t,    c_t = lambda [alpha min(1, IS_t) + (1 - alpha) IS_t]
        G_t   = v_t + rho_t (r_{t+1} + gamma_{t+1} v_{t+1} - v_t) + gamma_{t+1} c_t (G_{t+1} - v_{t+1})

    The advantage is rho_t (r_{t+1} + gamma_{t+1} [(1 - lambda) v_{t+1} + lambda G_{t+1}] - v_t). On-policy both are
    those of `LambdaReturn`, and alpha has no effect. Ratios of exactly 1 are a corner of the truncation: the derivative
    there is JAX's convention for ties, half of each side's.

    Args:
      discount: multiplies the environment's own; in [0, 1].
      lambda_: in [0, 1].
      alpha: 1 is V-trace, 0 importance sampling; in [0, 1].
      rho_bar: where ratios that weigh temporal differences are truncated; positive.

    Raises:
      ValueError: if a field is out of range.

    Source: Zahavy et al. (2020), section 3; Espeholt et al. (2018), section 4.1; `rlax.leaky_vtrace`. The lambda in
      the advantage is as in `rlax.vtrace_td_error_and_advantage`.
    """

    discount: UnitInterval = 0.99
    lambda_: UnitInterval = 0.95
    alpha: UnitInterval = 1.0
    rho_bar: Annotated[float, Interval(0, float('inf'), low_open=True)] = 1.0
    is_on_policy: ClassVar[bool] = False

    def __call__(self, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
        discount = self.discount * trajectory.discount
        ratio = jnp.exp(log_rho) * trajectory.mask  # A masked transition has no error and lets none through.
        rho = self.alpha * jnp.minimum(self.rho_bar, ratio) + (1 - self.alpha) * ratio
        trace = self.lambda_ * (self.alpha * jnp.minimum(1, ratio) + (1 - self.alpha) * ratio)
        one_step = rho * (trajectory.reward + discount * values[1:] - values[:-1])
        error = accumulate(one_step, discount * trace, jnp.zeros_like(one_step[-1]))
        next_error = jnp.concatenate([error[1:], jnp.zeros_like(error[:1])])
        target = trajectory.reward + discount * (values[1:] + self.lambda_ * next_error)
        return ReturnEstimate(values[:-1] + error, rho * (target - values[:-1]))


def accumulate(
    terms: Float[Array, 'T B'], factors: Float[Array, 'T B'], last: Float[Array, ' B']
) -> Float[Array, 'T B']:
    """Backward recursion of returns: `x_t = terms_t + factors_t x_{t+1}`, where `x_T` is `last`."""

    def step(following: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        term, factor = xs
        present = term + factor * following
        return present, present

    return jax.lax.scan(step, last, (terms, factors), reverse=True)[1]


def ends(trajectory: Trajectory) -> Bool[Array, 'T B']:
    """Whether no return reaches through a transition: an episode ends with it, or a restart follows."""
    return (trajectory.discount == 0) | (next_mask(trajectory) == 0)


def next_mask(trajectory: Trajectory) -> Float[Array, 'T B']:
    """Mask of the transition after each one; 1 after the last, where there is only a value to bootstrap from."""
    return jnp.concatenate([trajectory.mask[1:], jnp.ones_like(trajectory.mask[:1])])
