import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.finite_differences import recorded_lifetime
from agents.learner import Learner
from components.meta_optimisers.validation_data import FreshTrajectory, NextTrajectory, TrainingTrajectory
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient
from tests.helpers.trajectories_for_tests import targets_of


def lifetime_of(outer_data, **kwargs):
    optimiser = meta_gradient(outer_data=outer_data, **kwargs)
    return recorded_lifetime(Learner(make_agent(meta_optimiser=optimiser)), jnp.float32)


def test_the_training_trajectory_is_judged_with_importance_weights():
    """d/d theta' of the mean of pi'(a|s) / pi(a|s) times the advantage, at theta' after one update (LIRPG)."""
    lifetime = lifetime_of(TrainingTrajectory(), num_inner_steps=2)
    loop, objective = lifetime.inner_loop, lifetime.meta_optimiser.outer_loss.objective
    before, _ = loop.advance(lifetime.meta_params, lifetime.agent)

    def surrogate(meta_params):
        first, _ = loop.advance(meta_params, lifetime.agent)
        agent, _ = loop.advance(meta_params, first._replace(trajectory=before.trajectory))
        trajectory = before.trajectory
        outputs = loop.network.outputs(agent.params, trajectory)
        fixed = jax.lax.stop_gradient(outputs)
        targets = targets_of(objective, fixed, trajectory)

        def log_prob(logits):
            return jnp.take_along_axis(jax.nn.log_softmax(logits), trajectory.action[..., None], -1)[..., 0]

        ratio = jnp.exp(log_prob(outputs['logits'][:-1]) - log_prob(trajectory.behaviour_policy.logits))
        weights = jax.lax.stop_gradient(ratio)
        value = weights * jnp.square(targets.target - outputs['value'][:-1])
        return (-ratio * targets.advantage + objective.value_cost * value).mean()

    expected = jax.jit(jax.grad(surrogate))(lifetime.meta_params)[DISCOUNT]
    actual = jax.jit(lifetime.estimate)(lifetime.meta_params).gradient[DISCOUNT]
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_importance_weights_are_the_change_of_the_policy_since_acting():
    lifetime = lifetime_of(TrainingTrajectory())
    loop, trajectory = lifetime.inner_loop, lifetime.agent.trajectory
    unchanged = loop.network.outputs(lifetime.agent.params, trajectory)
    np.testing.assert_allclose(TrainingTrajectory().weights(unchanged, trajectory, loop), 1, rtol=1e-5)
    agent, _ = loop.advance(lifetime.meta_params, lifetime.agent)
    changed = loop.network.outputs(agent.params, trajectory)
    assert np.ptp(TrainingTrajectory().weights(changed, trajectory, loop)) > 1e-3


def test_each_source_gives_its_own_trajectory():
    lifetime = lifetime_of(NextTrajectory())
    loop = Learner(make_agent()).inner_loop
    learner = Learner(make_agent())
    agent = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    after, _ = loop.advance(lifetime.meta_params, agent)
    for source, expected in (
        (NextTrajectory(), after.trajectory),
        (TrainingTrajectory(), agent.trajectory),
    ):
        _, trajectory, num_steps = source.trajectory(agent.trajectory, after, loop)
        assert num_steps == 0
        for x, y in zip(jax.tree.leaves(trajectory), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(x, y)
    for source, length in ((FreshTrajectory(7), 7), (FreshTrajectory(), 4)):
        moved, trajectory, num_steps = source.trajectory(agent.trajectory, after, loop)
        assert trajectory.reward.shape == (length, 5)
        assert num_steps == trajectory.mask.sum() > 0
        assert not np.array_equal(jax.random.key_data(moved.key), jax.random.key_data(after.key))


def test_overlapping_updates_cannot_be_judged_on_fresh_trajectories():
    with pytest.raises(ValueError, match='choose the outer_data NextTrajectory or TrainingTrajectory'):
        meta_gradient(overlapping=True, outer_data=FreshTrajectory())
