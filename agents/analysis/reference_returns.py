"""Textbook returns that learned ones are compared with."""

import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import rlax

from components.component import PositiveInt, UnitInterval, component
from components.component_tree import replace_at
from components.objectives.returns import LambdaReturn, LeakyVTrace, ReturnEstimate, ReturnEstimator, next_mask
from components.types import Array, Trajectory

DISCOUNTS = (0.9, 0.95, 0.99, 1.0)
LAMBDAS = (0.5, 0.8, 0.9, 0.95)
"""Of lambda-returns; those with 0 and 1 are the one-step and the longest return."""
NUMS_OF_STEPS = (1, 2, 3, 5)


class ReturnInputs(NamedTuple):
    """What a `ReturnEstimator` is called with."""

    values: Array
    log_rho: Array
    trajectory: Trajectory


@component
class NStepReturn:
    """The n-step return, G_t = r_{t+1} + gamma_{t+1} (r_{t+2} + ... + gamma_{t+n} v_{t+n}), on-policy.

    Fewer steps where the trajectory ends, or its next transition is masked: then it bootstraps from the value there.

    Args:
      num_steps: n.
      discount: multiplies the environment's own.

    Source: Sutton & Barto (2018), section 7.1; `rlax.n_step_bootstrapped_returns`.
    """

    num_steps: PositiveInt
    discount: UnitInterval
    is_on_policy: ClassVar[bool] = True

    def __call__(self, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
        del log_rho  # On-policy.
        # rlax's lambda says, step by step, whether to go on (1) or to bootstrap at once (0).
        target = jax.vmap(rlax.n_step_bootstrapped_returns, in_axes=(1, 1, 1, None, 1), out_axes=1)(
            trajectory.reward,
            self.discount * trajectory.discount,
            values[1:],
            self.num_steps,
            next_mask(trajectory),
        )
        return ReturnEstimate(target, target - values[:-1])


class KnownReturn(NamedTuple):
    """A return to compare with.

    Attributes:
      name: of its kind: `2-step`, `lambda-return`, `V-trace`, or `rewards alone` for the longest return without values.
      discount: its own.
      lambda_: its own; None for a kind that has none.
      returns: which computes it.
    """

    name: str
    discount: UnitInterval
    lambda_: float | None
    returns: ReturnEstimator

    def __str__(self) -> str:
        lambda_ = '' if self.lambda_ is None else f', lambda {self.lambda_:g}'
        return f'{self.name}, discount {self.discount:g}{lambda_}'


def known_returns(unroll_length: int) -> list[KnownReturn]:
    """The returns that learned ones are compared with, on trajectories of `T` steps.

    For each of `DISCOUNTS`: `n`-step for each of `NUMS_OF_STEPS` below `T` and for `T`, lambda-returns for each of
    `LAMBDAS`, V-trace with lambda 1, and rewards alone. On-policy, V-trace is the `T`-step return.
    """
    nums_of_steps = [n for n in NUMS_OF_STEPS if n < unroll_length] + [unroll_length]
    return [
        *(KnownReturn(f'{n}-step', d, None, NStepReturn(n, d)) for n in nums_of_steps for d in DISCOUNTS),
        *(KnownReturn('lambda-return', d, lambda_, LambdaReturn(d, lambda_)) for d in DISCOUNTS for lambda_ in LAMBDAS),
        *(KnownReturn('V-trace', d, None, LeakyVTrace(d, 1.0)) for d in DISCOUNTS),
        *(KnownReturn('rewards alone', d, None, LambdaReturn(d, 1.0, bootstrap=False)) for d in DISCOUNTS),
    ]


def known_estimates(known: Sequence[KnownReturn], inputs: ReturnInputs) -> ReturnEstimate:
    """What known returns make of the same inputs, leaves `[M, T, B]`. Those of one kind stand together, as one
    computation.
    """
    estimates = []
    for _, group in itertools.groupby(known, lambda label: label.name):
        members = list(group)
        numbers: dict[str, list[float | None]] = {'discount': [label.discount for label in members]}
        if members[0].lambda_ is not None:
            numbers['lambda_'] = [label.lambda_ for label in members]

        def estimate(numbers: Mapping[str, Array], returns: ReturnEstimator = members[0].returns) -> ReturnEstimate:
            for field, number in numbers.items():
                returns = replace_at(returns, field, number)
            return returns(*inputs)

        estimates.append(jax.vmap(estimate)({field: jnp.array(x) for field, x in numbers.items()}))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *estimates)
