import math

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.meta_rl import two_step_policies
from agents.analysis.meta_rl.two_step_policies import TwoStepEpisodes, rollout, stay_probabilities
from components.environments.as_dm_env import DmEnvironment
from components.environments.batch import Batch
from components.environments.two_step import TwoStep, TwoStepState

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
KEY = jax.random.key(0)
NUM_DRAWS = 16_000
KEYS = jax.random.split(KEY, NUM_DRAWS)


def state_at(time=0, place=0, paying=1):
    return TwoStepState(jnp.int32(time), jnp.int32(place), jnp.int32(paying), jnp.array(False))


def step_often(environment, state, action):
    return jax.jit(jax.vmap(lambda key: environment.step(state, jnp.int32(action), key)))(KEYS)


def is_mean(values, expected):
    return abs(values.mean() - expected) < 5 * math.sqrt(expected * (1 - expected) / values.size)


@pytest.mark.parametrize('action', [0, 1])
def test_a_first_action_commonly_leads_to_its_place(action):
    state, timestep = step_often(TwoStep(switch_probability=1.0), state_at(), action)
    common = np.asarray(state.place) == action + 1
    assert set(np.asarray(state.place).tolist()) == {1, 2}
    assert is_mean(common, 0.75)
    np.testing.assert_array_equal(state.common, common)
    np.testing.assert_array_equal(state.paying, 1)
    np.testing.assert_array_equal(timestep.observation, np.eye(3)[state.place])
    assert not np.any(timestep.reward)
    assert set(np.asarray(timestep.step_type).tolist()) == {MID}


@pytest.mark.parametrize(('place', 'paying', 'probability'), [(1, 1, 0.9), (2, 1, 0.1), (1, 2, 0.1), (2, 2, 0.9)])
def test_a_place_pays_whatever_is_done_there(place, paying, probability):
    state, timestep = step_often(TwoStep(), state_at(1, place, paying), 0)
    assert is_mean(np.asarray(timestep.reward), probability)
    np.testing.assert_array_equal(state.place, 0)
    np.testing.assert_array_equal(state.paying, paying)
    np.testing.assert_array_equal(timestep.observation, np.eye(3)[np.zeros(NUM_DRAWS, int)])
    jax.tree.map(np.testing.assert_array_equal, (state, timestep), step_often(TwoStep(), state_at(1, place, paying), 1))


@pytest.mark.parametrize('paying', [1, 2])
def test_the_paying_place_switches_between_trials(paying):
    state, timestep = step_often(TwoStep(switch_probability=0.2), state_at(1, 1, paying), 0)
    switches = np.asarray(state.paying) == 3 - paying
    assert is_mean(switches, 0.2)
    # What the trial paid was up to the place that paid in it.
    assert is_mean(np.asarray(timestep.reward)[switches], 0.9 if paying == 1 else 0.1)


@pytest.mark.parametrize('common', [False, True])
def test_a_trial_ends_without_forgetting_its_transition(common):
    state, _ = step_often(TwoStep(), state_at(1, 1)._replace(common=jnp.array(common)), 0)
    assert set(np.asarray(state.common).tolist()) == {common}


def test_episodes_draw_which_place_pays():
    state, timestep = jax.jit(jax.vmap(TwoStep().reset))(KEYS)
    assert is_mean(np.asarray(state.paying) == 1, 0.5)
    assert set(np.asarray(state.paying).tolist()) == {1, 2}
    np.testing.assert_array_equal(timestep.observation, np.eye(3)[np.zeros(NUM_DRAWS, int)])


def test_an_episode_terminates_after_its_trials():
    environment = DmEnvironment(TwoStep(3), seed=1)
    for _ in range(2):
        timesteps = [environment.reset(), *(environment.step(0) for _ in range(6))]
        assert [timestep.step_type for timestep in timesteps] == [FIRST, *[MID] * 5, LAST]
        assert [timestep.discount for timestep in timesteps[1:]] == [1, 1, 1, 1, 1, 0]
        assert [int(timestep.observation.argmax()) > 0 for timestep in timesteps] == [False, True] * 3 + [False]
        for timestep in timesteps:
            environment.observation_spec().validate(timestep.observation)


