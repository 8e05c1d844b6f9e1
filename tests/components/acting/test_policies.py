"""Policies and behaviours."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from acme import specs

from agents.learner import Learner
from components.acting.action_distributions import Categorical
from components.acting.behaviours import Behaviour
from components.acting.policies import EpsilonMixture, FixedPolicy, Greedy, Softmax, log_rho
from components.meta_optimisers.base import Fixed
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.objectives.actor_critic import ActorCritic
from components.objectives.returns import LambdaReturn, LeakyVTrace
from components.objectives.value_regression import ActionValueRegression
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent, update_rule

SPEC = make_agent().environment.spec()
OUTPUTS = {
    'logits': jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])),
    'action_value': jnp.array([[1.0, 3.0, 2.0], [5.0, 5.0, 4.0]]),
}


@pytest.mark.parametrize(
    ('policy', 'expected', 'heads'),
    [
        (Softmax(), [[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], {'logits': (3,)}),
        (Greedy(), [[0, 1, 0], [1, 0, 0]], {'action_value': (3,)}),
        (EpsilonMixture(Greedy(), 0.3), [[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]], {'action_value': (3,)}),
        (EpsilonMixture(Softmax(), 0.6), [[0.4, 0.3, 0.3], [0.24, 0.28, 0.48]], {'logits': (3,)}),
        (EpsilonMixture(Greedy(), 0.0), [[0, 1, 0], [1, 0, 0]], {'action_value': (3,)}),
        (FixedPolicy((0.2, 0.0, 0.8)), [[0.2, 0, 0.8], [0.2, 0, 0.8]], {}),
    ],
)
def test_probabilities(policy, expected, heads):
    assert policy.heads(SPEC) == heads
    logits = policy(OUTPUTS, (2,)).logits
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-6)
    actions = jax.random.categorical(jax.random.key(0), logits, shape=(1_000, 2))
    assert not np.any(np.take_along_axis(np.array(expected)[None], np.asarray(actions)[..., None], 2) == 0)


@pytest.mark.parametrize(
    ('make', 'part'),
    [
        (lambda: EpsilonMixture(epsilon=1.5), r'EpsilonMixture.epsilon must be in \[0, 1\], got 1.5'),
        (lambda: FixedPolicy((0.5, 0.6)), 'FixedPolicy.probabilities must add up to 1'),
        (lambda: FixedPolicy((1.5, -0.5)), r'FixedPolicy.probabilities .* each in \[0, 1\]'),
        (lambda: FixedPolicy((0.5, 0.5)).heads(SPEC), '2 entries for 3 actions'),
        (lambda: Behaviour(num_updates_behind=-1), 'num_updates_behind must be None or at least 0, got -1'),
        (
            lambda: Greedy().heads(SPEC._replace(actions=specs.BoundedArray((2,), np.float32, -1.0, 1.0))),
            'agents take one discrete action',
        ),
    ],
)
def test_what_is_no_policy_is_refused(make, part):
    with pytest.raises(ValueError, match=part):
        make()


def value_based(**kwargs):
    rule = UpdateRule(ActionValueRegression(LambdaReturn(1.0, 0.9)), Optimiser(optax.identity(), 0.1))
    return make_agent(update_rule=rule, policy=EpsilonMixture(epsilon=0.2), **kwargs)


def test_a_value_based_agent_acts_greedily_with_epsilon():
    agent = value_based(meta_parameters=MetaParameterSet(), meta_optimiser=Fixed())
    learner = Learner(agent)
    state = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    outputs = learner.network.outputs(state.params, state.trajectory)
    assert outputs.keys() == {'action_value'}
    expected = agent.policy(outputs, outputs['action_value'].shape[:-1])[:-1]
    np.testing.assert_allclose(state.trajectory.behaviour_policy.logits, expected.logits, atol=1e-5)


def test_an_agent_whose_policy_nobody_trains_is_refused():
    rule = UpdateRule(ActionValueRegression(LambdaReturn()), Optimiser(optax.identity(), 0.1))
    with pytest.raises(CompositionError, match=r'Agent.policy reads logits.*trains action_value'):
        make_agent(update_rule=rule, meta_optimiser=Fixed())
    with pytest.raises(CompositionError, match=r'Agent.behaviour reads action_value'):
        make_agent(behaviour=Behaviour(Greedy()))


def acting_params(behaviour, num_updates):
    """Weights `i` after update `i`, 0 at first: those that are acted with after each update."""
    state = behaviour.init(jnp.float32(0))
    acted = []
    for i in range(num_updates):
        state, params = behaviour.update(state, jnp.float32(i + 1))
        acted.append(int(params))
    return acted


@pytest.mark.parametrize(
    ('num_updates_behind', 'expected'),
    [(0, [1, 2, 3, 4, 5]), (1, [0, 1, 2, 3, 4]), (3, [0, 0, 0, 1, 2]), (None, [0, 0, 0, 0, 0])],
)
def test_weights_that_are_acted_with(num_updates_behind, expected):
    assert acting_params(Behaviour(num_updates_behind=num_updates_behind), 5) == expected


@pytest.mark.parametrize('num_updates_behind', [2, None])
def test_a_learner_acts_with_older_weights_and_learns_with_new_ones(num_updates_behind):
    agent = make_agent(
        behaviour=Behaviour(num_updates_behind=num_updates_behind), update_rule=update_rule(), unroll_length=2
    )
    learner = Learner(agent)
    params = [jax.tree.map(lambda x: np.array(x[0, 0]), learner.state.agents.params)]
    for update in range(1, 5):
        learner.advance(1)
        state = jax.tree.map(lambda x: np.array(x[0, 0]), learner.state.agents._replace(key=()))
        params.append(state.params)
        acted = 0 if num_updates_behind is None else max(update - num_updates_behind, 0)
        logits = learner.network.outputs(params[acted], state.trajectory)['logits'][:-1]
        np.testing.assert_allclose(state.trajectory.behaviour_policy.logits, logits, atol=1e-6)
        newest = learner.network.outputs(state.params, state.trajectory)['logits']
        assert np.abs(log_rho(Categorical(newest), state.trajectory)).max() > 1e-4


def test_a_fixed_behaviour_acts_whatever_is_learned():
    learner = Learner(make_agent(behaviour=Behaviour(FixedPolicy((0.0, 0.25, 0.75)))))
    learner.advance(3)
    trajectory = learner.state.agents.trajectory
    assert set(np.unique(trajectory.action)) == {1, 2}
    np.testing.assert_allclose(
        jax.nn.softmax(trajectory.behaviour_policy.logits[..., 0, :]).mean((0, 1, 2)), [0, 0.25, 0.75], atol=1e-6
    )


def test_a_return_that_does_not_correct_for_another_behaviour_is_told_of():
    behaviour = Behaviour(FixedPolicy((0.2, 0.3, 0.5)))
    (doubt,) = make_agent(behaviour=behaviour).warnings()
    assert 'objective.returns assumes on-policy data' in doubt
    assert 'LeakyVTrace' in doubt
    assert not make_agent().warnings()
    rule = UpdateRule(ActorCritic(LeakyVTrace()), Optimiser(optax.identity(), 0.1))
    assert not make_agent(behaviour=behaviour, update_rule=rule).warnings()
