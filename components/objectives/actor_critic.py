"""Advantage actor-critic, and the regression of values of states or of actions on a return."""

import jax.numpy as jnp
from acme import specs

from components.acting.action_distributions import Categorical, num_actions, of_action
from components.acting.policies import CategoricalPolicy, Greedy, Policy, Softmax, log_rho
from components.component import NonNegative, PositiveInt, component
from components.objectives.base import Stateless, Unroll, weighted_or_zero
from components.objectives.returns import ReturnEstimate, ReturnEstimator
from components.types import Array, Logs, Outputs, Trajectory


@component
class ActorCritic(Stateless):
    """Policy gradient with a learned baseline, value regression and an entropy bonus.

    The loss of a step is

        - policy_cost log pi(a_t|s_t) advantage_t + value_cost (target_t - v_t)^2 - entropy_cost H(pi(.|s_t))

    Args:
      returns: estimates targets and advantages.
      policy_cost: weight of the policy gradient.
      value_cost: weight of the squared error.
      entropy_cost: weight of the entropy, in nats.
      policy: what is improved.
      value_head: output that holds the values, scalar.

    Source: Mnih et al. (2016), section 4; without the half that some put before the squared error.
    """

    returns: ReturnEstimator
    policy_cost: NonNegative = 1.0
    value_cost: NonNegative = 0.5
    entropy_cost: NonNegative = 0.01
    policy: Policy = Softmax()
    value_head: str = 'value'

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {**self.policy.heads(spec), self.value_head: ()}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[ReturnEstimate, tuple[()]]:
        outputs, trajectory = unroll.outputs, unroll.trajectory
        ratio = log_rho(self.policy(outputs, trajectory.first.shape), trajectory)
        return self.returns(outputs[self.value_head], ratio, trajectory), state

    def loss(self, outputs: Outputs, targets: ReturnEstimate, trajectory: Trajectory) -> tuple[Array, Logs]:
        pi = self.policy(outputs, trajectory.first.shape)[:-1]
        policy = -pi.log_prob(trajectory.action) * targets.advantage
        value = jnp.square(targets.target - outputs[self.value_head][:-1])
        entropy = pi.entropy()
        loss = (
            weighted_or_zero(self.policy_cost, policy)
            + weighted_or_zero(self.value_cost, value)
            - weighted_or_zero(self.entropy_cost, entropy)
        )
        return loss, {'policy': policy, 'value': value, 'entropy': entropy}


@component
class ValueRegression(Stateless):
    """Regression of a value on a return of its own, cost (target_t - v_t)^2: prediction, or an outer critic.

    Args:
      returns: estimates the targets.
      cost: weight of the squared error.
      value_head: output that holds the values, scalar.
      policy: whose values they are, for returns that correct for the one that acted.

    Source: Bonnet et al. (2022), the outer value function.
    """

    returns: ReturnEstimator
    cost: NonNegative = 0.5
    value_head: str = 'outer_value'
    policy: Policy = Softmax()

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {**self.policy.heads(spec), self.value_head: ()}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[Array, tuple[()]]:
        outputs, trajectory = unroll.outputs, unroll.trajectory
        values = outputs[self.value_head]
        ratio = log_rho(self.policy(outputs, values.shape), trajectory)
        return self.returns(values, ratio, trajectory).target, state

    def loss(self, outputs: Outputs, targets: Array, trajectory: Trajectory) -> tuple[Array, Logs]:
        value = jnp.square(targets - outputs[self.value_head][:-1])
        return weighted_or_zero(self.cost, value), {'value': value}


@component
class ActionValueRegression(Stateless):
    """Regression of the values of the actions taken on a return, cost (target_t - q_t(a_t))^2: value-based control.

    The value of a state, from which returns bootstrap, is the mean of its actions' values under `policy`.

    Args:
      returns: estimates the targets.
      cost: weight of the squared error.
      head: output that holds the values of the actions, `[A]`.
      policy: whose values they are; greedy for Q-learning, the one that acts for expected Sarsa.

    Source: Sutton & Barto (2018), sections 6.5 and 6.6; with returns of any kind as targets, Xu et al. (2020).
    """

    returns: ReturnEstimator
    cost: NonNegative = 0.5
    head: str = 'action_value'
    policy: CategoricalPolicy = Greedy()

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {**self.policy.heads(spec), self.head: (num_actions(spec),)}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[Array, tuple[()]]:
        outputs, trajectory = unroll.outputs, unroll.trajectory
        action_values = outputs[self.head]
        policy = self.policy(outputs, action_values.shape[:-1])
        values = jnp.sum(policy.probabilities() * action_values, -1)
        return self.returns(values, log_rho(policy, trajectory), trajectory).target, state

    def loss(self, outputs: Outputs, targets: Array, trajectory: Trajectory) -> tuple[Array, Logs]:
        value = jnp.square(targets - of_action(outputs[self.head][:-1], trajectory.action))
        return weighted_or_zero(self.cost, value), {'value': value}


@component
class EntropyBonus(Stateless):
    """The entropy of one output, -cost H(softmax(output)): of the predictions of an LPG agent, say.

    Args:
      head: output that holds logits.
      size: their number, `N`.
      cost: weight of the entropy, in nats.
    """

    head: str
    size: PositiveInt
    cost: NonNegative = 0.01

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {self.head: (self.size,)}

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[tuple[()], tuple[()]]:
        return (), state

    def loss(self, outputs: Outputs, targets: tuple[()], trajectory: Trajectory) -> tuple[Array, Logs]:
        entropy = Categorical(outputs[self.head][:-1]).entropy()
        return -weighted_or_zero(self.cost, entropy), {'entropy': entropy}
