import math

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from components.environments.as_dm_env import DmEnvironment
from components.environments.bandits import (
    BernoulliBandit,
    BernoulliBanditState,
    Dependent,
    Independent,
    InformativeBandit,
    InformativeBanditState,
    RestlessBandit,
    RestlessBanditState,
)
from components.environments.batch import Batch

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
KEY = jax.random.key(0)
NUM_DRAWS = 16_000
KEYS = jax.random.split(KEY, NUM_DRAWS)
BANDITS = [BernoulliBandit(Independent(3), 4), RestlessBandit(num_pulls=4), InformativeBandit(num_pulls=4)]


def draw(family):
    return np.asarray(jax.jit(jax.vmap(family.draw))(KEYS), np.float64)


def bernoulli_state(*probabilities, pull=0):
    return BernoulliBanditState(jnp.int32(pull), jnp.array(probabilities))


def restless_state(probability, standard_deviation, pull=0):
    return RestlessBanditState(jnp.int32(pull), jnp.float32(probability), jnp.float32(standard_deviation))


def step_often(bandit, state, arm):
    return jax.jit(jax.vmap(lambda key: bandit.step(state, jnp.int32(arm), key)))(KEYS)


def is_mean(values, expected):
    return abs(values.mean() - expected) < 5 * values.std() / math.sqrt(values.size)


def test_independent_arms_are_uniform_and_say_nothing_of_each_other():
    probabilities = draw(Independent(3))
    assert probabilities.shape == (NUM_DRAWS, 3)
    counts = np.stack([np.histogram(arm, 10, (0, 1))[0] for arm in probabilities.T])
    assert counts.sum() == 3 * NUM_DRAWS
    assert (abs(counts - NUM_DRAWS / 10) < 5 * math.sqrt(NUM_DRAWS * 0.09)).all()
    correlations = np.corrcoef(probabilities.T)[np.triu_indices(3, 1)]
    assert (abs(correlations) < 5 / math.sqrt(NUM_DRAWS)).all()


def test_dependent_arms_sum_to_one():
    probabilities = draw(Dependent())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    counts = np.histogram(probabilities[:, 0], 10, (0, 1))[0]
    assert (abs(counts - NUM_DRAWS / 10) < 5 * math.sqrt(NUM_DRAWS * 0.09)).all()


