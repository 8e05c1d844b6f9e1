"""Policies: from a network's outputs to the distribution that actions are drawn from."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jaxtyping import Float

from components.acting.action_distributions import ActionDistribution, Categorical, num_actions
from components.component import UnitInterval, component
from components.types import Array, CompositionError, Outputs, Trajectory


class Policy(Protocol):
    """A frozen dataclass."""

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        """Shape of each network output that it reads, without leading axes.

        Raises:
          ValueError: if it cannot act in an environment of that spec.
        """
        ...

    def __call__(self, outputs: Mapping[str, Float[Array, '...']], leading: tuple[int, ...]) -> ActionDistribution:
        """Distribution of actions, with these leading axes.

        Args:
          outputs: of the network, `[*leading, *head]`.
          leading: `(B,)` for a step, `(T+1, B)` for a sequence.
        """
        ...


class CategoricalPolicy(Policy, Protocol):
    """A policy of one discrete action."""

    def __call__(self, outputs: Outputs, leading: tuple[int, ...]) -> Categorical: ...


@component
class Softmax:
    """Draws from the logits that the network puts out.

    Args:
      head: output that holds them, `[A]`.
    """

    head: str = 'logits'

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {self.head: (num_actions(spec),)}

    def __call__(self, outputs: Outputs, leading: tuple[int, ...]) -> Categorical:
        return Categorical(outputs[self.head])


@component
class Greedy:
    """Takes the action of the highest value, the first of those that tie.

    Args:
      head: output that holds the values of the actions, `[A]`.
    """

    head: str = 'action_value'

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {self.head: (num_actions(spec),)}

    def __call__(self, outputs: Outputs, leading: tuple[int, ...]) -> Categorical:
        values = outputs[self.head]
        return Categorical(_log(jax.nn.one_hot(jnp.argmax(values, -1), values.shape[-1], dtype=values.dtype)))


@component
class EpsilonMixture:
    """Another policy, or any action with equal chances: epsilon-greedy, if that other is greedy.

    Args:
      policy: the other.
      epsilon: probability of drawing any action; in [0, 1].

    Raises:
      ValueError: if `epsilon` is out of range.
    """

    policy: CategoricalPolicy = Greedy()
    epsilon: UnitInterval = 0.05

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return self.policy.heads(spec)

    def __call__(self, outputs: Outputs, leading: tuple[int, ...]) -> Categorical:
        probabilities = self.policy(outputs, leading).probabilities()
        return Categorical(_log((1 - self.epsilon) * probabilities + self.epsilon / probabilities.shape[-1]))


@component
class FixedPolicy:
    """A fixed policy: the same action probabilities in every state.

    Args:
      probabilities: of the actions, `[A]`.

    Raises:
      ValueError: if they are no distribution.
    """

    probabilities: Sequence[UnitInterval]

    def __post_init__(self) -> None:
        if not np.isclose(sum(self.probabilities), 1):
            raise ValueError(f'FixedPolicy.probabilities must add up to 1, got {self.probabilities}')

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        if len(self.probabilities) != num_actions(spec):
            raise ValueError(
                f'FixedPolicy.probabilities has {len(self.probabilities)} entries for {num_actions(spec)} actions'
            )
        return {}

    def __call__(self, outputs: Outputs, leading: tuple[int, ...]) -> Categorical:
        logits = _log(jnp.asarray(self.probabilities, jnp.result_type(float)))
        return Categorical(jnp.broadcast_to(logits, (*leading, logits.shape[0])))


def check_policy(policy: Policy, outputs: Outputs, leading: tuple[int, ...], spec: specs.EnvironmentSpec) -> None:
    """Tries a policy on outputs of a network.

    Args:
      policy: to try.
      outputs: as it is called with.
      leading: likewise.
      spec: of the environment.

    Raises:
      CompositionError: if its distribution has other leading axes, or draws actions of another shape or kind.
    """
    name, n = type(policy).__name__, len(leading)
    distribution = policy(outputs, leading)
    shapes = [jnp.shape(x) for x in jax.tree.leaves(distribution)]
    if any(shape[:n] != leading for shape in shapes):
        raise CompositionError(
            f'{name}: its distribution has leaves {shapes}, where leading axes {leading} are expected'
        )
    action = distribution.sample(jax.random.key(0))
    if action.shape != (*leading, *spec.actions.shape) or action.dtype.kind != np.dtype(spec.actions.dtype).kind:
        raise CompositionError(
            f'{name}: it draws actions {action.dtype}{list(action.shape)}, where {leading} of {spec.actions} '
            'are expected'
        )
    if (shape := jnp.shape(distribution.log_prob(action))) != leading:
        raise CompositionError(f'{name}: log-probabilities are {shape}, where {leading} is expected')


def log_rho(policy: ActionDistribution, trajectory: Trajectory) -> Float[Array, 'T B']:
    """Log importance ratio of the actions taken: present policy over the one that acted.

    Args:
      policy: the present one at the observations, `[T+1, B, ...]`.
      trajectory: the actions and the distributions that they were drawn from.
    """
    return policy[:-1].log_prob(trajectory.action) - trajectory.behaviour_policy.log_prob(trajectory.action)


def _log(probabilities: Array) -> Array:
    """Logarithm that is finite at 0: nothing that is impossible is ever drawn, and no ratio is undefined."""
    return jnp.log(probabilities + jnp.finfo(probabilities.dtype).tiny)
