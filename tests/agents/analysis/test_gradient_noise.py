import csv
import dataclasses
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from agents.analysis import gradient_noise, noise_report, signal_to_noise
from agents.analysis.gradient_noise import WeightedEstimator
from agents.analysis.signal_to_noise import Draws
from agents.learner import Learner
from components.meta_optimisers.bootstrapped_target import BootstrappedTarget
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_optimisers.meta_gradient import MetaGradient
from components.meta_optimisers.step_weights import Geometric, LastStep, Uniform
from components.meta_parameters.bijectors import Exp, Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.objectives.actor_critic import ActorCritic
from components.objectives.returns import LambdaReturn
from components.optimisers import Optimiser
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient
from tools import meta_gradient_statistics, run

PARAMETERS = MetaParameterSet({'objective.entropy_cost': Scalar(Exp()), DISCOUNT: Scalar(Sigmoid())})


@pytest.fixture(scope='module')
def sampled():
    """A learner, its frozen agent and 40 unrolls of three updates."""
    learner = Learner(make_agent(meta_parameters=PARAMETERS, meta_optimiser=meta_gradient(num_inner_steps=1)))
    frozen = gradient_noise.freeze(learner.state)
    sampler = gradient_noise.sampler_of(learner, [WeightedEstimator(3, Uniform())], num_start_steps=6)
    return learner, frozen, sampler, sampler(frozen, jax.random.key(5), 40)


def test_unrolls_are_independent_and_repeatable(sampled):
    _, frozen, sampler, gradients = sampled
    assert gradients.shape == (40, 3, 2)
    assert len(np.unique(gradients[:, 2, 1])) > 30
    np.testing.assert_array_equal(sampler(frozen, jax.random.key(5), 40), gradients)


def test_a_sample_is_the_plain_meta_gradient_through_each_number_of_updates(sampled):
    """Acted as the sampler does, then differentiated by the meta-optimiser itself for K = 1, 2 and 3."""
    learner, frozen, _, gradients = sampled
    for k in (1, 2, 3):
        np.testing.assert_allclose(gradients[7, k - 1], meta_gradient_of(learner, frozen, 7, k), rtol=1e-3)


def meta_gradient_of(learner, frozen, unroll, num_inner_steps):
    """By the meta-optimiser itself, of one of the 40 unrolls; `[P]`."""
    reset_key, start_key, act_key, key = jax.random.split(jax.random.split(jax.random.key(5), 40)[unroll], 4)
    actor, params = learner.actor, frozen.agent.params
    state, _, _ = actor.unroll(params, actor.init(reset_key), start_key, 6)
    state, trajectory, _ = actor.unroll(params, state, act_key, 4)
    agent = frozen.agent._replace(actor_state=state, trajectory=trajectory, key=key)
    outer_loss = dataclasses.replace(learner.agent.meta_optimiser.outer_loss, num_inner_steps=num_inner_steps)
    initial = jax.tree.map(lambda x: x[0], outer_loss.init(jax.tree.map(lambda x: x[None], agent)))
    estimate = jax.jit(lambda m: Mixed()(outer_loss, m, agent, learner.inner_loop, initial).gradient)
    return ravel_pytree(estimate(frozen.meta_params))[0]


def test_a_bootstrapped_target_is_measured_after_the_updates_that_estimators_use():
    outer_loss = BootstrappedTarget(
        ActorCritic(LambdaReturn(1.0, 1.0)), Optimiser(optax.scale_by_rms(), 0.01), num_target_steps=2
    )
    learner = Learner(make_agent(meta_parameters=PARAMETERS, meta_optimiser=MetaGradient(outer_loss, optax.adam(1e-2))))
    frozen = gradient_noise.freeze(learner.state)
    estimators = [WeightedEstimator(1, Uniform()), WeightedEstimator(3, LastStep())]
    gradients = gradient_noise.sampler_of(learner, estimators, 6)(frozen, jax.random.key(5), 40)
    assert gradients.shape == (40, 3, 2)
    assert np.isnan(gradients[:, 1]).all()
    for k in (1, 3):
        expected = meta_gradient_of(learner, frozen, 7, k)
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(gradients[7, k - 1], expected, rtol=1e-3)
    found = gradient_noise.summarise_noise(gradients, estimators, {'all': slice(None)}, gradients[:, -1], 10)
    assert all(summary.variance > 0 for summary in found.values())


def test_another_optimiser_starts_anew_and_the_same_one_goes_on(sampled):
    learner, frozen, _, _ = sampled
    assert gradient_noise.with_optimiser(frozen, learner.agent.update_rule.optimiser) is frozen
    changed = gradient_noise.with_optimiser(frozen, Optimiser(optax.scale_by_adam(), 1e-3))
    assert changed.agent.learning.opt_state.count == 0
    assert changed.agent.params is frozen.agent.params


