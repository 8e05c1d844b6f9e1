import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from agents.analysis.meta_rl.bandit_policies import RescorlaWagner, rollout
from agents.analysis.meta_rl.rescorla_wagner import MODELS, Model, Parameters, fit, log_likelihood
from components.environments.bandits import RestlessBandit

KEY = jax.random.key(0)


def blocks(learning_rate, inverse_temperature, num_blocks=5):
    recorded = rollout(RescorlaWagner(learning_rate, inverse_temperature), RestlessBandit(), KEY, 10 * num_blocks)
    return [values.reshape(num_blocks, 10, 100) for values in (recorded.arms, recorded.rewards)]


def independent_log_likelihood(arms, rewards, learning_rate, inverse_temperature, lapse):
    total = 0.0
    for episode in zip(arms.tolist(), rewards.tolist(), strict=True):
        values = [0.5, 0.5]
        for arm, reward in zip(*episode, strict=True):
            softmax = 1 / (1 + math.exp(inverse_temperature * (values[1 - arm] - values[arm])))
            total += math.log((1 - lapse) * softmax + lapse / 2)
            values[arm] += learning_rate * (reward - values[arm])
    return total


def test_likelihood_by_hand():
    # Values of the second pull: 0.75 and 0.5; of the third: 0.75 and 0.25. The second episode starts from 0.5 again.
    arms, rewards = jnp.array([[0, 1, 0], [1, 1, 1]]), jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    softmax = [0.5, 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(1)), 1 / (1 + math.exp(1.5))]
    expected = sum(math.log(0.9 * probability + 0.05) for probability in softmax)
    np.testing.assert_allclose(log_likelihood(arms, rewards, Parameters(0.5, 4.0, 0.1)), expected, rtol=1e-6)
    expected = sum(math.log(probability) for probability in softmax)
    np.testing.assert_allclose(log_likelihood(arms, rewards, Parameters(0.5, 4.0, 0.0)), expected, rtol=1e-6)


@pytest.mark.parametrize('name', ['b', 'abe'])
def test_a_fit_is_as_good_as_another_optimiser_finds(name):
    arms, rewards = (values[:1] for values in blocks(0.3, 25.0))
    # Every seventh choice is one that has nothing to do with the values: a lapse.
    arms = jnp.where(jnp.arange(100) % 7 == 0, jnp.arange(10)[:, None] % 2, arms)
    found, model = fit(arms, rewards, MODELS[name]), MODELS[name]

    def loss(point):
        learning_rate = 0.5 if model.learning_rate is not None else point[1]
        return -independent_log_likelihood(
            arms[0], rewards[0], learning_rate, point[0], 0 if model.lapse is not None else point[2]
        )

    start, bounds = [4.0, 0.4, 0.1], [(0.01, 100), (0, 1), (0, 1)]
    size = model.num_parameters
    best = scipy.optimize.minimize(loss, start[:size], bounds=bounds[:size], method='L-BFGS-B')
    np.testing.assert_allclose(found.log_likelihood[0], -best.fun, atol=0.02)
    np.testing.assert_allclose(found.parameters.inverse_temperature[0], best.x[0], rtol=0.05)
    if name == 'abe':
        np.testing.assert_allclose(found.parameters.learning_rate[0], best.x[1], atol=0.01)
        np.testing.assert_allclose(found.parameters.lapse[0], best.x[2], atol=0.01)
        assert found.parameters.lapse[0] > 0.02
    else:
        assert (found.parameters.learning_rate[0], found.parameters.lapse[0]) == (0.5, 0)
    np.testing.assert_allclose(found.bic, size * math.log(1_000) - 2 * found.log_likelihood, rtol=1e-6)


def test_a_free_learning_rate_is_worth_its_cost_only_where_it_is_another_one():
    for learning_rate, expected in ((0.5, 'b'), (0.2, 'ab')):
        arms, rewards = blocks(learning_rate, 5.0)
        fits = {name: fit(arms, rewards, MODELS[name]) for name in ('b', 'ab')}
        preferred = np.where(fits['b'].bic < fits['ab'].bic, 'b', 'ab')
        assert (preferred == expected).sum() >= 4
        found = fits['ab'].parameters
        assert found.learning_rate.shape == (5,)
        assert abs(np.median(found.learning_rate) - learning_rate) < 0.08
        assert abs(np.median(found.inverse_temperature) - 5) < 1


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r'Model.learning_rate must be None or in \[0, 1\], got 2.0'):
        Model(learning_rate=2.0)
    with pytest.raises(ValueError, match=r'Model.lapse must be None or in \[0, 1\], got -1.0'):
        Model(lapse=-1.0)
    with pytest.raises(ValueError, match=r'fit needs arms and rewards \[M, N, T\], got \[2, 3\] and \[2, 3\]'):
        fit(jnp.zeros((2, 3), int), jnp.zeros((2, 3)), Model())
