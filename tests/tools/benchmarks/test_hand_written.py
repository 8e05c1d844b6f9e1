"""The loops that the learner's speed is compared with: they train the same agent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from tools.benchmarks.hand_written_recurrent import HandWrittenRecurrentActorCritic


def recurrent_learner(num_envs):
    gin_config.load(['gin/bandits/independent.gin'], [f'NUM_ENVS = {num_envs}'])
    return Learner(gin_config.build(Experiment).agent)


def by_shape(params):
    """A network of which each layer has weights of another shape than all others."""
    leaves = {leaf.shape: np.asarray(leaf) for leaf in jax.tree.leaves(params)}
    assert len(leaves) == len(jax.tree.leaves(params)) == 6
    return leaves


def test_the_recurrent_loop_learns_what_the_learner_does():
    """Also from later trajectories: by then Adam has moments, and both schedules have moved."""
    learner, loop = recurrent_learner(8), HandWrittenRecurrentActorCritic(8, 1)
    agent = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    params = jax.tree.map(lambda x: jnp.asarray(by_shape(agent.params)[x.shape]), loop.params)
    opt_state = optax.adam(optax.linear_schedule(3e-3, 0.0, 7_500)).init(params)
    for num_updates in range(3):
        before, seen = by_shape(agent.params), agent.trajectory
        params, opt_state = loop.learn(params, opt_state, num_updates, seen.action, seen.reward)
        learner.advance(1)
        agent = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
        for shape, expected in by_shape(agent.params).items():
            np.testing.assert_allclose(by_shape(params)[shape], expected, atol=2e-6)
            assert np.abs(expected - before[shape]).max() > 2e-4


def test_the_recurrent_loop_acts_in_the_same_bandits():
    """Untrained agents hardly prefer an arm, so that an episode pays half of its pulls; 1.3 is the error of 512 of
    them."""
    loop = HandWrittenRecurrentActorCritic(512, 1)
    assert abs(loop.run() - 50) < 4
    assert loop.run() != loop.run()
