"""The meta-optimiser interface, and the one that trains nothing."""

from typing import NamedTuple, Protocol

import jax
from acme import specs
from jaxtyping import PyTree

from components.axes import over_axis
from components.component import PositiveInt, component
from components.inner_loop import AgentState, InnerLoop
from components.metrics import Metrics, mean_over_axis
from components.types import Array, MetaParams, Params
from components.update_rule import UpdateRule


class LearnerState(NamedTuple):
    """Everything that training changes, for one seed.

    Attributes:
      agents: `L` lifetimes, leaves `[L, ...]`.
      meta_params: eta, which they share.
      meta_opt_state: of the meta-optimiser.
    """

    agents: AgentState
    meta_params: MetaParams
    meta_opt_state: PyTree


class MetaOptimiser(Protocol):
    """Trains meta-parameters while agents train.

    meta_optimiser.check(update_rule, params, meta_params, num_lifetimes)
    state = agents, meta_params, meta_optimiser.init(meta_params, agents)
    repeat: state, metrics = meta_optimiser.step(state, inner_loop)
    """

    @property
    def num_updates(self) -> int:
        """Inner updates that a step advances every agent by."""
        ...

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        """Network outputs that it reads, as an objective's `heads`."""
        ...

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        """Raises ValueError if it cannot train such meta-parameters through this rule's updates of such weights; shapes
        stand for both.
        """
        ...

    def init(self, meta_params: MetaParams, agents: AgentState) -> PyTree:
        """State before the first step."""
        ...

    def step(self, state: LearnerState, inner_loop: InnerLoop) -> tuple[LearnerState, Metrics]:
        """Advances every agent by `num_updates` updates, and the meta-parameters by one."""
        ...

    def reset_lifetimes(self, meta_opt_state: PyTree, initial: PyTree, is_reset: Array) -> PyTree:
        """Resets the per-lifetime state where `is_reset`.

        Args:
          meta_opt_state: the current state.
          initial: state that `init` returns for new agents.
          is_reset: lifetimes that have just been replaced by new agents, bool `[L]`.
        """
        ...


def num_lifetimes(agents: AgentState) -> int:
    """`L`."""
    return agents.key.shape[0]


@component
class Fixed:
    """Leaves the meta-parameters as they are: plain reinforcement learning.

    Args:
      num_inner_steps: inner updates in a step, `K`; of no consequence but for how often the host is asked.

    Raises:
      ValueError: if `num_inner_steps` < 1.
    """

    num_inner_steps: PositiveInt = 1

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        del spec
        return {}

    @property
    def num_updates(self) -> int:
        return self.num_inner_steps

    def check(self, update_rule: UpdateRule, params: Params, meta_params: MetaParams, num_lifetimes: int) -> None:
        del update_rule, params, meta_params, num_lifetimes

    def init(self, meta_params: MetaParams, agents: AgentState) -> PyTree:
        del meta_params, agents
        return ()

    def reset_lifetimes(self, meta_opt_state: PyTree, initial: PyTree, is_reset: Array) -> PyTree:
        return ()

    def step(self, state: LearnerState, inner_loop: InnerLoop) -> tuple[LearnerState, Metrics]:
        advance = over_axis(lambda agent: inner_loop.advance(state.meta_params, agent), num_lifetimes(state.agents))

        def step(agents: AgentState, _: None) -> tuple[AgentState, Metrics]:
            agents, metrics = advance(agents)
            return agents, mean_over_axis(metrics)

        agents, metrics = jax.lax.scan(step, state.agents, length=self.num_inner_steps)
        return state._replace(agents=agents), mean_over_axis(metrics)


def check_meta_params(meta_optimiser: MetaOptimiser, meta_params: MetaParams) -> None:
    """Raises ValueError if there is nothing to train."""
    if not meta_params:
        raise ValueError(
            f'{type(meta_optimiser).__name__} has no meta-parameters to train: MetaParameterSet.parameters is empty'
        )
