import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.meta_rl.bandit_policies import (
    UCB,
    BayesOptimal,
    Counts,
    Gittins,
    GreedyPosteriorMean,
    InformativeArmFirst,
    MajorityRule,
    Random,
    RandomWalkFilter,
    RescorlaWagner,
    SearchWithoutReplacement,
    ThompsonSampling,
    episode_keys,
    rollout,
)
from components.environments.bandits import (
    BernoulliBandit,
    Dependent,
    Independent,
    InformativeBandit,
    RestlessBandit,
    RestlessBanditState,
)

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 256)


def counts(*arms):
    """Statistics of arms given as (successes, failures)."""
    return Counts(jnp.array([sum(arm) for arm in arms]), jnp.array([float(arm[0]) for arm in arms]))


def chosen(policy, statistics):
    return set(np.asarray(jax.vmap(policy.act, (None, 0))(statistics, KEYS)).tolist())


def totals(values):
    return np.asarray(values, np.float64).sum(axis=1)


def check_mean(values, expected, slack=0.0):
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(len(values)) + slack, values.mean()


@functools.cache
def best_value(pulls_left, *arms):
    """Exact expected reward of optimal play from (successes, failures) of arms, each with a prior Beta(1, 1)."""
    return max(pull_values(pulls_left, *arms)) if pulls_left else Fraction(0)


def pull_values(pulls_left, *arms):
    values = []
    for i, (successes, failures) in enumerate(arms):
        mean = Fraction(successes + 1, successes + failures + 2)
        success, failure = (
            (*arms[:i], arm, *arms[i + 1 :]) for arm in ((successes + 1, failures), (successes, failures + 1))
        )
        values.append(
            mean * (1 + best_value(pulls_left - 1, *success)) + (1 - mean) * best_value(pulls_left - 1, *failure)
        )
    return values


def states_of_two_arms(num_pulls):
    """All pairs of (successes, failures) with at most so many pulls."""
    arms = [(s, n - s) for n in range(num_pulls + 1) for s in range(n + 1)]
    return [(one, other) for one in arms for other in arms if sum(one) + sum(other) <= num_pulls]


def test_the_best_policy_is_that_of_an_exact_recursion():
    policy, states = BayesOptimal(6), states_of_two_arms(5)
    statistics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(counts(*state) for state in states))
    actions = np.asarray(jax.jit(jax.vmap(jax.vmap(policy.act, (None, 0)), (0, None)))(statistics, KEYS[:40]))
    for state, found in zip(states, actions, strict=True):
        values = pull_values(6 - sum(map(sum, state)), *state)
        assert set(found.tolist()) == {arm for arm in (0, 1) if values[arm] == max(values)}, state
    expected = 4 - best_value(6, (0, 0), (0, 0))
    np.testing.assert_allclose(policy.expected_regret(), float(expected), rtol=1e-12)


def test_the_least_regret_of_a_hundred_pulls():
    assert round(BayesOptimal(100).expected_regret(), 3) == 1.748


def gittins_index(pulls_left, arm):
    """The index of an arm by bisection: the pay per pull that pulling once more is as good as."""

    @functools.cache
    def value(left, successes, failures, pay):
        return max(pulled(left, successes, failures, pay), left * pay) if left else 0.0

    def pulled(left, s, f, pay):
        mean = (s + 1) / (s + f + 2)
        return mean * (1 + value(left - 1, s + 1, f, pay)) + (1 - mean) * value(left - 1, s, f + 1, pay)

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if pulled(pulls_left, *arm, middle) >= pulls_left * middle else (low, middle)
    return low


def test_gittins_pulls_the_arm_of_the_higher_index():
    # Two pulls left: 1/2 (1 + 2/3) + 1/2 index = 2 index, and after a success 2/3 (1 + 3/4) + 1/3 index = 2 index.
    hand = {(1, (0, 0)): 1 / 2, (2, (0, 0)): 5 / 9, (2, (1, 0)): 7 / 10}
    np.testing.assert_allclose([gittins_index(*arguments) for arguments in hand], list(hand.values()), atol=1e-8)
    policy, states = Gittins(7), states_of_two_arms(6)
    statistics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(counts(*state) for state in states))
    actions = np.asarray(jax.jit(jax.vmap(jax.vmap(policy.act, (None, 0)), (0, None)))(statistics, KEYS[:40]))
    index = functools.cache(gittins_index)
    for state, found in zip(states, actions, strict=True):
        indices = [index(7 - sum(map(sum, state)), arm) for arm in state]
        if state[0] == state[1] or abs(indices[0] - indices[1]) > 1e-3:
            assert set(found.tolist()) == {arm for arm in (0, 1) if indices[arm] == max(indices)}, state


