"""Behaviours: what acts while an agent learns, if it is not its own policy with its latest weights."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from components.acting.policies import Policy
from components.component import NonNegativeInt, component
from components.types import Params


@component
class Behaviour:
    """A policy, and which of the agent's weights it acts with. On-policy unless told otherwise.

    behaviour_state, acting_params = behaviour.init(params)
    after every update: behaviour_state, acting_params = behaviour.follow(behaviour_state, params)

    Args:
      policy: what acts; None for the policy that the agent learns.
      num_updates_behind: how many updates the weights it acts with are behind; None for those that the agent starts
        with, for good. A copy of the weights is kept for each update.

    Raises:
      ValueError: if `num_updates_behind` is negative.
    """

    policy: Policy | None = None
    num_updates_behind: NonNegativeInt | None = 0

    @property
    def is_on_policy(self) -> bool:
        """Whether it acts as the agent would."""
        return self.policy is None and self.num_updates_behind == 0

    def init(self, params: Params) -> PyTree:
        """State of an agent that has learned nothing: the weights to act with in the future, oldest first, leaves
        `[num_updates_behind, ...]`, or those that it acts with for good.
        """
        if self.num_updates_behind is None:
            return params
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (self.num_updates_behind, *x.shape)),
            params if self.num_updates_behind else (),
        )

    def update(self, state: PyTree, params: Params) -> tuple[PyTree, Params]:
        """State after an update, and the behaviour policy's parameters.

        Args:
          state: before it.
          params: after it; no gradient flows on.
        """
        if self.num_updates_behind is None:
            return state, state
        if self.num_updates_behind == 0:
            return state, params
        queue = jax.tree.map(lambda xs, x: jnp.concatenate([xs, x[None]]), state, jax.lax.stop_gradient(params))
        return jax.tree.map(lambda xs: xs[1:], queue), jax.tree.map(lambda xs: xs[0], queue)
