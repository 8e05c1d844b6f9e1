"""Monitors: extra metrics, computed in the compiled step."""

from typing import Protocol, cast

import jax.numpy as jnp
from acme import specs

from components.component import UnitInterval, component
from components.environments.base import BatchedEnvironment
from components.environments.batch import Batch
from components.environments.random_walk import RandomWalk
from components.inner_loop import AgentState
from components.networks.network import NetworkFunctions
from components.types import Array, CompositionError, Scalar


class Monitor(Protocol):
    """A frozen dataclass, which is asked after steps of the meta-optimiser: every `Agent.diagnostics_every`-th one."""

    def check(self, environment: BatchedEnvironment) -> None:
        """Raises CompositionError if this cannot be told of agents in that environment."""
        ...

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        """Network outputs that it reads, as an objective's `heads`."""
        ...

    def __call__(self, agent: AgentState, network: NetworkFunctions, environment: BatchedEnvironment) -> Scalar:
        """The number that is logged."""
        ...


@component
class StateValueError:
    """Mean squared error of an agent's values of all states of a random walk, as it is at that moment, to the exact
    ones.

    Args:
      probability_right: of the policy whose values they are.
      discount: of the values.
      value_head: output that holds them, scalar.
    """

    probability_right: UnitInterval = 0.5
    discount: UnitInterval = 1.0
    value_head: str = 'value'

    def check(self, environment: BatchedEnvironment) -> None:
        if not (isinstance(environment, Batch) and hasattr(environment.environment, 'values')):
            raise CompositionError(
                f'StateValueError needs a Batch of RandomWalk, whose exact values are known, not {environment}'
            )

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        del spec
        return {self.value_head: ()}

    def __call__(self, agent: AgentState, network: NetworkFunctions, environment: BatchedEnvironment) -> Array:
        walk = cast(RandomWalk, cast(Batch, environment).environment)
        observations = jnp.eye(walk.num_states)
        first, core_state = jnp.ones(walk.num_states, bool), network.initial_state(walk.num_states)
        outputs, _ = network.step(agent.params, observations, first, core_state)
        exact = walk.values(agent.actor_state.environment.environment, self.probability_right, self.discount)
        return jnp.mean(jnp.square(outputs[self.value_head] - exact))