def test_estimators_weigh_the_same_samples():
    gradients = np.arange(24.0).reshape(2, 4, 3)
    np.testing.assert_array_equal(WeightedEstimator(3, LastStep())(gradients), gradients[:, 2])
    np.testing.assert_allclose(WeightedEstimator(2, Uniform())(gradients), gradients[:, :2].mean(1))
    np.testing.assert_allclose(WeightedEstimator(4, Geometric(0.0))(gradients), gradients[:, 0])


def test_summaries_of_a_known_distribution():
    """g_1 = 1 + noise and g_2 = 1 + 3 noise, the noises independent, in units so small that squares underflow."""
    rng, unit = np.random.default_rng(0), 1e-25
    noise = rng.standard_normal((20_000, 2)) * [1, 3]
    gradients = (1 + noise)[..., None] * unit
    plain, mixture = WeightedEstimator(2, LastStep()), WeightedEstimator(2, Uniform())
    everything = {'all': slice(None)}
    found = gradient_noise.summarise_noise(gradients, [plain, mixture], everything, gradients[:, -1], num_resamples=300)
    plain, mixture = found[plain, 'all'], found[mixture, 'all']
    assert plain.mean == pytest.approx(unit, rel=0.1)
    assert plain.variance == pytest.approx(9 * unit**2, rel=0.05)
    assert plain.signal_to_noise == pytest.approx(1 / 3, rel=0.05)
    assert plain.squared_iqr == pytest.approx((1.349 * 3 * unit) ** 2, rel=0.05)
    assert plain.largest_share < 0.01
    assert (plain.variance_ratio, plain.signal_to_noise_gain) == (1, 0)
    assert plain.cosine == 1
    assert mixture.variance_ratio == pytest.approx(9 / 2.5, rel=0.05)
    low, high = mixture.variance_ratio_interval
    assert low < 9 / 2.5 < high < 1.1 * low
    assert mixture.signal_to_noise == pytest.approx(1 / np.sqrt(2.5), rel=0.05)
    low, high = mixture.signal_to_noise_gain_interval
    assert 0.2 < low < 1 / np.sqrt(2.5) - 1 / 3 < high < 0.4


def test_a_cosine_to_a_reference_that_is_lost_in_noise_is_not_given():
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((100, 1, 1))
    one = WeightedEstimator(1, LastStep())

    def cosine(reference):
        return gradient_noise.summarise_noise(gradients, [one], {'all': slice(None)}, reference, 10)[one, 'all'].cosine

    assert np.isnan(cosine(gradients[:, 0]))
    assert abs(cosine(gradients[:, 0] - 1)) == 1


NUM_DRAWS = 256


def noise(rng, num_numbers, tail='normal', dominating=False):
    """Draws of total variance 1; with a dominating direction, the first, half of it lies there."""
    shape = (NUM_DRAWS, num_numbers)
    draws = rng.standard_normal(shape) if tail == 'normal' else rng.standard_t(5, shape) / np.sqrt(5 / 3)
    variances = np.ones(num_numbers)
    variances[0] = num_numbers if dominating else 1
    return draws * np.sqrt(variances / variances.sum())


def at_least(coverage, num_trials):
    """What a proportion of trials with that probability exceeds nearly always."""
    return coverage - 3 * np.sqrt(coverage * (1 - coverage) / num_trials)


