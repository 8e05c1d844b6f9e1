"""Meta-updates after every inner update, through the latest of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.learner import Learner
from components.meta_optimisers.bootstrapped_target import BootstrappedTarget
from components.meta_optimisers.gradient_estimators.base import repeat
from components.meta_optimisers.meta_gradient import MetaGradient
from components.meta_optimisers.step_weights import Uniform
from components.meta_optimisers.validation_data import TrainingTrajectory
from components.meta_parameters.bijectors import Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.meta_parameters.schedules import Scheduled
from components.metrics import Group
from components.networks.cores import GRU
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.moving_averages import MovingAverage
from components.objectives.returns import LambdaReturn
from components.objectives.target_network import TargetNetwork
from components.optimisers import Optimiser
from components.replay import Replay, replayed
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient, validation_loss

NUM_STEPS = 4
# An optimiser that counts its steps: those that are left out before there have been K must leave no trace. And a
# learning rate that says how many updates the agent had taken before each.
LEARNING_RATE = Scheduled(optax.exponential_decay(2e-2, 1, 0.7))
RULE = UpdateRule(ActorCritic(LambdaReturn(0.9, 0.8)), Optimiser(optax.scale_by_adam(eps_root=1e-8), LEARNING_RATE))
OUTER = ActorCritic(LambdaReturn(1.0, 1.0), value_cost=0.3, entropy_cost=0.0)


STATEFUL = dataclasses.replace(RULE, objective=TargetNetwork(MovingAverage(RULE.objective, 0.5), 0.3))


def make_learner(rule=RULE, path=DISCOUNT, **kwargs):
    optimiser = meta_gradient(num_inner_steps=3, overlapping=True, **kwargs)
    learned = MetaParameterSet({path: Scalar(Sigmoid())})
    network = Network(MLP((8,)), GRU(4))
    return Learner(make_agent(update_rule=rule, meta_parameters=learned, meta_optimiser=optimiser, network=network))


@pytest.mark.parametrize(
    ('rule', 'path', 'kwargs'),
    [
        pytest.param(RULE, DISCOUNT, {}, marks=pytest.mark.slow),
        pytest.param(
            RULE, DISCOUNT, {'step_weights': Uniform(), 'outer_data': TrainingTrajectory()}, marks=pytest.mark.slow
        ),
        (STATEFUL, 'objective.objective.objective.returns.discount', {}),
    ],
)
def test_each_meta_gradient_is_that_through_the_latest_updates(rule, path, kwargs):
    """Rebuilt from a history kept in Python: replay up to three updates with the meta-parameters of now."""
    learner = make_learner(rule, path, **kwargs)
    rows = []
    learner._logger.write = rows.append

    @jax.jit  # Once for each number of trajectories.
    def gradient(meta_params, start, trajectories):
        size = trajectories.reward.shape[0]
        loss = validation_loss(num_inner_steps=size, **kwargs)
        weights = np.ones(1)
        if kwargs.get('step_weights'):
            weights = Uniform()(3)[:size]  # Those of the steps that are there, at the end.
        loop = replayed(learner.inner_loop, start, Replay(trajectories))

        def outer_loss(meta_params):
            losses, _ = loss.losses(repeat(meta_params, size), start, loop, ())
            return jnp.asarray(weights) @ losses[-len(weights) :]

        return jax.grad(outer_loss)(meta_params)[path]

    history = []
    for _ in range(NUM_STEPS):
        meta_params, agent = jax.tree.map(lambda x: x[0], (learner.state.meta_params, learner.state.agents))
        history.append(jax.tree.map(lambda x: jnp.copy(x[0]), agent))
        meta_params = jax.tree.map(jnp.copy, meta_params)
        learner.advance(1)
        pending = jax.tree.map(lambda x: x[0, 0], learner.state.agents.trajectory)

        latest = history[-3:]
        acted = [agent.trajectory for agent in latest[1:]] + [pending]
        expected = gradient(meta_params, latest[0], jax.tree.map(lambda *xs: jnp.stack(xs), *acted))
        actual = rows[-1][f'meta_gradient/{path}'][0]
        np.testing.assert_allclose(actual, expected, rtol=2e-3)
        assert expected != 0


def test_the_agent_itself_takes_plain_updates_on_everything_it_acts():
    learner = make_learner()
    meta_params = jax.tree.map(lambda x: x[0], learner.state.meta_params)
    agent = jax.tree.map(lambda x: jnp.copy(x[0, 0]), learner.state.agents)
    advance = jax.jit(learner.inner_loop.advance)
    rows = []
    learner._logger.write = rows.append
    for _ in range(4):
        agent, metrics = advance(meta_params, agent)
        learner.advance(1)
        meta_params = jax.tree.map(lambda x: x[0], learner.state.meta_params)
        np.testing.assert_allclose(rows[-1]['loss/policy'][0], metrics.logs[Group.LOSS('policy')], rtol=1e-3, atol=1e-5)
        assert rows[-1]['env_steps'][0] == 20 * len(rows)
        assert rows[-1]['learner_updates'] == rows[-1]['meta_updates'] == len(rows)
    ours = jax.tree.map(lambda x: x[0, 0], learner.state.agents.params)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(agent.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_a_window_of_one_update_is_the_ordinary_meta_gradient():
    rows = {}
    for overlapping in (False, True):
        learner = Learner(make_agent(meta_optimiser=meta_gradient(overlapping=overlapping)))
        learner._logger.write = lambda row, overlapping=overlapping: rows.update({overlapping: row})
        learner.advance(3)
    for name in (f'meta_gradient/{DISCOUNT}', f'meta/{DISCOUNT}', 'outer_loss/total'):
        np.testing.assert_allclose(rows[True][name], rows[False][name], rtol=1e-4)


@pytest.mark.parametrize('num_target_steps', [1, 2])
def test_a_bootstrapped_target_can_overlap(num_target_steps):
    """Once there have been all its updates, the meta-gradient is that of the same updates, taken in one step."""
    target = BootstrappedTarget(OUTER, Optimiser(optax.identity(), 0.3), 1, num_target_steps)
    gradients = {}
    for overlapping in (False, True):
        optimiser = MetaGradient(target, optax.sgd(1e-12), overlapping=overlapping)  # They hardly move.
        learner = Learner(make_agent(meta_optimiser=optimiser, network=Network(MLP((8,)), GRU(4))))
        rows = []
        learner._logger.write = rows.append
        num_meta_steps = num_target_steps if overlapping else 1
        learner.advance(num_meta_steps)
        assert rows[0]['learner_updates'] == num_target_steps
        # A mean over meta-steps, whose meta-gradient is 0 but for the last, the first with a whole window.
        gradients[overlapping] = num_meta_steps * rows[0][f'meta_gradient/{DISCOUNT}'][0]
    assert gradients[False] != 0
    np.testing.assert_allclose(gradients[True], gradients[False], rtol=1e-4)
