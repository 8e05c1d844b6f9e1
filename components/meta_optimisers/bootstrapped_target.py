"""Bootstrapped meta-gradients: the outer loss is the distance to a target that has learned for more updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from acme import specs

from components.acting.action_distributions import ActionDistribution
from components.acting.policies import Policy, Softmax
from components.component import NonNegative, PositiveInt, component
from components.inner_loop import AgentState, InnerLoop, scan_updates
from components.meta_optimisers.outer_loss import UnrollResult
from components.metrics import Group, Metrics, mean_over_axis, with_logs
from components.networks.network import NetworkFunctions
from components.objectives.base import Objective, masked_mean, merge_heads, weighted_or_zero
from components.optimisers import Optimiser, check_descends
from components.replay import Replay
from components.types import (
    Array,
    LearningState,
    MetaParams,
    ObjectiveState,
    OptState,
    Params,
    Trajectory,
)
from components.update_rule import UpdateRule


@component
class BootstrappedTarget:
    """Distance from the agent after `K` updates to a target that learned on for `L` more; an `OuterLoss`.

        K times:      params <- update(params, trajectory, meta_params);  trajectory <- act(params)
        target      = params
        L - 1 times:  target <- update(target, trajectory, meta_params);  trajectory <- act(target)
        agent continues from here;  target <- outer_update(target, trajectory)
        loss        = policy_cost KL(pi_target || pi_params) + value_cost (v_target - v_params)^2

    The two are compared on the trajectory that was acted after the first `K` updates. No gradient flows through the
    target. All trajectories are learned from: the agent continues from the last of its own updates, so that a step
    advances it by `K + L - 1` of them and costs no further environment steps. The state of a lifetime is that of the
    target's optimiser and of the outer objective.

    Args:
      objective: the outer objective, which the last update of the target descends.
      target_optimiser: of the target's last update.
      num_inner_steps: `K`.
      num_target_steps: `L`.
      policy_cost: weight of the divergence between policies, in nats.
      value_cost: weight of the squared difference between values.
      policy: what is compared.
      value_head: output that holds the values, scalar.

    Raises:
      ValueError: if `num_inner_steps` or `num_target_steps` < 1, or both costs are 0.

    Source: Flennerhag et al. (2022), section 4. That the agent continues from the target's last learned update is this
      project's choice.
    """

    objective: Objective
    target_optimiser: Optimiser
    num_inner_steps: PositiveInt = 1
    num_target_steps: PositiveInt = 1
    policy_cost: NonNegative = 1.0
    value_cost: NonNegative = 0.0
    policy: Policy = Softmax()
    value_head: str = 'value'

    def __post_init__(self) -> None:
        if self.policy_cost == 0 and self.value_cost == 0:
            raise ValueError(
                'BootstrappedTarget.policy_cost and BootstrappedTarget.value_cost are both 0: nothing is matched'
            )

    @property
    def num_updates(self) -> int:
        return self.num_inner_steps + self.num_target_steps - 1

    @property
    def draws_fresh_data(self) -> bool:
        return False

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        matched = {**self.policy.heads(spec)} | ({self.value_head: ()} if self.value_cost else {})
        return merge_heads({'the matching': matched, 'the objective': self.objective.heads(spec)})

    def check(self, params: Params) -> None:
        check_descends(self.target_optimiser, params, 'BootstrappedTarget.target_optimiser: Optimiser.transform')

    def init(self, agents: AgentState) -> '_TargetState':
        def init(params: Params) -> _TargetState:
            return _TargetState(self.target_optimiser.init(params), self.objective.init(params))

        return jax.vmap(init)(agents.params)

    def __call__(
        self,
        meta_params: MetaParams,
        agent: AgentState,
        inner_loop: InnerLoop,
        state: '_TargetState',
        targets: '_Target | None' = None,
    ) -> tuple[Array, UnrollResult]:
        def advance(agent: AgentState, meta_params: MetaParams) -> tuple[AgentState, tuple[Metrics, Trajectory]]:
            agent, metrics = inner_loop.advance(meta_params, agent)
            return agent, (metrics, agent.trajectory)

        student, inner = scan_updates(inner_loop, advance, agent, meta_params, self.num_inner_steps)
        agent = jax.lax.stop_gradient(student)
        if self.num_target_steps > 1:
            last = jax.tree.map(lambda x: jax.lax.stop_gradient(x[-1]), meta_params)
            agent, further = jax.lax.scan(
                lambda agent, _: advance(agent, last), agent, length=self.num_target_steps - 1
            )
            inner = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), inner, further)
        metrics, acted = inner
        metrics = mean_over_axis(metrics)

        rule = UpdateRule(self.objective, self.target_optimiser)
        target, logs = rule.update(inner_loop.network, LearningState(agent.params, *state), agent.trajectory)
        if targets is None:
            targets = self._predictions(inner_loop.network, target.params, student.trajectory)
        targets = jax.lax.stop_gradient(targets)
        outputs = self._predictions(inner_loop.network, student.params, student.trajectory)
        mask = student.trajectory.mask
        policy = masked_mean(targets.policy.kl_divergence(outputs.policy), mask)
        value = masked_mean(jnp.square(targets.value - outputs.value), mask)
        loss = weighted_or_zero(self.policy_cost, policy) + weighted_or_zero(self.value_cost, value)
        logs = {Group.TARGET_LOSS(name.entry): x for name, x in logs.items()}
        distances = {'total': loss, 'policy': policy, 'value': value}
        logs |= {Group.OUTER_LOSS(name): x for name, x in distances.items()}
        metrics = with_logs(metrics, logs)
        state = jax.lax.stop_gradient(_TargetState(target.opt_state, target.objective_state))
        return loss, UnrollResult(agent, metrics, targets, Replay(acted), state)

    def _predictions(self, network: NetworkFunctions, params: Params, trajectory: Trajectory) -> '_Target':
        predictions, _ = network.predictions(params, trajectory)
        shape = trajectory.reward.shape
        value = predictions[self.value_head] if self.value_cost else jnp.zeros(shape)
        return _Target(self.policy(predictions, shape), value)


class _TargetState(NamedTuple):
    """What the target's last update remembers: states of its optimiser and of the outer objective."""

    opt_state: OptState
    objective_state: ObjectiveState


class _Target(NamedTuple):
    """Predictions that are compared: policies `[T, B, ...]`, and values `[T, B]`, zeros where they are not."""

    policy: ActionDistribution
    value: Array