@pytest.mark.parametrize(
    ('num_numbers', 'tail', 'dominating', 'num_trials'),
    [
        (1, 'normal', False, 400),
        (1, 't', False, 400),
        (30, 'normal', False, 200),
        (30, 't', True, 200),
        (1_000, 'normal', False, 24),
        (1_000, 't', True, 24),
    ],
)
def test_the_interval_of_signal_to_noise_covers_the_truth_and_its_own_estimate(
    num_numbers, tail, dominating, num_trials
):
    rng, truths = np.random.default_rng(3), np.array([0, 0.05, 0.3])
    direction = np.eye(num_numbers)[0] if dominating else np.full(num_numbers, num_numbers**-0.5)
    found, low, high = np.zeros((3, num_trials, 3))
    for i in range(num_trials):
        draws = noise(rng, num_numbers, tail, dominating)
        for j, truth in enumerate(truths):
            norm = Draws.standardise(7e-20 * (draws + truth * direction)).squared_norm
            found[i, j], (low[i, j], high[i, j]) = norm.length, norm.interval
    assert np.all((low <= found) & (found <= high))
    assert np.all(np.mean((low <= truths) & (truths <= high), 0) > at_least(0.93, num_trials))
    # Not by being wide: about four standard errors, where the estimate is nearly normal.
    assert np.mean(high - low, 0)[2] < 1.3 * 2 * 1.96 * found[:, 2].std()
    # Pure noise has a plug-in ratio of 1 / 16.
    assert np.all(found.mean(0) < truths + 0.03)
    assert found.mean(0)[2] == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize(
    ('num_numbers', 'correlation', 'num_trials'), [(1, 0.0, 200), (1, 0.9, 200), (30, 0.9, 120), (1_000, 0.9, 8)]
)
def test_the_interval_of_a_paired_difference_covers_the_truth_and_its_own_estimate(
    num_numbers, correlation, num_trials
):
    rng, truths = np.random.default_rng(4), [0, 0.05, 0.3]
    pairs = list(itertools.product(truths, truths))
    found, low, high = np.zeros((3, num_trials, len(pairs)))
    for i in range(num_trials):
        a, b = noise(rng, num_numbers), noise(rng, num_numbers)
        b = correlation * a + np.sqrt(1 - correlation**2) * b
        ours, theirs = (
            {truth: Draws.standardise(scale * (draws + truth * num_numbers**-0.5)) for truth in truths}
            for draws, scale in ((a, 1e-6), (b, 20.0))
        )
        for j, (x, y) in enumerate(pairs):
            found[i, j], (low[i, j], high[i, j]) = signal_to_noise.difference(ours[x], theirs[y])
    gains = np.array([x - y for x, y in pairs])
    assert np.all((low <= found) & (found <= high))
    assert np.all(np.mean((low <= gains) & (gains <= high), 0) > at_least(0.93, num_trials))
    both_resolved = pairs.index((0.3, 0.3))
    assert np.mean(high - low, 0)[both_resolved] < 2.5 * 2 * 1.96 * found[:, both_resolved].std()


def test_draws_equal_up_to_scale_do_not_differ():
    draws = noise(np.random.default_rng(5), 3)
    same = signal_to_noise.difference(Draws.standardise(draws), Draws.standardise(4 * draws))
    assert same == (0, (0, 0))


def test_the_interval_of_a_ratio_of_variances_covers_the_truth():
    rng, estimator, hits = np.random.default_rng(6), WeightedEstimator(2, Uniform()), []
    for i in range(100):
        first, second = noise(rng, 2), noise(rng, 2)
        gradients = np.stack([first, 0.5 * first + second], 1)
        summary = gradient_noise.summarise_noise(gradients, [estimator], {'all': slice(None)}, gradients[:, -1], 200, i)
        low, high = summary[estimator, 'all'].variance_ratio_interval
        hits.append(low <= 1.25 / (0.75**2 + 0.5**2) <= high)
    assert np.mean(hits) > at_least(0.93, 100)
    assert high < 2 * low


@pytest.mark.parametrize('num_numbers', [2, 50])
def test_the_moments_behind_the_interval_are_estimated_without_bias(num_numbers):
    """With few draws, so that the bias of plug-in estimates would be large."""
    rng, variances = np.random.default_rng(7), 1 / np.arange(1, num_numbers + 1)
    mean = np.full(num_numbers, 0.1)
    draws = mean + rng.standard_normal((4_000, 8, num_numbers)) * np.sqrt(variances)
    squared_length = [signal_to_noise._mean_product(x, x) for x in draws]
    trace = [signal_to_noise._trace_of_squared_covariance(x - x.mean(0)) for x in draws]
    x = draws[0]
    pairs = [x[i] @ x[j] for i, j in itertools.permutations(range(8), 2)]
    assert squared_length[0] == pytest.approx(np.mean(pairs))
    for values, truth in ((squared_length, mean @ mean), (trace, np.square(variances).sum())):
        assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(len(values))


def test_estimates_that_do_not_vary_have_no_ratios(tmp_path):
    """All the same, all zero, and one that is not zero, which many a resample misses."""
    one = WeightedEstimator(1, LastStep())
    rows = []
    for gradients in (np.ones((16, 1, 2)), np.zeros((16, 1, 2)), np.eye(16)[:, None, :1]):
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            summary = gradient_noise.summarise_noise(gradients, [one], {'all': slice(None)}, gradients[:, -1], 50)[
                one, 'all'
            ]
        rows += noise_report.rows('0', {(one, 'all'): summary}, 16, 16)
    assert [row['signal_to_noise'] for row in rows] == ['', '', '0']
    assert [row['signal_to_noise_gain_low'] for row in rows] == ['', '', '0']
    assert [row['mean'] for row in rows] == ['1.414', '0', '0.0625']
    assert len(noise_report.table(rows).rows) == 3
    noise_report.plot(tmp_path / 'statistics.png', rows)
    assert (tmp_path / 'statistics.png').exists()


