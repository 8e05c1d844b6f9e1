"""Action distributions, and that nothing but a policy knows which one there is."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from acme import specs

from components.acting.action_distributions import Categorical, num_actions, of_action, select_action
from components.acting.policies import log_rho
from components.component import component
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Unroll
from components.objectives.returns import LambdaReturn
from tests.helpers.trajectories_for_tests import BATCH_SIZE, NUM_STEPS, SPEC, make_data, without_last

LOGITS = jnp.array([[0.0, 1.0, -2.0], [3.0, 3.0, 50.0]])
OTHER = jnp.array([[0.5, -1.0, 0.0], [0.0, 1.0, 2.0]])


def test_a_categorical_is_that_of_rlax():
    policy, other, action = Categorical(LOGITS), Categorical(OTHER), jnp.array([2, 0])
    reference = rlax.softmax()
    np.testing.assert_allclose(policy.log_prob(action), reference.logprob(action, LOGITS), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), reference.entropy(LOGITS), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(policy.probabilities(), reference.probs(LOGITS), rtol=1e-5)
    divergence = rlax.categorical_kl_divergence(LOGITS, OTHER)
    np.testing.assert_allclose(policy.kl_divergence(other), divergence, rtol=1e-4)
    np.testing.assert_array_equal(policy.kl_divergence(policy), 0)


def test_actions_are_drawn_as_often_as_probable_or_the_most_probable_is_taken():
    many = Categorical(jnp.broadcast_to(LOGITS[0], (20_000, 3)))
    actions = select_action(many, jax.random.key(0))
    assert actions.dtype == jnp.int32
    frequencies = np.bincount(actions, minlength=3) / len(actions)
    np.testing.assert_allclose(frequencies, jax.nn.softmax(LOGITS[0]), atol=0.02)
    np.testing.assert_array_equal(select_action(Categorical(LOGITS), jax.random.key(0), greedy=True), [1, 2])


def test_a_distribution_is_a_pytree_that_can_be_sliced():
    policy = Categorical(jnp.stack([LOGITS, OTHER, LOGITS]))
    np.testing.assert_array_equal(policy[:-1].logits, policy.logits[:-1])
    doubled = jax.tree.map(lambda x: 2 * x, policy)
    assert isinstance(doubled, Categorical)
    np.testing.assert_array_equal(doubled.logits, 2 * policy.logits)


def test_actions_are_numbers_for_a_network():
    np.testing.assert_array_equal(Categorical(LOGITS).features(jnp.array([2, 0])), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(of_action(LOGITS, jnp.array([2, 1])), [-2, 3])


def test_it_serves_one_discrete_action():
    assert num_actions(SPEC) == 3
    with pytest.raises(ValueError, match='one discrete action'):
        num_actions(SPEC._replace(actions=specs.BoundedArray((2,), np.float32, -1.0, 1.0)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normal:
    """Independent numbers, of mean and standard deviation `[..., D]`."""

    mean: jax.Array
    scale: jax.Array

    def log_prob(self, action):
        z = (action - self.mean) / self.scale
        return jnp.sum(-(z**2) / 2 - jnp.log(self.scale) - math.log(2 * math.pi) / 2, -1)

    def entropy(self):
        return jnp.sum(jnp.log(self.scale) + (1 + math.log(2 * math.pi)) / 2, -1)

    def __getitem__(self, index):
        return Normal(self.mean[index], self.scale[index])


@component
class Gaussian:
    """A policy of continuous actions."""

    def heads(self, spec):
        return {'mean': spec.actions.shape}

    def __call__(self, outputs, leading):
        return Normal(outputs['mean'], jnp.full_like(outputs['mean'], 0.5))


def test_an_actor_critic_asks_its_policy_whatever_the_actions_are():
    spec = SPEC._replace(actions=specs.BoundedArray((2,), np.float32, -1.0, 1.0))
    objective = ActorCritic(LambdaReturn(), policy=Gaussian())
    assert objective.heads(spec) == {'mean': (2,), 'value': ()}
    values, _, trajectory = make_data()
    random = np.random.default_rng(0)
    mean = jnp.asarray(random.normal(size=(NUM_STEPS + 1, BATCH_SIZE, 2)))
    action = random.normal(size=(NUM_STEPS, BATCH_SIZE, 2))
    acted = Normal(mean[:-1] + 0.1, jnp.full_like(mean[:-1], 0.5))
    trajectory = trajectory._replace(action=action, behaviour_policy=acted)
    outputs = {'mean': mean, 'value': values}
    targets, _ = objective.targets(Unroll(outputs, trajectory, None, None), ())
    _, logs = objective.loss(without_last(outputs), targets, trajectory)
    z = (action - np.asarray(mean[:-1])) / 0.5
    log_prob = (-(z**2) / 2 - np.log(0.5 * np.sqrt(2 * np.pi))).sum(-1)
    np.testing.assert_allclose(logs['policy'], -log_prob * targets.advantage, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        logs['entropy'], np.full(action.shape[:2], 2 * np.log(0.5 * np.sqrt(2 * np.pi * np.e))), rtol=1e-5
    )
    moved = (action - np.asarray(mean[:-1]) - 0.1) / 0.5
    ratio = log_rho(objective.policy(outputs, trajectory.first.shape), trajectory)
    np.testing.assert_allclose(ratio, (moved**2 - z**2).sum(-1) / 2, rtol=1e-4, atol=1e-4)
