import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from components import statistics
from components.bijectors import Exp, Sigmoid
from components.learner import Learner
from components.meta_optimisers.step_weights import Geometric, LastStep, Uniform
from components.meta_parameters import MetaParameterSet, Scalar
from components.optimisers import Optimiser
from components.statistics import Estimator, Sampler
from tests.agents_for_tests import DISCOUNT, make_agent, meta_gradient
from tools import meta_gradient_statistics, run

PARAMETERS = MetaParameterSet({'objective.entropy_cost': Scalar(Exp()), DISCOUNT: Scalar(Sigmoid())})


@pytest.fixture(scope='module')
def sampled():
    """A learner, its frozen agent and 40 unrolls of three updates."""
    learner = Learner(make_agent(meta_parameters=PARAMETERS, meta_optimiser=meta_gradient(num_inner_steps=1)))
    frozen = statistics.freeze(learner.state)
    sampler = Sampler(learner.agent.meta_optimiser, learner.inner_loop, learner.actor, 3, num_start_steps=6)
    return learner, frozen, sampler, sampler(frozen, jax.random.key(5), 40)


def test_unrolls_are_independent_and_repeatable(sampled):
    _, frozen, sampler, gradients = sampled
    assert gradients.shape == (40, 3, 2)
    assert len(np.unique(gradients[:, 2, 1])) > 30
    np.testing.assert_array_equal(sampler(frozen, jax.random.key(5), 40), gradients)


def test_a_sample_is_the_plain_meta_gradient_through_each_number_of_updates(sampled):
    """Acted as the sampler does, then differentiated by the meta-optimiser itself for K = 1, 2 and 3."""
    learner, frozen, _, gradients = sampled
    reset_key, start_key, act_key, key = jax.random.split(jax.random.split(jax.random.key(5), 40)[7], 4)
    actor, params = learner.actor, frozen.agent.params
    state, _, _ = actor.unroll(params, actor.init(reset_key), start_key, 6)
    state, trajectory, _ = actor.unroll(params, state, act_key, 4)
    agent = frozen.agent._replace(actor_state=state, trajectory=trajectory, key=key)
    for k in (1, 2, 3):
        optimiser = dataclasses.replace(learner.agent.meta_optimiser, num_inner_steps=k)
        found = jax.jit(
            lambda m, k=k, optimiser=optimiser: (
                optimiser.differentiation(optimiser.lifetime_loss, m, k, agent, learner.inner_loop).gradient
            )
        )(frozen.meta_params)
        slices = statistics.meta_param_slices(frozen.meta_params)
        for path, gradient in found.items():
            np.testing.assert_allclose(gradients[7, k - 1, slices[path]], [gradient], rtol=1e-3)


def test_another_optimiser_starts_anew_and_the_same_one_goes_on(sampled):
    learner, frozen, _, _ = sampled
    assert statistics.with_optimiser(frozen, learner.agent.update_rule.optimiser) is frozen
    changed = statistics.with_optimiser(frozen, Optimiser(optax.scale_by_adam(), 1e-3))
    assert changed.agent.opt_state.count == 0
    assert changed.agent.params is frozen.agent.params


def test_estimators_weigh_the_same_samples():
    gradients = np.arange(24.0).reshape(2, 4, 3)
    np.testing.assert_array_equal(Estimator(3, LastStep())(gradients), gradients[:, 2])
    np.testing.assert_allclose(Estimator(2, Uniform())(gradients), gradients[:, :2].mean(1))
    np.testing.assert_allclose(Estimator(4, Geometric(0.0))(gradients), gradients[:, 0])


def test_summaries_of_a_known_distribution():
    """g_1 = 1 + noise and g_2 = 1 + 3 noise, the noises independent, in units so small that squares underflow."""
    rng, unit = np.random.default_rng(0), 1e-25
    noise = rng.standard_normal((20_000, 2)) * [1, 3]
    gradients = (1 + noise)[..., None] * unit
    plain, mixture = Estimator(2, LastStep()), Estimator(2, Uniform())
    everything = {'all': slice(None)}
    found = statistics.summarise(gradients, [plain, mixture], everything, gradients[:, -1], num_resamples=300)
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
    one = Estimator(1, LastStep())

    def cosine(reference):
        return statistics.summarise(gradients, [one], {'all': slice(None)}, reference, 10)[one, 'all'].cosine

    assert np.isnan(cosine(gradients[:, 0]))
    assert abs(cosine(gradients[:, 0] - 1)) == 1


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
    assert 'signal-to-noise' in capsys.readouterr().out
    with (workdir / 'statistics' / 'statistics.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 * 2  # Checkpoints, K, weightings, and the discount beside all together.
    assert {row['checkpoint'] for row in rows} == set(map(str, steps[:2]))
    assert all(float(row['variance']) > 0 for row in rows)
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
        (['--gin_file', 'gin/catch/actor_critic.gin'], 'Fixed'),
        (['--gin_file', 'gin/catch/meta_discount.gin', '--step_weights', 'Median'], 'choose from LastStep'),
        (['--gin_file', 'gin/catch/meta_discount.gin', '--step_weights', 'Geometric(2)'], r'must be in [0, 1]'),
        (['--gin_file', 'gin/snake/bootstrapped.gin'], 'Bootstrapped'),
        (['--workdir', 'nowhere'], 'nowhere'),
    ],
)
def test_one_line_and_status_2_for_what_cannot_be_measured(arguments, part, capsys):
    assert meta_gradient_statistics.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


def test_the_gradients_of_a_network_are_looked_at_together():
    meta_params = {'b': {'w': jnp.zeros((2, 3)), 'c': jnp.zeros(4)}, 'a': jnp.zeros(())}
    assert statistics.meta_param_slices(meta_params) == {'a': slice(0, 1), 'b': slice(1, 11)}
