"""Every file under gin/: alone, built, differentiated and trained for a moment."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences, recorded_lifetime
from agents.experiments import gin_config, sweeps
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from components.environments.atari_scores import SCORES
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.gradient_estimators.exact import Forward, Reverse
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_parameters.meta_parameters import Weights
from tests.helpers.documented_metrics import undocumented
from tests.helpers.gin_text import lines_of_bindings, respelled

FILES = sorted(str(path.relative_to(gin_config.ROOT)) for path in gin_config.ROOT.glob('gin/**/*.gin'))
ABLATIONS = [file for file in FILES if file.startswith('gin/ablations/')]
VARIANTS = [file for file in FILES if not file.startswith(('gin/base/', 'gin/ablations/'))]
QUICK = {'gin/bandits/self_tuned.gin', 'gin/catch/look_ahead.gin', 'gin/catch/self_tuning.gin'}
SOME_QUICK = [pytest.param(file, marks=[] if file in QUICK else pytest.mark.slow) for file in VARIANTS]
METHODS = {
    *(f'gin/catch/{name}.gin' for name in ('frodo', 'self_tuning', 'target_network')),
    *(f'gin/snake/{name}.gin' for name in ('bootstrapped_outer_critic', 'meta_discount_outer_critic')),
    *(f'gin/intrinsic_reward/{name}.gin' for name in ('learned_return', 'lirpg', 'potential')),
    *(
        'gin/atari/meta_discount.gin',
        'gin/bandits/self_tuned.gin',
        'gin/grid_worlds/lpg.gin',
        'gin/harlow/ring.gin',
        'gin/host/catch.gin',
    ),
    *('gin/i_maze/symbolic.gin', 'gin/off_policy/frodo.gin', 'gin/random_walk/frodo.gin', 'gin/two_step/fixed.gin'),
}
"""A variant of each method and family of environments; the others are checked with `-m slow`."""
SOME_OF_EACH = [pytest.param(file, marks=[] if file in METHODS else pytest.mark.slow) for file in VARIANTS]
LOOPS = METHODS - {
    *('gin/catch/frodo.gin', 'gin/off_policy/frodo.gin', 'gin/bandits/self_tuned.gin'),
    *(f'gin/intrinsic_reward/{name}.gin' for name in ('learned_return', 'lirpg', 'potential')),
    'gin/snake/meta_discount_outer_critic.gin',
}
"""Of these, variants whose training is not that of another one with other objectives."""
SOME_LOOPS = [pytest.param(file, marks=[] if file in LOOPS else pytest.mark.slow) for file in VARIANTS]
TINY = ['TOTAL_ENV_STEPS = 10_000', 'NUM_ENVS = 3', 'UNROLL_LENGTH = 4']


def build(file, *bindings):
    # A reward has to come within a trajectory this short, for weights of rewards to have a gradient.
    undelayed = ['wrappers.DelayedReward.delay = 2'] if 'intrinsic_reward' in file else []
    small = ['SIZE = 36'] if 'atari' in file else []
    gin_config.load([file], [*TINY, *undelayed, *small, *bindings])
    return gin_config.build(Experiment)


def scopes(text):
    """Scopes that a configuration names."""
    return {name.rpartition('/')[0] for name in lines_of_bindings(text)}


def described(component):
    """Everything below it, but where in memory its functions are."""
    return re.sub(r' at 0x\w+', '', repr(component))


def test_there_are_files():
    assert len(FILES) > 8


def test_every_file_parses_alone_in_a_fresh_interpreter():
    program = (
        'import importlib.util, sys, gin\n'
        'for path in sys.argv[1:]:\n'
        '    gin.clear_config()\n'
        '    gin.parse_config_file(path)\n'
    )
    # One interpreter a file would be the purest; one for all still catches a missing header or import, as names are
    # resolved through each file's own imports.
    subprocess.run([sys.executable, '-c', program, *FILES], cwd=gin_config.ROOT, check=True)


@pytest.mark.parametrize('file', FILES)
def test_every_file_has_a_header_that_says_what_is_required_and_overridden(file):
    header = (gin_config.ROOT / file).read_text().split('from __gin__')[0]
    assert all(line.startswith('#') or not line for line in header.splitlines())
    assert 'Required:' in header
    assert 'overridden' in header


@pytest.mark.parametrize('file', FILES)
def test_what_a_base_file_includes(file):
    included = re.findall("^include '(.*)'", (gin_config.ROOT / file).read_text(), re.MULTILINE)
    folder = file.removeprefix('gin/base/').partition('/')[0]
    if file == 'gin/base/run.gin' or folder == 'environments':
        assert included == []
    elif folder == 'agents':
        assert included in (['gin/base/run.gin'], ['gin/base/agents/actor_critic.gin'])
    elif folder == 'methods':
        assert set(included) <= {'gin/base/run.gin', 'gin/base/methods/meta_gradient.gin'}
    else:
        assert not file.startswith('gin/base/')


def test_every_gin_file_that_is_named_exists():
    pages = [gin_config.ROOT / 'README.md', gin_config.ROOT / 'CONTRIBUTING.md', *gin_config.ROOT.glob('docs/*.md')]
    for page in [*pages, *map(gin_config.ROOT.joinpath, FILES)]:
        for folder, file in re.findall(r'(?<![\w/])(gin/|base/)([a-z0-9_/]+\.gin)\b', page.read_text()):
            assert (gin_config.ROOT / 'gin' / folder.removeprefix('gin/') / file).is_file(), (page, file)


@pytest.mark.parametrize('file', VARIANTS)
def test_every_variant_is_an_include_and_at_most_ten_overrides(file):
    text = (gin_config.ROOT / file).read_text()
    assert "include 'gin/" in text
    overrides = lines_of_bindings(text)
    assert 1 <= len(overrides) <= 10, list(overrides)


def test_every_variant_is_the_same_in_blocks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where a file of another folder finds what it includes.
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(respelled((gin_config.ROOT / file).read_text(), 'blocks'))
    for file in VARIANTS:
        assert gin_config.bindings_of(tmp_path / file) == gin_config.bindings_of(gin_config.ROOT / file), file


@pytest.mark.parametrize('file', SOME_LOOPS)
def test_every_variant_trains_and_repeats_from_its_saved_configuration(file, tmp_path):
    experiment = build(file)
    gin_config.check_effects(Experiment)
    saved, used = gin_config.config_str(), gin_config.operative_config_str()
    assert scopes(used) <= scopes(saved) | {''}  # No scope leaked to where no file names it.

    rows = []
    learner = Learner(experiment.agent)
    learner._logger.write = rows.append
    learner.advance(2)
    assert undocumented(rows[0]) == []
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learner.state.agents.params))

    (tmp_path / 'saved.gin').write_text(saved)
    gin_config.load([tmp_path / 'saved.gin'])
    again = gin_config.build(Experiment)
    assert gin_config.config_str() == saved
    assert described(again.agent.update_rule.objective) == described(experiment.agent.update_rule.objective)
    assert again.num_meta_steps == experiment.num_meta_steps


@pytest.mark.slow
@pytest.mark.parametrize('game', SCORES)
def test_every_atari_game_trains(game):
    experiment = build('gin/atari/frodo.gin', f"GAME = '{game}'")
    rows = []
    learner = Learner(experiment.agent)
    learner._logger.write = rows.append
    learner.advance(10)
    assert rows[0]['learner_updates'] == 20
    assert rows[0]['env_steps'].item() > 0
    assert any(np.any(x != 0) for name, x in rows[0].items() if name.startswith('meta_gradient/'))
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves((learner.state.agents.params, learner.state.meta_params))
    )


@pytest.mark.parametrize('file', SOME_QUICK)
def test_every_variant_could_be_trained_in_double_precision(file):
    learner = Learner(build(file).agent)
    with jax.enable_x64(True):
        state = jax.eval_shape(learner.init_state, jax.random.key(0))
        jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype) or pytest.fail(f'{x} and {y}'),
                     state, jax.eval_shape(learner.meta_step, state)[0])  # fmt: skip


@pytest.mark.parametrize('file', SOME_OF_EACH)
def test_every_meta_gradient_is_right_and_not_zero(file):
    agent = build(file).agent
    if not agent.meta_parameters.parameters:
        return
    assert agent.meta_optimiser.gradient_estimator == Mixed()
    comparisons = compare_with_finite_differences(Learner(agent))
    assert comparisons.keys() == agent.meta_parameters.parameters.keys()
    for path, comparison in comparisons.items():
        assert comparison.autodiff != 0, path
        assert comparison.relative_error < 1e-4, (path, comparison)


@pytest.mark.parametrize('file', SOME_QUICK)
def test_every_exact_mode_gives_the_same_meta_gradient_in_both_precisions(file):
    agent = build(file).agent
    entries = agent.meta_parameters.parameters.values()
    if not entries:
        return
    learner = Learner(agent)
    others = [Reverse()] if any(isinstance(entry, Weights) for entry in entries) else [Reverse(), Forward()]
    for precision, tolerance in ((jnp.float64, 1e-10), (jnp.float32, 3e-5)):
        with jax.enable_x64(precision == jnp.float64):
            lifetime = recorded_lifetime(learner, precision)
            expected = gradient(lifetime, Mixed())
            for mode in others:
                assert difference(gradient(lifetime, mode), expected) < tolerance


@pytest.mark.parametrize('file', [param for param in SOME_QUICK if 'snake' not in param.values[0]])
def test_a_meta_gradient_through_two_updates_is_right(file):
    """Of variants whose own goes through one: the test above is of more where theirs does."""
    agent = build(file).agent
    if not agent.meta_parameters.parameters or agent.meta_optimiser.num_updates > 1:
        return
    agent = build(file, 'NUM_INNER_STEPS = 2').agent
    for path, comparison in compare_with_finite_differences(Learner(agent)).items():
        assert comparison.relative_error < 1e-4, (path, comparison)


def gradient(lifetime, mode):
    """Of all numbers of the meta-parameters, in the order of their paths."""
    found = jax.jit(lambda meta_params: lifetime.estimate(meta_params, mode).gradient)(lifetime.meta_params)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves([found[path] for path in sorted(found)])])


def difference(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    'choice',
    [
        'validation_loss.ValidationLoss.step_weights = @step_weights.Uniform()',
        'validation_loss.ValidationLoss.step_weights = @step_weights.Lambda()',
        'validation_loss.ValidationLoss.outer_data = @validation_data.FreshTrajectory()',
        'validation_loss.ValidationLoss.outer_data = @validation_data.TrainingTrajectory()',
        'meta_gradient.MetaGradient.gradient_estimator = @exact.Reverse()',
        'meta_gradient.MetaGradient.gradient_estimator = @exact.Forward()',
        'meta_gradient.MetaGradient.gradient_estimator = @truncated.Truncated()',
        'meta_gradient.MetaGradient.gradient_estimator = @evolution_strategies.EvolutionStrategies()',
        'meta_gradient.MetaGradient.overlapping = True',
    ],
)
def test_the_estimate_of_a_meta_gradient_is_chosen_by_one_binding(choice):
    optimiser = build(
        'gin/catch/meta_discount.gin', 'NUM_INNER_STEPS = 3', 'NUM_LIFETIMES = 2', choice
    ).agent.meta_optimiser
    name, value = choice.split(' = ')
    cls, _, field = name.rpartition('.')
    component = optimiser if cls == 'meta_gradient.MetaGradient' else optimiser.outer_loss
    assert re.sub(r'\(.*', '', str(getattr(component, field))) == re.sub(r'@\w+\.|\(\)', '', value)


@pytest.mark.parametrize(
    ('binding', 'part'),
    [
        ('NUM_INNER_STEPS = 0', 'num_inner_steps must be at least 1, got 0'),
        ('step_weights.Explicit.weights = (1, 2)', '2 entries for 3 inner steps'),
        ('step_weights.Explicit.weights = (0, 0, 0)', 'all zero'),
        (
            'meta_gradient.MetaGradient.gradient_estimator = @evolution_strategies.EvolutionStrategies()',
            'NUM_LIFETIMES',
        ),
        ('bootstrapped_target.BootstrappedTarget.num_target_steps = 0', 'num_target_steps must be at least 1, got 0'),
    ],
)
def test_an_estimate_that_cannot_be_had_is_one_line(binding, part):
    file = 'gin/snake/bootstrapped.gin' if 'bootstrapped' in binding else 'gin/catch/meta_discount.gin'
    explicit = ['validation_loss.ValidationLoss.step_weights = @step_weights.Explicit()'] * ('Explicit' in binding)
    with pytest.raises(gin_config.ConfigurationError, match=part) as error:
        build(file, 'NUM_INNER_STEPS = 3', *explicit, binding)
    assert len(str(error.value).splitlines()) == 1


SOME_ABLATIONS = [
    pytest.param(file, marks=[] if file == 'gin/ablations/smoke.gin' else pytest.mark.slow) for file in ABLATIONS
]


@pytest.mark.parametrize('file', ABLATIONS)
def test_every_ablation_is_a_sweep(file):
    assert len(sweeps.planned_runs(sweeps.load_sweep([file]))) > 1


@pytest.mark.parametrize('file', SOME_ABLATIONS)
def test_every_run_of_an_ablation_builds(file):
    runs = sweeps.check_runs(sweeps.planned_runs(sweeps.load_sweep([file])))
    assert all(run.num_meta_steps > 0 for run in runs)


def num_inner_steps(meta_optimiser):
    return (
        meta_optimiser.num_updates if isinstance(meta_optimiser, Fixed) else meta_optimiser.outer_loss.num_inner_steps
    )


# No two alike, so that a field that reads another's macro is found.
MACROS = {
    'TOTAL_ENV_STEPS': (777, lambda e: e.total_env_steps),
    'NUM_ENVS': (7, lambda e: e.agent.environment.batch_size),
    'UNROLL_LENGTH': (6, lambda e: e.agent.unroll_length),
    'NUM_INNER_STEPS': (2, lambda e: num_inner_steps(e.agent.meta_optimiser)),
    'NUM_LIFETIMES': (4, lambda e: e.agent.num_lifetimes),
    'NUM_SEEDS': (3, lambda e: e.num_seeds),
    'SEED': (5, lambda e: e.seed),
    'LOG_EVERY': (11, lambda e: e.log_every),
    'EVALUATE_EVERY': (12, lambda e: e.evaluate_every),
    'CHECKPOINT_EVERY': (13, lambda e: e.checkpoint_every),
}


@pytest.mark.parametrize('file', VARIANTS)
def test_every_macro_of_the_base_means_the_same_in_every_variant(file):
    experiment = build(file, *(f'{macro} = {value}' for macro, (value, _) in MACROS.items()))
    for macro, (value, read) in MACROS.items():
        assert read(experiment) == value, macro


def test_a_binding_after_the_files_changes_nothing_else():
    build('gin/catch/meta_discount.gin')
    before = gin_config.config_str()
    build('gin/catch/meta_discount.gin', 'outer/optimisers.Optimiser.learning_rate = 0.5')
    assert gin_config.config_str() == before.replace(
        'outer/optimisers.Optimiser.learning_rate = 0.003', 'outer/optimisers.Optimiser.learning_rate = 0.5'
    )


def test_no_package_shadows_gin_config():
    assert not list(gin_config.ROOT.glob('gin/**/__init__.py'))
