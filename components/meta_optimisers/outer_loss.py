"""The interface of outer losses: what an agent is evaluated by after inner updates."""

from typing import NamedTuple, Protocol

from acme import specs
from jaxtyping import PyTree

from components.inner_loop import AgentState, InnerLoop
from components.metrics import Metrics
from components.replay import Replay
from components.types import MetaParams, Params, Scalar, Targets


class UnrollResult(NamedTuple):
    """Result of `K` inner updates of one agent, beside the outer loss.

    Attributes:
      agent: the final agent.
      metrics: of the updates.
      targets: of the outer loss, which are held fixed.
      replay: trajectories that the agent acted.
      lifetime_state: the outer loss's state of this lifetime, after it.
    """

    agent: AgentState
    metrics: Metrics
    targets: Targets
    replay: Replay
    lifetime_state: PyTree = ()


class OuterLoss(Protocol):
    """A frozen dataclass: the outer loss of one agent after `K` inner updates.

    It runs the inner loop and evaluates the agent. Nothing calls it back: a gradient estimator differentiates it, by an
    inner loop whose updates have another reverse pass.
    """

    @property
    def num_inner_steps(self) -> int:
        """Inner updates that it is differentiated through, `K`."""
        ...

    @property
    def num_updates(self) -> int:
        """Updates by which it advances an agent, `K` or more."""
        ...

    @property
    def draws_fresh_data(self) -> bool:
        """Whether it takes environment steps that are not trained on."""
        ...

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        """Network outputs that it reads, as an objective's `heads`."""
        ...

    def check(self, params: Params) -> None:
        """Raises ValueError if it cannot be had for agents with such weights."""
        ...

    def init(self, agents: AgentState) -> PyTree:
        """State kept for each lifetime, leaves `[L, ...]`, for new agents; `()` for none."""
        ...

    def __call__(
        self,
        meta_params: MetaParams,
        agent: AgentState,
        inner_loop: InnerLoop,
        state: PyTree,
        targets: Targets = None,
    ) -> tuple[Scalar, UnrollResult]:
        """Takes the updates, and evaluates the outer loss.

        Args:
          meta_params: to learn with, one for each of the `K` updates, leaves `[K, ...]`.
          agent: before the first update.
          inner_loop: of the agent.
          state: of this lifetime.
          targets: of the outer loss, to be held fixed; None for those at the agent's own weights, which are returned.

        Gradients: with respect to `meta_params`, through every update.
        """
        ...