def test_the_tool_measures_a_new_agent_and_the_checkpoints_of_a_run(tmp_path, capsys):
    small = [
        '--gin_bindings',
        'NUM_ENVS = 4',
        '--num_unrolls',
        '16',
        '--num_inner_steps',
        '1,2',
        '--num_start_steps',
        '3',
    ]
    weights = ['--step_weights', 'LastStep', 'Geometric(0.5)']
    file = ['--gin_file', 'gin/catch/meta_discount.gin']
    assert meta_gradient_statistics.main([*file, *small, *weights, '--out', str(tmp_path / 'new')]) == 0

    bindings = [
        'TOTAL_ENV_STEPS = 6_000',
        'CHECKPOINT_EVERY = 2_000',
        'NUM_ENVS = 8',
        'LOG_EVERY = 1_000',
        'EVALUATE_EVERY = 0',
    ]
    workdir = tmp_path / 'run'
    assert run.main([*file, '--workdir', str(workdir), *(x for b in bindings for x in ('--gin_bindings', b))]) == 0
    steps = sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit())
    chosen = ['--workdir', str(workdir), '--checkpoints', ','.join(map(str, steps[:2]))]
    assert meta_gradient_statistics.main([*chosen, *small, *weights]) == 0
    assert f'signal-to-noise: {signal_to_noise.METHOD}' in capsys.readouterr().out
    with (workdir / 'statistics' / 'statistics.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2  # Checkpoints, K, weightings, and the discount beside all together.
    assert {row['checkpoint'] for row in rows} == set(map(str, steps[:2]))
    assert all(float(row['variance']) > 0 for row in rows)
    for name in ('signal_to_noise', 'signal_to_noise_gain'):
        assert all(float(row[f'{name}_low']) <= float(row[name]) <= float(row[f'{name}_high']) for row in rows)
    assert {row['signal_to_noise_method'] for row in rows} == {signal_to_noise.METHOD}
    one_step = [row['variance'] for row in rows if row['num_inner_steps'] == '1']
    assert one_step[0] == one_step[2]  # With one step all weightings are the same.
    assert (workdir / 'statistics' / 'statistics.png').stat().st_size > 10_000

    learned = np.load(workdir / 'statistics' / f'gradients_{steps[0]}.npy')
    assert meta_gradient_statistics.main([*chosen, *small, *weights, '--initial_meta_params']) == 0
    assert not np.allclose(learned, np.load(workdir / 'statistics' / f'gradients_{steps[0]}.npy'), rtol=1e-3)

    for path in (workdir / 'checkpoints' / str(steps[0])).rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-5])
    capsys.readouterr()
    assert meta_gradient_statistics.main([*chosen, *small, *weights]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f'checkpoint {steps[0]} ' in line
    assert 'is damaged' in line


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (
            ['--gin_file', 'gin/catch/actor_critic.gin'],
            'there are no meta-gradients to measure: the meta-optimiser is Fixed',
        ),
        (['--gin_file', 'gin/catch/meta_discount.gin', '--step_weights', 'Median'], 'choose from LastStep'),
        (['--gin_file', 'gin/catch/meta_discount.gin', '--step_weights', 'Geometric(2)'], r'must be in [0, 1]'),
        (['--workdir', 'nowhere'], 'nowhere'),
        (
            ['--gin_file', 'gin/host/catch.gin', '--gin_bindings', 'NUM_ENVS = 2'],
            'the noise of meta-gradients starts from one state again and again, and those of HostEnvironment',
        ),
    ],
)
def test_one_line_and_status_2_for_what_cannot_be_measured(arguments, part, capsys):
    assert meta_gradient_statistics.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


def test_too_few_unrolls_are_refused(capsys):
    assert meta_gradient_statistics.main(['--gin_file', 'gin/catch/meta_discount.gin', '--num_unrolls', '3']) == 2
    assert '--num_unrolls must be at least 4, got 3' in capsys.readouterr().err


def test_the_gradients_of_a_network_are_looked_at_together():
    meta_params = {'b': {'w': jnp.zeros((2, 3)), 'c': jnp.zeros(4)}, 'a': jnp.zeros(())}
    assert gradient_noise.meta_param_slices(meta_params) == {'a': slice(0, 1), 'b': slice(1, 11)}