def test_indices_fall_as_the_end_comes_nearer():
    # One success and one failure against two and two: what is known less is worth exploring, but not in the last pull.
    uncertain, known = (1, 1), (2, 2)
    assert chosen(Gittins(10), counts(uncertain, known)) == {0}
    assert chosen(Gittins(7), counts(uncertain, known)) == {0, 1}


@pytest.mark.parametrize(
    ('arms', 'expected'),
    [
        ([(0, 0), (0, 0)], {0, 1}),
        ([(1, 0), (0, 0)], {0}),
        ([(0, 0), (0, 1)], {0}),
        ([(3, 1), (2, 0)], {0, 1}),  # 3 + 0 for arm 0, 1 + 2 for arm 1.
        ([(3, 2), (2, 0)], {1}),
    ],
)
def test_the_majority_counts_failures_of_the_other_arm(arms, expected):
    assert chosen(MajorityRule(), counts(*arms)) == expected


def test_greed_breaks_ties_at_random():
    assert chosen(GreedyPosteriorMean(), counts((1, 0), (3, 1), (0, 0))) == {0, 1}
    actions = jax.vmap(GreedyPosteriorMean().act, (None, 0))(counts((0, 0), (0, 0)), jax.random.split(KEY, 4_000))
    assert abs(float(actions.mean()) - 0.5) < 5 * 0.5 / math.sqrt(4_000)


def test_thompson_sampling_pulls_an_arm_as_often_as_it_is_probably_the_best():
    # P(Beta(2, 1) > Beta(1, 1)) is the mean of Beta(2, 1).
    actions = jax.vmap(ThompsonSampling().act, (None, 0))(counts((1, 0), (0, 0)), jax.random.split(KEY, 4_000))
    assert abs(float(actions.mean()) - 1 / 3) < 5 * math.sqrt(2 / 9 / 4_000)


def test_confidence_bounds_by_hand():
    # After 6 + 2 pulls: 3/6 + sqrt(c log 8 / 6) and 0 + sqrt(c log 8 / 2), which are as good for this c.
    even = (0.5 / (math.sqrt(math.log(8) / 2) - math.sqrt(math.log(8) / 6))) ** 2
    statistics = counts((3, 3), (0, 2))
    assert chosen(UCB(0.99 * even), statistics) == {0}
    assert chosen(UCB(1.01 * even), statistics) == {1}


def test_confidence_bounds_pull_every_arm_once_at_first():
    arms = np.asarray(rollout(UCB(1.0), BernoulliBandit(Independent(5), 5), KEY, 64).arms)
    np.testing.assert_array_equal(np.sort(arms, axis=1), np.tile(np.arange(5), (64, 1)))
    assert len(np.unique(arms, axis=0)) > 1


def test_rescorla_wagner_by_hand():
    policy = RescorlaWagner(0.25, 3.0)
    values = policy.init(2)
    assert chosen(RescorlaWagner(0.25), values) == {0, 1}
    for arm, reward in ((0, 1.0), (1, 0.0), (0, 1.0)):
        values = policy.update(values, jnp.int32(arm), jnp.float32(reward))
    np.testing.assert_allclose(values, [0.71875, 0.375])
    assert chosen(RescorlaWagner(0.25), values) == {0}
    actions = jax.vmap(policy.act, (None, 0))(values, jax.random.split(KEY, 4_000))
    probability = 1 / (1 + math.exp(3 * (0.71875 - 0.375)))
    assert abs(float(actions.mean()) - probability) < 5 * 0.5 / math.sqrt(4_000)


def filtered(policy, history):
    statistics = policy.init(2)
    for arm, reward in history:
        statistics = policy.update(statistics, jnp.int32(arm), jnp.float32(reward))
    return np.asarray(statistics, np.float64)


def test_a_filter_of_arms_that_stay_is_a_beta_posterior():
    history = [(0, 1), (1, 0), (0, 1), (1, 1)]  # Three times for arm 0, once against it.
    posterior = filtered(RandomWalkFilter((0.0,)), history)
    points = (np.arange(100) + 0.5) / 100
    np.testing.assert_allclose(posterior[0], points**3 * (1 - points) / sum(points**3 * (1 - points)), rtol=1e-4)
    assert chosen(RandomWalkFilter((0.0,)), jnp.asarray(posterior)) == {0}
    actions = jax.vmap(RandomWalkFilter((0.0,), greedy=False).act, (None, 0))(
        jnp.asarray(posterior), jax.random.split(KEY, 4_000)
    )
    # The distribution function of Beta(4, 2) at 1/2 is 3/16.
    assert abs(float(actions.mean()) - 3 / 16) < 5 * math.sqrt(3 / 16 * 13 / 16 / 4_000)