def test_a_batch_draws_anew_which_place_pays():
    environment, num_episodes, batch_size = TwoStep(2), 12, 6
    batch = Batch(environment, batch_size)

    @jax.jit
    def run(key):
        def step(state, key):
            after, timestep = batch.step(state, jnp.ones(batch_size, jnp.int32), key)
            return after, (state.environment, timestep)

        return jax.lax.scan(step, batch.reset(key)[0], jax.random.split(key, 4 * num_episodes))[1]

    states, timesteps = jax.tree.map(np.asarray, run(KEY))
    np.testing.assert_array_equal(timesteps.step_type[:, 0], [MID, MID, MID, FIRST] * num_episodes)
    np.testing.assert_array_equal(timesteps.discount[:, 0], [1, 1, 1, 0] * num_episodes)
    paying = states.paying.reshape(num_episodes, 4, batch_size)
    np.testing.assert_array_equal(paying, paying[:, :1].repeat(4, 1))
    assert (paying.min(axis=(0, 1)) == 1).all()
    assert (paying.max(axis=(0, 1)) == 2).all()
    assert len(np.unique(paying[:, 0].T, axis=0)) > 1


def test_staying_is_counted_by_hand():
    # Trials of action, place and reward. Rewarded common, rewarded rare, unrewarded common; unrewarded rare twice, ...
    trials = np.array(
        [
            [(0, 1, 1), (0, 2, 1), (1, 2, 0), (0, 1, 1)],  # Stays after the first, leaves after the second, leaves.
            [(1, 1, 0), (1, 1, 0), (0, 2, 1), (0, 1, 0)],  # Stays, leaves, stays.
        ]
    )
    recording = TwoStepEpisodes(
        places=np.stack([np.zeros((2, 4), int), trials[..., 1]], -1).reshape(2, 8),
        actions=np.stack([trials[..., 0], np.ones((2, 4), int)], -1).reshape(2, 8),
        rewards=np.stack([np.zeros((2, 4)), trials[..., 2]], -1).reshape(2, 8),
    )
    found = stay_probabilities(jax.tree.map(jnp.asarray, recording))
    np.testing.assert_allclose(found, [1, 0.5, 0, 0.5, 1, 0.5, 4 / 8])


def test_what_never_happened_has_no_probability():
    places, actions = jnp.array([[0, 1, 0, 1]]), jnp.array([[0, 0, 0, 0]])
    found = stay_probabilities(TwoStepEpisodes(places, actions, jnp.array([[0, 1, 0, 0]])))
    assert float(found.rewarded_common) == 1
    assert np.isnan(found[1:4]).all()
    with pytest.raises(ValueError, match='two trials or more, two steps each, got 2 steps'):
        stay_probabilities(TwoStepEpisodes(places[:, :2], actions[:, :2], jnp.zeros((1, 2))))
    with pytest.raises(ValueError, match='two trials or more, two steps each, got 5 steps'):
        stay_probabilities(TwoStepEpisodes(*[jnp.zeros((1, 5))] * 3))


def test_a_recording_starts_in_the_tasks_of_its_key():
    num_episodes, environment = 500, TwoStep(20, reward_probability=1.0)
    recording = rollout(two_step_policies.LastOutcome(), environment, KEY, num_episodes)
    task_keys, _ = two_step_policies.episode_keys(KEY, num_episodes)
    paying = jax.vmap(environment.reset)(task_keys)[0].paying
    np.testing.assert_array_equal(recording.places[:, ::2], 0)
    np.testing.assert_array_equal(recording.rewards[:, ::2], 0)
    np.testing.assert_array_equal(recording.rewards[:, 1::2], recording.places[:, 1::2] == paying[:, None])
    np.testing.assert_array_equal(recording.actions[:, 2::2], paying[:, None].repeat(19, 1) - 1)


def test_the_best_policy_follows_the_sum_of_all_evidence():
    policy, generator = two_step_policies.TwoStepBayesOptimal(), np.random.default_rng(0)
    act = jax.jit(jax.vmap(policy.act, (None, 0)))
    update = jax.jit(policy.update)
    for _ in range(5):
        statistics, evidence = policy.init(), 0
        for _ in range(12):
            chosen = set(np.asarray(act(statistics, KEYS[:64])).tolist())
            assert chosen == ({0, 1} if evidence == 0 else {0} if evidence > 0 else {1})
            place, reward = generator.integers(1, 3), generator.integers(2)
            evidence += 1 if (place == 1) == (reward == 1) else -1
            statistics = update(statistics, jnp.int32(0), jnp.int32(place), jnp.float32(reward))
            np.testing.assert_allclose(statistics, evidence * math.log(9), atol=1e-4)


def test_the_best_policy_reckons_with_switches():
    policy, generator = two_step_policies.TwoStepBayesOptimal(0.8, 0.1), np.random.default_rng(0)
    statistics, probability = policy.init(), 0.5
    for _ in range(30):
        place, reward = generator.integers(1, 3), generator.integers(2)
        likelihood = 0.8 if (place == 1) == (reward == 1) else 0.2
        posterior = probability * likelihood / (probability * likelihood + (1 - probability) * (1 - likelihood))
        probability = 0.9 * posterior + 0.1 * (1 - posterior)
        statistics = policy.update(statistics, jnp.int32(0), jnp.int32(place), jnp.float32(reward))
        np.testing.assert_allclose(jax.nn.sigmoid(statistics), probability, rtol=1e-5)


