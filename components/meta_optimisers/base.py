"""The meta-optimiser interface, and the one that trains nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from acme import specs

from components.inner_loop import AgentState, InnerLoop
from components.meta_parameters import MetaParameterSet
from components.types import Array, MetaParams, Metrics
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
    meta_opt_state: Any


class MetaOptimiser(Protocol):
    """Trains meta-parameters while agents train.

    state = meta_optimiser.init(meta_params), agents
    repeat: state, metrics = meta_optimiser.step(state, inner_loop)
    """

    @property
    def num_inner_steps(self) -> int:
        """Inner updates in a step, `K`."""
        ...

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        """Network outputs that it reads, as an objective's `heads`."""
        ...

    def check(self, update_rule: UpdateRule, meta_parameters: MetaParameterSet) -> None:
        """Raises ValueError if it cannot train these meta-parameters through this update rule."""
        ...

    def init(self, meta_params: MetaParams) -> Any:
        """State before the first step."""
        ...

    def step(self, state: LearnerState, inner_loop: InnerLoop) -> tuple[LearnerState, Metrics]:
        """Advances every agent by `K` updates, and the meta-parameters by one."""
        ...


def over_axis(function: Callable, size: int) -> Callable:
    """`jax.vmap(function)` over a leading axis of that size; an axis of one is taken off and put back, at no cost."""
    if size != 1:
        return jax.vmap(function, axis_size=size)

    def only(*args):
        return jax.tree.map(lambda x: x[None], function(*jax.tree.map(lambda x: x[0], args)))

    return only


def num_lifetimes(agents: AgentState) -> int:
    """`L`."""
    return agents.key.shape[0]


def mean_over_axis(metrics: Metrics) -> Metrics:
    """Metrics `[N]` of several lifetimes or steps as one: logs averaged, counts added up."""
    logs = {name: x.mean(0) for name, x in metrics.logs.items()}
    return jax.tree.map(lambda x: x.sum(0), metrics)._replace(logs=logs)


@dataclasses.dataclass(frozen=True)
class Fixed:
    """Leaves the meta-parameters as they are: plain reinforcement learning.

    Args:
      num_inner_steps: inner updates in a step, `K`; of no consequence but for how often the host is asked.

    Raises:
      ValueError: if `num_inner_steps` < 1.
    """

    num_inner_steps: int = 1

    def __post_init__(self):
        check_num_inner_steps(self.num_inner_steps)

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        del spec
        return {}

    def check(self, update_rule: UpdateRule, meta_parameters: MetaParameterSet) -> None:
        del update_rule, meta_parameters

    def init(self, meta_params: MetaParams) -> Any:
        del meta_params
        return ()

    def step(self, state: LearnerState, inner_loop: InnerLoop) -> tuple[LearnerState, Metrics]:
        advance = over_axis(lambda agent: inner_loop.advance(state.meta_params, agent), num_lifetimes(state.agents))

        def step(agents: AgentState, _: Array | None):
            agents, metrics = advance(agents)
            return agents, mean_over_axis(metrics)

        agents, metrics = jax.lax.scan(step, state.agents, length=self.num_inner_steps)
        return state._replace(agents=agents), mean_over_axis(metrics)


def check_num_inner_steps(num_inner_steps: int) -> None:
    """Raises ValueError if there would be no inner update."""
    if num_inner_steps < 1:
        raise ValueError(f'num_inner_steps must be at least 1, got {num_inner_steps}')
