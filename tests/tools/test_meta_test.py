"""tools/meta_test.py on a small run of Catch."""

import csv
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.experiments import gin_config, restore
from agents.experiments.description import describe
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from components.meta_optimisers.base import Fixed
from components.optimisers import Optimiser
from components.types import CompositionError, ConfigurationError
from tests.helpers.agents_for_tests import DISCOUNT
from tools import meta_test, run

ROWS, COLUMNS = 5, 3
BINDINGS = [
    f'catch.Catch.rows = {ROWS}',
    f'catch.Catch.columns = {COLUMNS}',
    'torsos.MLP.hidden_sizes = (8,)',
    'TOTAL_ENV_STEPS = 320',  # 20 meta-steps.
    'NUM_ENVS = 4',
    'UNROLL_LENGTH = 4',
    'NUM_SEEDS = 2',
    'LOG_EVERY = 160',
    'EVALUATE_EVERY = 0',
    'CHECKPOINT_EVERY = 160',
]


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run of two seeds with checkpoints 10 and 20."""
    workdir = tmp_path_factory.mktemp('runs') / 'catch'
    bindings = [part for line in BINDINGS for part in ('--gin_bindings', line)]
    assert run.main(['--gin_file', 'gin/catch/meta_discount.gin', '--workdir', str(workdir), *bindings]) == 0
    return workdir


@pytest.fixture(scope='module')
def restored(workdir):
    """Its checkpoints; 20 is the newest."""
    return {10: restore.restore_learner(workdir, 10), 20: restore.restore_learner(workdir)}


def main(workdir, *arguments) -> int:
    return meta_test.main(['--workdir', str(workdir), *map(str, arguments)])


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_a_meta_test_trains_new_agents_with_what_a_seed_had_learned(workdir, restored, tmp_path, capsys):
    out = tmp_path / 'meta_test'
    arguments = '--checkpoint', 10, '--meta_parameters_of', 1, '--seed', 9, '--out', out
    assert main(workdir, *arguments, '--gin_bindings', 'TOTAL_ENV_STEPS = 160') == 0
    assert str(out) in capsys.readouterr().out
    learned = {number: np.asarray(run.learner.state.meta_params[DISCOUNT]) for number, run in restored.items()}
    expected = learned[10][1]
    assert len({*learned[10], *learned[20]}) == 4

    fresh = restore.restore_learner(out)
    assert fresh.checkpoint == 10
    np.testing.assert_array_equal(fresh.learner.state.meta_params[DISCOUNT], [expected] * 2)
    value = float(fresh.learner.agent.meta_parameters.values({DISCOUNT: jnp.asarray(expected)})[DISCOUNT])
    train = [float(row[f'meta/{DISCOUNT}']) for row in rows(out / 'train.csv')]
    assert train == pytest.approx([value] * 2, rel=1e-6)

    start = Learner(fresh.learner.agent, num_seeds=2, seed=9).state.agents.params
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), fresh.learner.state.agents.params, start)
    assert all(0 < x < 0.1 for x in jax.tree.leaves(moved))  # From this start, not from the run's weights.
    assert 'SEED = 9' in (out / 'config.gin').read_text()

    # It is a run: it goes on, here or with tools/run.py, and with the same meta-parameters.
    assert run.main(['--workdir', str(out), '--extend', '--gin_bindings', 'TOTAL_ENV_STEPS = 320']) == 0
    assert len({row[f'meta/{DISCOUNT}'] for row in rows(out / 'train.csv')}) == 1
    assert main(workdir, *arguments) == 0
    assert main(workdir, *arguments[:-4], '--seed', 8, *arguments[-2:]) == 2
    assert 'SEED = 9 there, 8 here' in capsys.readouterr().err
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').touch()
    assert main(workdir, *arguments[:-1], tmp_path / 'full') == 2
    assert 'is not empty and holds no run' in capsys.readouterr().err


def test_the_first_update_of_a_fresh_agent_is_that_of_a_plain_one_with_those_constants(workdir, restored):
    trained = restored[20].learner
    learned = restore.learned_meta_parameters(trained.agent.meta_parameters, str(workdir), 20, seed=1)
    value = float(trained.agent.meta_parameters.values(trained.state.meta_params)[DISCOUNT][1])
    assert value != pytest.approx(0.8, abs=1e-3)

    rule = dataclasses.replace(trained.agent.update_rule, optimiser=Optimiser(optax.identity(), 0.1))
    agent = dataclasses.replace(trained.agent, update_rule=rule, meta_parameters=learned, meta_optimiser=Fixed())
    learner = Learner(agent, seed=3)
    learner.load_learned_meta_params()
    start = jax.tree.map(lambda x: x[0, 0], jax.device_get(learner.state.agents))
    learner.advance(1)
    updated = jax.tree.map(lambda x: x[0, 0], learner.state.agents.params)

    def difference(discount):
        """To an update in which the discount is a constant."""
        returns = dataclasses.replace(rule.objective.returns, discount=discount)
        plain = dataclasses.replace(rule, objective=dataclasses.replace(rule.objective, returns=returns))
        learning, _ = jax.jit(lambda: plain.update(learner.network, start.learning, start.trajectory))()
        return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), updated, learning.params)))

    assert difference(value) < 1e-6
    assert difference(0.8) > 1e-5


def test_a_configuration_is_built_and_described_without_its_checkpoint(workdir, tmp_path, capsys):
    """Its run does not start without, and does not need it any more once it has a checkpoint of its own."""
    shutil.copytree(workdir, tmp_path / 'run')
    out = tmp_path / 'meta_test'
    shorter = '--gin_bindings', 'TOTAL_ENV_STEPS = 160'
    assert main(tmp_path / 'run', '--out', out, *shorter) == 0
    shutil.rmtree(tmp_path / 'run')

    assert run.main(['--workdir', str(out), '--extend', '--gin_bindings', 'TOTAL_ENV_STEPS = 320']) == 0
    assert describe([out / 'config.gin']).meta_parameters[DISCOUNT].initial_value is None
    gin_config.load([out / 'config.gin'])
    gin_config.build(Experiment).make_learner()
    shutil.rmtree(out / 'checkpoints')
    capsys.readouterr()
    assert run.main(['--workdir', str(out)]) == 2
    assert 'there are no checkpoints in' in capsys.readouterr().err


def test_learned_meta_parameters_of_other_shapes_are_refused(restored):
    agent = restored[20].learner.agent
    wrong = dataclasses.replace(agent.meta_parameters, learned=lambda: {DISCOUNT: np.zeros(3, np.float32)})
    learner = Learner(dataclasses.replace(agent, meta_parameters=wrong))
    with pytest.raises(CompositionError, match='learned meta-parameters are of shapes'):
        learner.load_learned_meta_params()


def test_learned_meta_parameters_are_of_the_same_paths(workdir, restored):
    entries = restored[20].learner.agent.meta_parameters
    other = dataclasses.replace(entries, parameters={'optimiser.learning_rate': entries.parameters[DISCOUNT]})
    with pytest.raises(
        ConfigurationError, match=f'has learned the meta-parameters {DISCOUNT}; asked for are optimiser'
    ):
        restore.learned_meta_parameters(other, str(workdir), 20).learned()


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--workdir', 'nowhere'], 'there are no checkpoints in nowhere'),
        (['--checkpoint', '15'], 'checkpoints, only [10, 20]'),
        (['--meta_parameters_of', '2', '--out', 'nowhere'], 'there is no seed 2'),
        (['--meta_parameters_of', '-1'], '--meta_parameters_of must be at least 0'),
        (['--environment', 'nothing.gin'], "'nothing.gin' is missing"),
        (['--out', __file__], 'cannot write to'),
    ],
)
def test_bad_input_is_one_line_and_status_2(workdir, arguments, part, capsys):
    before = sorted(workdir.rglob('*'))
    assert main(workdir, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert part in line
    assert sorted(workdir.rglob('*')) == before
