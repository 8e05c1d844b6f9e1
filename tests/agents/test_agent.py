"""What an agent refuses when it is composed, of components that a user may have written."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.learner import Learner
from components.acting.action_distributions import Categorical
from components.acting.policies import Softmax
from components.component import component
from components.environments.adapters.ale import Atari
from components.inner_loop import ActingSource
from components.meta_optimisers.base import Fixed
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.meta_parameters.schedules import Scheduled
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Stateless
from components.objectives.returns import LambdaReturn
from components.objectives.target_network import TargetNetwork
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent, meta_gradient


def rule_of(objective):
    return UpdateRule(objective, Optimiser(optax.scale_by_rms(), 1e-3))


def plain(**kwargs):
    return make_agent(meta_optimiser=Fixed(), meta_parameters=MetaParameterSet(), **kwargs)


@component
class BatchMajor(Softmax):
    def __call__(self, outputs, leading):
        return Categorical(jnp.swapaxes(outputs['logits'], 0, -2))


@component
class Flat(Softmax):
    def __call__(self, outputs, leading):
        return Categorical(outputs['logits'].reshape(-1, 3))


@component
class Continuous(Softmax):
    def __call__(self, outputs, leading):
        return Uniform(outputs['logits'][..., 0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Uniform:
    high: jax.Array

    def sample(self, key):
        return jax.random.uniform(key, self.high.shape)

    def log_prob(self, action):
        return -jnp.log(self.high)

    def __getitem__(self, index):
        return Uniform(self.high[index])


@pytest.mark.parametrize(
    ('policy', 'message'),
    [
        (BatchMajor(), r'BatchMajor: its distribution has leaves \[\(1, 3, 3\)\], where leading axes \(3, 1\)'),
        (Flat(), r'Flat: its distribution has leaves \[\(3, 3\)\]'),
        (Continuous(), r'Continuous: it draws actions float32\[3, 1\], where \(3, 1\) of DiscreteArray'),
    ],
)
@pytest.mark.parametrize('place', ['agent', 'inner', 'outer'])
def test_a_policy_of_another_shape_or_kind_is_named_wherever_it_stands(policy, message, place):
    objective = ActorCritic(LambdaReturn(), policy=policy)
    kwargs = {
        'agent': {'policy': policy},
        'inner': {'update_rule': rule_of(objective)},
        'outer': {'meta_optimiser': meta_gradient(objective=objective)},
    }[place]
    with pytest.raises(CompositionError, match=message):
        make_agent(**kwargs)


@component
class OfBatch(ActorCritic):
    def loss(self, predictions, targets, trajectory):
        loss, parts = super().loss(predictions, targets, trajectory)
        return loss.mean(0), parts


@component
class Forgetful(Stateless):
    """Its state is a named tuple at first and a tuple later."""

    objective: TargetNetwork

    def heads(self, spec):
        return self.objective.heads(spec)

    def init(self, params):
        return self.objective.init(params)

    def targets(self, unroll, state):
        targets, state = self.objective.targets(unroll, state)
        return targets, (*state,)

    def loss(self, predictions, targets, trajectory):
        return self.objective.loss(predictions, targets, trajectory)


@component
class Counting(ActorCritic):
    """Counts in a Python number."""

    def init(self, params):
        return 0

    def targets(self, unroll, state):
        return super().targets(unroll, ())[0], jnp.int32(state) + 1


@pytest.mark.parametrize(
    ('objective', 'message'),
    [
        (OfBatch(LambdaReturn()), r'OfBatch.loss: what it returns\[0\] is float32\[1\], where Float\[T B\]'),
        (Forgetful(TargetNetwork(ActorCritic(LambdaReturn()))), 'the state of the objective Forgetful changes'),
        (Counting(LambdaReturn()), r'the state of the objective Counting changes .* from int\[\] to int32\[\]'),
    ],
)
@pytest.mark.parametrize('is_inner', [True, False])
def test_an_objective_of_another_shape_is_refused_before_training(objective, message, is_inner):
    make, place = (
        (plain, {'update_rule': rule_of(objective)})
        if is_inner
        else (make_agent, {'meta_optimiser': meta_gradient(objective=objective)})
    )
    with pytest.raises(CompositionError, match=message):
        make(**place)


def test_a_field_of_an_objective_with_a_state_can_be_scheduled():
    rate = Scheduled(optax.linear_schedule(0.1, 0.01, 5))
    learner = Learner(plain(update_rule=rule_of(TargetNetwork(ActorCritic(LambdaReturn()), rate))))
    learner.advance(2)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(learner.state.agents.params))


class Repeated:
    """Learns from every trajectory twice; remembers whether it has."""

    def init(self, agent):
        del agent
        return jnp.zeros((), bool)

    def __call__(self, acting):
        return RepeatedSource(acting)


@dataclasses.dataclass(frozen=True)
class RepeatedSource:
    acting: ActingSource

    def next(self, agent, unroll_length):
        acted, episodes = self.acting.next(agent, unroll_length)
        again = ~agent.source_state
        agent, acted = agent._replace(source_state=again), acted._replace(source_state=again)
        nothing = jax.tree.map(jnp.zeros_like, episodes)
        return jax.tree.map(lambda x, y: jnp.where(again, x, y), (agent, nothing), (acted, episodes))

    def on_policy(self, agent, unroll_length):
        return self.acting.on_policy(agent, unroll_length)


def test_trajectories_can_come_from_another_source():
    learner = Learner(plain(source=Repeated()))
    seen = [np.array(learner.state.agents.trajectory.observation)]
    for _ in range(3):
        learner.advance(1)
        seen.append(np.array(learner.state.agents.trajectory.observation))
    same = [bool(np.array_equal(a, b)) for a, b in itertools.pairwise(seen)]
    assert same == [True, False, True]
    assert learner.save()['counts']['env_steps'] == [1 * 4 * 5]


def test_lifetimes_do_not_end_where_environments_live_outside_of_the_program():
    environment = Atari('breakout', 1, height=12, width=12, stack=1)
    with pytest.raises(CompositionError, match=r'lifetime_length \(8\) needs .* those of Atari live outside of it'):
        make_agent(environment=environment, lifetime_length=8)
