"""What an agent is composed of, and whether the parts fit together."""

import dataclasses

import jax

from components.environments.base import Environment
from components.meta_optimisers.base import Fixed, MetaOptimiser
from components.meta_parameters import MetaParameterSet
from components.networks.network import Network, NetworkFunctions
from components.objectives.base import merge_heads
from components.types import CompositionError
from components.update_rule import UpdateRule


@dataclasses.dataclass(frozen=True)
class Agent:
    """An agent as a tree of components; a variant is another tree.

    Args:
      environment: a batch of `B`.
      network: torso and core; its heads are those that the objectives ask for.
      update_rule: inner objective and inner optimiser.
      unroll_length: steps of each trajectory that is learned from, `T`.
      meta_parameters: which fields of the update rule are learned.
      meta_optimiser: how they are learned.
      num_lifetimes: agents that share one set of meta-parameters, `L`.

    Raises:
      CompositionError: if the parts do not fit the environment or each other; the message names the part.
    """

    environment: Environment
    network: Network
    update_rule: UpdateRule
    unroll_length: int
    meta_parameters: MetaParameterSet = MetaParameterSet()
    meta_optimiser: MetaOptimiser = Fixed()
    num_lifetimes: int = 1

    def __post_init__(self):
        for name in ('unroll_length', 'num_lifetimes'):
            if getattr(self, name) < 1:
                raise CompositionError(f'Agent.{name} must be at least 1, got {getattr(self, name)}')
        self.network_functions()
        if self.environment.batch_size % self.network.num_groups:
            raise CompositionError(
                f'Network.num_groups ({self.network.num_groups}) must divide the {self.environment.batch_size} environments'
            )
        try:
            meta_params = self.meta_parameters.init(jax.random.key(0), self.update_rule)
            self.meta_optimiser.check(self.update_rule, meta_params, self.num_lifetimes)
        except ValueError as error:
            raise CompositionError(str(error)) from error

    @property
    def steps_per_meta_step(self) -> int:
        """Environment steps that one seed trains on in a meta-step: its updates `* T * B * L`."""
        batch_size = self.environment.batch_size
        return self.meta_optimiser.num_updates * self.unroll_length * batch_size * self.num_lifetimes

    def network_functions(self) -> NetworkFunctions:
        """The network, with the heads that the inner and the outer objective ask for.

        Raises:
          CompositionError: if they cannot be had in this environment.
        """
        spec = self.environment.spec()
        try:
            inner = self.update_rule.objective.heads(spec)
            outer = self.meta_optimiser.heads(spec)
            heads = merge_heads({'the inner objective': inner, 'the outer objective': outer})
            untrained = sorted(set(outer) - set(inner))
            if untrained:
                raise ValueError(
                    f'the outer objective reads {", ".join(untrained)}, which no term of the inner objective trains; '
                    f'it trains {", ".join(sorted(inner))}'
                )
            return self.network.functions(spec, heads)
        except ValueError as error:
            raise CompositionError(f'network and objectives do not fit: {error}') from error