@pytest.mark.parametrize('deviation', [0.03, 0.2, 2.0])
def test_a_filter_moves_as_the_bandit_does(deviation):
    # After a success, arm 0's probability has the density 2p, whose square root is uniform; then it takes one step.
    keys, num_draws = jax.random.split(KEY, 40_000), 40_000
    before = jnp.sqrt(jax.random.uniform(jax.random.key(1), (num_draws,)))
    states = RestlessBanditState(jnp.zeros(num_draws, jnp.int32), before, jnp.full(num_draws, deviation))
    after, _ = jax.vmap(RestlessBandit().step, (0, None, 0))(states, jnp.int32(0), keys)
    posterior = filtered(RandomWalkFilter((deviation,)), [(0, 1)])
    np.testing.assert_allclose(posterior.sum(), 1, rtol=1e-5)
    frequencies = np.histogram(after.probability, 10, (0, 1))[0] / num_draws
    np.testing.assert_allclose(frequencies, posterior.reshape(10, 10).sum(axis=1), atol=5 * 0.4 / math.sqrt(num_draws))


def test_a_filter_learns_how_widely_arms_walk():
    policy = RandomWalkFilter((0.0, 0.1))
    steady, turning = (filtered(policy, [(0, i < successes) for i in range(30)]) for successes in (30, 15))
    assert steady.sum(axis=1)[0] > 0.7
    assert turning.sum(axis=1)[1] > 0.9


def test_every_policy_plays_in_the_tasks_of_a_key():
    bandit, num_episodes = InformativeBandit(), 200
    task_keys, play_key = episode_keys(KEY, num_episodes)
    targets = jax.vmap(bandit.reset)(task_keys)[0].target
    assert len(np.unique(targets)) == 10
    arms = np.asarray(rollout(InformativeArmFirst(), bandit, KEY, num_episodes).arms)
    np.testing.assert_array_equal(arms, np.stack([np.full(200, 10), *[targets] * 4], axis=1))
    # Whoever evaluates something else in the same tasks counts on this.
    expected_task_key, expected_play_key = jax.random.split(KEY)
    assert (task_keys == jax.random.split(expected_task_key, num_episodes)).all()
    assert play_key == expected_play_key


class AlwaysArm0(Random):
    def act(self, statistics, key):
        return jnp.int32(0)


def test_regret_is_what_the_best_arm_was_expected_to_pay_more():
    probabilities = jax.vmap(Independent(3).draw)(episode_keys(KEY, 50)[0])
    found = rollout(AlwaysArm0(), BernoulliBandit(Independent(3), 4), KEY, 50)
    expected = (probabilities.max(axis=1) - probabilities[:, 0])[:, None].repeat(4, 1)
    np.testing.assert_allclose(found.regret, expected, atol=1e-6)
    assert (found.arms.dtype, found.arms.shape, found.rewards.shape) == (np.int32, (50, 4), (50, 4))
    assert set(np.asarray(found.rewards).flat) == {0, 1}


def test_regret_is_of_where_restless_arms_are_when_pulled():
    bandit = RestlessBandit((0.5,), 2)
    starts = jax.vmap(bandit.reset)(episode_keys(KEY, 50)[0])[0].probability
    regret = np.asarray(rollout(AlwaysArm0(), bandit, KEY, 50).regret)
    np.testing.assert_allclose(regret[:, 0], np.maximum(1 - 2 * starts, 0), atol=1e-6)
    assert not np.allclose(regret[:, 0], regret[:, 1])


EASY, HARD = Dependent((0.1, 0.9)), Dependent((0.4, 0.6))


# Exact, or from many more episodes: cumulative regret, and pulls of the worse arm, in episodes of 100 pulls.
@pytest.mark.parametrize(
    ('policy', 'arms', 'regret', 'wrong_pulls'),
    [
        (BayesOptimal(100), Independent(), 1.748, 13.2),
        (Gittins(100), Independent(), 1.754, 13.3),
        (MajorityRule(), Independent(), 2.799, 18.7),
        (GreedyPosteriorMean(), Independent(), 2.691, 17.7),
        (ThompsonSampling(), Independent(), 2.79, 16.6),
        (UCB(0.5), Independent(), 2.970, 17.3),
        (UCB(2.0), Independent(), 5.581, 25.2),
        (Random(), Independent(), 16.667, 50.0),
        (BayesOptimal(100), EASY, 0.80, 1.00),
        (Gittins(100), HARD, 3.03, 15.1),
        (MajorityRule(), Dependent(), 1.22, 7.5),
        (MajorityRule(), EASY, 0.62, 0.78),
        (MajorityRule(), HARD, 2.31, 11.5),
    ],
    ids=repr,
)
def test_regret_of_a_hundred_pulls(policy, arms, regret, wrong_pulls):
    found = rollout(policy, BernoulliBandit(arms), KEY, 1_000).regret
    check_mean(totals(found), regret, slack=0.03)
    check_mean(totals(found > 1e-9), wrong_pulls, slack=0.1)


