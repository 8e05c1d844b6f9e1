"""Action distributions: what a policy says of the actions in a state, and what can be asked of it.

A policy turns outputs of a network into an `ActionDistribution`; objectives, importance ratios, outer losses and
statistics ask it for what they need, and know neither its parameters nor the number of actions. Another kind of action
is another class here, and a policy that makes it.
"""

import dataclasses
from typing import Protocol, Self

import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import Float, Shaped

from components.types import Array

Index = int | slice | Array | tuple[int | slice | Array, ...]


class ActionDistribution(Protocol):
    """A pytree of its parameters, leaves `[..., *head]`, with any leading axes."""

    def sample(self, key: Array) -> Shaped[Array, '...']:
        """Actions drawn from it, `[..., *action]`."""
        ...

    def mode(self) -> Shaped[Array, '...']:
        """The most probable actions, `[..., *action]`."""
        ...

    def log_prob(self, action: Shaped[Array, '...']) -> Float[Array, '...']:
        """Log-probability, or its density, of actions `[..., *action]`; `[...]`."""
        ...

    def entropy(self) -> Float[Array, '...']:
        """In nats, `[...]`."""
        ...

    def kl_divergence(self, other: Self) -> Float[Array, '...']:
        """From this one to another, in nats, `[...]`."""
        ...

    def features(self, action: Shaped[Array, '...']) -> Float[Array, '... F']:
        """Actions as the numbers that a network reads, `[..., F]`."""
        ...

    def __getitem__(self, index: Index) -> Self:
        """Part of it along leading axes."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Categorical:
    """One of `A` actions.

    Attributes:
      logits: unnormalised log-probabilities, `[..., A]`.
    """

    logits: Array

    def sample(self, key: Array) -> Array:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> Array:
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        return of_action(jax.nn.log_softmax(self.logits), action)

    def entropy(self) -> Array:
        log_p = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, -1)

    def kl_divergence(self, other: 'Categorical') -> Array:
        log_p = jax.nn.log_softmax(self.logits)
        log_ratio = log_p - jax.nn.log_softmax(other.logits)
        # The sum of p expm1(-log_ratio) is 0. With it every entry is small where the distributions are close, rather
        # than their sum alone, so that less is lost to rounding, in derivatives too.
        return jnp.sum(jnp.exp(log_p) * (log_ratio + jnp.expm1(-log_ratio)), -1)

    def features(self, action: Array) -> Array:
        return jax.nn.one_hot(action, self.logits.shape[-1], dtype=self.logits.dtype)

    def probabilities(self) -> Array:
        """Of the actions, `[..., A]`."""
        return jax.nn.softmax(self.logits)

    def __getitem__(self, index: Index) -> 'Categorical':
        return Categorical(self.logits[index])


def num_actions(spec: specs.EnvironmentSpec) -> int:
    """Number of actions `A` of an environment with one discrete action, which a `Categorical` serves.

    Raises:
      ValueError: if the environment has other actions.
    """
    if not isinstance(spec.actions, specs.DiscreteArray):
        raise ValueError(f'agents take one discrete action, but the environment has {spec.actions}')
    return int(spec.actions.num_values)


def of_action(x: Array, action: Array) -> Array:
    """Entries of discrete actions `[...]`, out of those of all actions `[..., A]`."""
    return jnp.take_along_axis(x, action[..., None], -1)[..., 0]


def select_action(policy: ActionDistribution, key: Array, greedy: bool = False) -> Array:
    """Draws actions, or takes the most probable ones.

    Args:
      policy: with any leading axes.
      key: of the draw.
      greedy: takes the mode instead.
    """
    return policy.mode() if greedy else policy.sample(key)