def test_sarsa_learns_of_its_action_only_wherever_it_led():
    policy = two_step_policies.Sarsa(0.5, 5.0)
    values = policy.init()
    for action, place, reward in ((0, 2, 1), (0, 1, 1), (1, 2, 1), (0, 1, 0)):
        values = policy.update(values, jnp.int32(action), jnp.int32(place), jnp.float32(reward))
    np.testing.assert_allclose(values, [0.375, 0.5])
    actions = np.asarray(jax.vmap(policy.act, (None, 0))(values, KEYS))
    assert is_mean(actions, 1 / (1 + math.exp(-5 * 0.125)))


# What computing them exactly, or from many more episodes, gives: stay probabilities and mean reward.
@pytest.mark.parametrize(
    ('policy', 'environment', 'stays', 'mean_reward'),
    [
        (two_step_policies.TwoStepBayesOptimal(), TwoStep(), (1, 0.51, 0.51, 1), 0.669),
        (two_step_policies.TwoStepBayesOptimal(), TwoStep(5), (1, 0.28, 0.28, 1), None),
        (two_step_policies.TwoStepBayesOptimal(0.9, 0.025), TwoStep(100, 0.8, 0.9, 0.025), (1, 0.66, 0.66, 1), 0.706),
        (two_step_policies.LastOutcome(), TwoStep(), (1, 0, 0, 1), 0.644),
        (two_step_policies.TwoStepRandom(), TwoStep(), (0.5, 0.5, 0.5, 0.5), 0.5),
    ],
    ids=['best', 'best of 5', 'best with switches', 'last outcome', 'random'],
)
def test_profiles_of_staying(policy, environment, stays, mean_reward):
    recording = rollout(policy, environment, KEY, 10_000)
    found = stay_probabilities(recording)
    np.testing.assert_allclose(found[:4], stays, atol=0.03)
    assert [stay for stay in stays if stay in (0, 1)] == [
        float(ours) for ours, stay in zip(found, stays, strict=False) if stay in (0, 1)
    ]
    rc, rr, uc, ur = (float(stay) for stay in found[:4])
    np.testing.assert_allclose(found[4:6], [rc - rr - uc + ur, (rc + rr - uc - ur) / 2], atol=1e-6)
    if mean_reward is not None:
        episodes = np.asarray(recording.rewards[:, 1::2]).mean(axis=1)
        assert abs(episodes.mean() - mean_reward) < 4 * episodes.std() / math.sqrt(len(episodes)) + 0.001
        np.testing.assert_allclose(found.mean_reward, episodes.mean(), rtol=1e-5)


@pytest.mark.parametrize('learning_rate', [0.3, 0.8])
def test_a_control_without_a_model_repeats_what_was_rewarded(learning_rate):
    found = stay_probabilities(rollout(two_step_policies.Sarsa(learning_rate), TwoStep(), KEY, 3_000))
    assert 0.05 < found.interaction < 0.28
    assert 0.18 < found.main_effect < 0.44
    assert 0.56 < found.mean_reward < 0.59


@pytest.mark.parametrize(
    ('component', 'arguments', 'message'),
    [
        (TwoStep, {'num_trials': 0}, r'TwoStep.num_trials must be at least 1, got 0'),
        (TwoStep, {'common_probability': 0.4}, r'TwoStep.common_probability must be in \[0.5, 1\], got 0.4'),
        (TwoStep, {'reward_probability': 1.1}, r'TwoStep.reward_probability must be in \[0.5, 1\], got 1.1'),
        (TwoStep, {'switch_probability': -0.1}, r'TwoStep.switch_probability must be in \[0, 1\], got -0.1'),
        (TwoStep, {'switch_probability': math.nan}, r'TwoStep.switch_probability must be in \[0, 1\], got nan'),
        (two_step_policies.TwoStepBayesOptimal, {'reward_probability': 1.0}, r'must be in \(0.5, 1\), got 1.0'),
        (
            two_step_policies.TwoStepBayesOptimal,
            {'switch_probability': 2.0},
            r'switch_probability must be in \[0, 1\], got 2',
        ),
        (two_step_policies.Sarsa, {'learning_rate': 1.5}, r'Sarsa.learning_rate must be in \[0, 1\], got 1.5'),
        (two_step_policies.Sarsa, {'inverse_temperature': -1.0}, r'Sarsa.inverse_temperature .* at least 0, got -1.0'),
    ],
)
def test_bad_arguments_are_refused(component, arguments, message):
    with pytest.raises(ValueError, match=message):
        component(**arguments)