@pytest.mark.parametrize(
    ('policy', 'low', 'high'),
    [
        (RandomWalkFilter(), 2.03, 5.49),
        (RandomWalkFilter(greedy=False), 4.48, 9.25),
        (RescorlaWagner(), 3.25, 6.99),
    ],
    ids=repr,
)
def test_regret_in_restless_arms(policy, low, high):
    for deviation, regret in ((0.02, low), (0.10, high)):
        found = rollout(policy, RestlessBandit((deviation,)), KEY, 1_000).regret
        check_mean(totals(found), regret, slack=0.05)


@pytest.mark.parametrize(
    ('policy', 'total', 'regret'),
    [
        (InformativeArmFirst(), 20.55, [4.45, 4.45, 4.45, 4.45, 4.45]),
        (SearchWithoutReplacement(), 11.00, [3.6, 6.8, 9.6, 12.0, 14.0]),
        (UCB(1.0), 6.61, [3.68, 7.35, 11.03, 14.71, 18.39]),
        (Random(), 6.61, [3.68, 7.35, 11.03, 14.71, 18.39]),
    ],
)
def test_totals_with_an_arm_that_tells(policy, total, regret):
    found = rollout(policy, InformativeBandit(), KEY, 3_000)
    check_mean(totals(found.rewards), total, slack=0.01)
    for values, expected in zip(np.cumsum(np.asarray(found.regret, np.float64), axis=1).T, regret, strict=True):
        check_mean(values, expected, slack=0.01)


def test_a_search_stays_where_the_target_is():
    found = rollout(SearchWithoutReplacement(7.0), InformativeBandit(4, 6, 7.0, 2.0), KEY, 200)
    targets = jax.vmap(InformativeBandit(4).reset)(episode_keys(KEY, 200)[0])[0].target
    for arms, target in zip(found.arms.tolist(), targets.tolist(), strict=True):
        search = arms[: arms.index(target)]
        assert len(set(search)) == len(search)
        assert set(search) <= {0, 1, 2, 3}
        assert set(arms[len(search) :]) == {target}


@pytest.mark.parametrize('policy', [BayesOptimal(5), MajorityRule(), RandomWalkFilter()])
def test_policies_for_two_arms_refuse_others(policy):
    message = rf'{type(policy).__name__} is a policy for 2 arms, got a bandit of 3'
    with pytest.raises(ValueError, match=message):
        rollout(policy, BernoulliBandit(Independent(3), 5), KEY, 2)


@pytest.mark.parametrize('policy', [BayesOptimal(5), Gittins(5)])
def test_policies_refuse_episodes_of_another_length(policy):
    message = rf'{type(policy).__name__}.num_pulls must be 6, as the bandit has it, got 5'
    with pytest.raises(ValueError, match=message):
        rollout(policy, BernoulliBandit(Independent(), 6), KEY, 2)


@pytest.mark.parametrize(
    ('policy', 'arguments', 'message'),
    [
        (UCB, {'exploration': -1.0}, r'UCB.exploration must be at least 0, got -1.0'),
        (Gittins, {'num_pulls': 0}, r'Gittins.num_pulls must be at least 1, got 0'),
        (BayesOptimal, {'num_pulls': 201}, r'BayesOptimal.num_pulls must be in \[1, 200\], got 201'),
        (RescorlaWagner, {'learning_rate': 1.1}, r'RescorlaWagner.learning_rate must be in \[0, 1\], got 1.1'),
        (RescorlaWagner, {'inverse_temperature': -1.0}, r'inverse_temperature must be None or at least 0, got -1.0'),
        (RandomWalkFilter, {'standard_deviations': ()}, r'RandomWalkFilter.standard_deviations must be at least one'),
        (RandomWalkFilter, {'num_points': 1}, r'RandomWalkFilter.num_points must be at least 2, got 1'),
        (RandomWalkFilter, {'standard_deviations': (0.004,)}, r'must be at least 250 for standard deviation 0.004'),
    ],
)
def test_bad_arguments_are_refused(policy, arguments, message):
    with pytest.raises(ValueError, match=message):
        policy(**arguments)