def test_a_finite_family_draws_each_task_equally_often():
    probabilities = draw(Dependent([0.1, 0.25, 0.9]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    for probability in (0.1, 0.25, 0.9):
        assert is_mean(np.isclose(probabilities[:, 0], probability), 1 / 3)


@pytest.mark.parametrize(('arm', 'probability'), [(0, 0.2), (1, 0.9), (2, 0.0)])
def test_an_arm_pays_as_often_as_its_probability_says(arm, probability):
    bandit, state = BernoulliBandit(Independent(3)), bernoulli_state(0.2, 0.9, 0.0)
    after, timestep = step_often(bandit, state, arm)
    rewards = np.asarray(timestep.reward)
    assert set(rewards.tolist()) <= {0, 1}
    assert is_mean(rewards, probability) or rewards.mean() == probability
    np.testing.assert_array_equal(after.probabilities, np.tile(state.probabilities, (NUM_DRAWS, 1)))
    np.testing.assert_array_equal(bandit.means(state), state.probabilities)


def test_a_restless_bandit_starts_anywhere_and_draws_how_it_walks():
    state, _ = jax.jit(jax.vmap(RestlessBandit([0.02, 0.1]).reset))(KEYS)
    wide = np.isclose(state.standard_deviation, 0.1)
    np.testing.assert_allclose(np.where(wide, 0.1, 0.02), state.standard_deviation, rtol=1e-6)
    assert is_mean(wide, 0.5)
    counts = np.histogram(state.probability, 10, (0, 1))[0]
    assert (abs(counts - NUM_DRAWS / 10) < 5 * math.sqrt(NUM_DRAWS * 0.09)).all()
    assert abs(np.corrcoef(wide, state.probability)[0, 1]) < 5 / math.sqrt(NUM_DRAWS)


@pytest.mark.parametrize(('arm', 'reward'), [(0, 1), (1, 0)])
def test_a_pull_pays_by_what_the_arms_were_before_they_moved(arm, reward):
    bandit, state = RestlessBandit(), restless_state(1.0, 0.5)
    np.testing.assert_array_equal(bandit.means(state), [1, 0])
    after, timestep = step_often(bandit, state, arm)
    assert set(timestep.reward.tolist()) == {reward}
    assert float(after.probability.mean()) < 0.8
    means = np.asarray(jax.vmap(bandit.means)(after))
    np.testing.assert_allclose(means, np.stack([after.probability, 1 - after.probability], axis=1))


@pytest.mark.parametrize(('start', 'distance', 'sign'), [(0.02, 0.02, 1), (0.95, 0.05, -1)])
def test_steps_are_gaussian_and_the_ends_reflect_them(start, distance, sign):
    after, _ = step_often(RestlessBandit(), restless_state(start, 0.1), 0)
    from_end = np.asarray(after.probability if sign == 1 else 1 - after.probability, np.float64)
    # Mean and mean square of the absolute value of a Gaussian with this mean and standard deviation.
    folded = 0.1 * math.sqrt(2 / math.pi) * math.exp(-((distance / 0.1) ** 2) / 2)
    assert is_mean(from_end, folded + distance * math.erf(distance / 0.1 / math.sqrt(2)))
    assert is_mean(from_end**2, distance**2 + 0.01)


def test_steps_wider_than_the_range_stay_in_it():
    after, _ = step_often(RestlessBandit(), restless_state(0.3, 5.0), 0)
    assert ((after.probability >= 0) & (after.probability <= 1)).all()
    assert is_mean(np.asarray(after.probability, np.float64), 0.5)


def test_arms_with_no_deviation_stay_where_they_are():
    after, _ = step_often(RestlessBandit([0.0]), restless_state(0.3, 0.0), 0)
    np.testing.assert_allclose(after.probability, 0.3, rtol=1e-6)


@pytest.mark.parametrize(('target', 'told'), [(0, 0.1), (3, 0.4), (9, 1.0)])
def test_the_last_arm_tells_where_the_target_is(target, told):
    bandit, state = InformativeBandit(), InformativeBanditState(jnp.int32(0), jnp.int32(target))
    expected = [1.0] * 10 + [told]
    expected[target] = 5.0
    np.testing.assert_allclose(bandit.means(state), expected)
    rewards = [float(bandit.step(state, jnp.int32(arm), KEY)[1].reward) for arm in range(11)]
    np.testing.assert_allclose(rewards, expected)


def test_every_candidate_is_the_target_equally_often():
    state, _ = jax.jit(jax.vmap(InformativeBandit(4).reset))(KEYS)
    counts = np.bincount(state.target, minlength=4)
    assert len(counts) == 4
    assert (abs(counts - NUM_DRAWS / 4) < 5 * math.sqrt(NUM_DRAWS * 3 / 16)).all()


@pytest.mark.parametrize('bandit', BANDITS, ids=lambda bandit: type(bandit).__name__)
def test_a_batch_plays_every_episode_in_a_task_of_its_own(bandit):
    batch, num_episodes, batch_size = Batch(bandit, 8), 5, 8

    @jax.jit
    def run(key):
        state, timestep = batch.reset(key)

        def step(state, key):
            after, timestep = batch.step(state, jnp.zeros(batch_size, jnp.int32), key)
            return after, (state.environment, timestep)

        return timestep, jax.lax.scan(step, state, jax.random.split(key, bandit.num_pulls * num_episodes))[1]

    first, (states, timesteps) = run(KEY)
    assert first.first().all()
    ends = np.arange(1, bandit.num_pulls * num_episodes + 1) % bandit.num_pulls == 0
    np.testing.assert_array_equal(timesteps.step_type, np.where(ends, FIRST, MID)[:, None].repeat(batch_size, 1))
    np.testing.assert_array_equal(timesteps.discount, np.where(ends, 0, 1)[:, None].repeat(batch_size, 1))
    assert timesteps.observation.shape == (len(ends), batch_size, 0)
    assert (timesteps.observation.dtype, timesteps.reward.dtype) == (np.float32, np.float32)
    bandit.spec().rewards.validate(np.asarray(timesteps.reward[0, 0]))
    bandit.spec().observations.validate(np.asarray(timesteps.observation[0, 0]))
    task = {'BernoulliBandit': 'probabilities', 'RestlessBandit': 'standard_deviation', 'InformativeBandit': 'target'}
    tasks = np.asarray(getattr(states, task[type(bandit).__name__]))
    tasks = tasks.reshape(num_episodes, bandit.num_pulls, batch_size, -1)
    np.testing.assert_array_equal(tasks, tasks[:, :1].repeat(bandit.num_pulls, 1))
    assert len(np.unique(tasks[:, 0, 0], axis=0)) > 1, 'one copy keeps its task over episodes'
    assert len(np.unique(tasks[0, 0], axis=0)) > 1, 'all copies have the same task'


@pytest.mark.parametrize('bandit', BANDITS, ids=lambda bandit: type(bandit).__name__)
def test_an_episode_terminates_after_its_pulls(bandit):
    environment = DmEnvironment(bandit, seed=1)
    for _ in range(2):
        assert environment.reset().first()
        timesteps = [environment.step(1) for _ in range(bandit.num_pulls)]
        assert [timestep.last() for timestep in timesteps] == [False] * 3 + [True]
        assert [timestep.discount for timestep in timesteps] == [1, 1, 1, 0]


def test_bandits_say_how_many_arms_there_are_and_what_they_pay():
    assert [bandit.spec().actions.num_values for bandit in BANDITS] == [3, 2, 11]
    rewards = [bandit.spec().rewards for bandit in BANDITS]
    np.testing.assert_allclose([(spec.minimum, spec.maximum) for spec in rewards], [(0, 1), (0, 1), (0.1, 5)])


@pytest.mark.parametrize(
    ('component', 'arguments', 'message'),
    [
        (Independent, {'num_arms': 1}, r'Independent.num_arms must be at least 2, got 1'),
        (Dependent, {'probabilities': ()}, r'Dependent.probabilities .* a task family with zero tasks'),
        (Dependent, {'probabilities': (0.1, 1.1)}, r'Dependent.probabilities .* each in \[0, 1\], got \(0.1, 1.1\)'),
        (Dependent, {'probabilities': (math.nan,)}, r'Dependent.probabilities .* each in \[0, 1\]'),
        (BernoulliBandit, {'arms': Independent(), 'num_pulls': 0}, r'BernoulliBandit.num_pulls .* at least 1, got 0'),
        (RestlessBandit, {'num_pulls': 0}, r'RestlessBandit.num_pulls must be at least 1, got 0'),
        (RestlessBandit, {'standard_deviations': ()}, r'RestlessBandit.standard_deviations .* family with zero tasks'),
        (RestlessBandit, {'standard_deviations': (-0.1,)}, r'each at least 0, got \(-0.1,\)'),
        (RestlessBandit, {'standard_deviations': (math.inf,)}, r'each finite, got \(inf,\)'),
        (InformativeBandit, {'num_candidates': 1}, r'InformativeBandit.num_candidates must be at least 2, got 1'),
        (InformativeBandit, {'num_pulls': 0}, r'InformativeBandit.num_pulls must be at least 1, got 0'),
        (InformativeBandit, {'target_reward': 1.0}, r'InformativeBandit.target_reward must be more than 1 .* got 1.0'),
        (InformativeBandit, {'other_reward': 6.0}, r'more than other_reward = 6.0, got 5.0'),
    ],
)
def test_bad_arguments_are_refused(component, arguments, message):
    with pytest.raises(ValueError, match=message):
        component(**arguments)
