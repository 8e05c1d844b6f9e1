"""Configurations and runs of older versions: `tests/data` holds what version 0.1 wrote, before modules were moved."""

import csv
import dataclasses
import importlib
import pathlib
import re
import tarfile

import pytest

import tools.describe
import tools.evaluate
import tools.run
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.old_names import MOVED_FIELDS, MOVED_FILES, RENAMED
from components.component_tree import replace_at
from components.meta_optimisers.meta_gradient import MetaGradient
from tests.helpers.gin_text import SPELLINGS, respelled

DATA = pathlib.Path(__file__).resolve().parents[2] / 'data'
CONFIGS = sorted((DATA / 'configs').glob('*.gin'))


@pytest.mark.parametrize('old', RENAMED)
def test_every_old_name_leads_to_something(old):
    module, _, name = RENAMED[old].rpartition('.')
    if not name[0].isupper():
        importlib.import_module(RENAMED[old])
        return
    assert getattr(importlib.import_module(module), name).__module__ == module  # Defined there, not just imported.


@pytest.mark.parametrize('old', MOVED_FILES)
def test_every_moved_file_is_named_by_its_old_path(old, tmp_path, monkeypatch):
    new = MOVED_FILES[old]
    assert (gin_config.ROOT / new).is_file()
    (tmp_path / 'mine.gin').write_text(f"from __gin__ import dynamic_registration\ninclude '{old}'\n")
    for folder, path in {
        gin_config.ROOT: old,
        gin_config.ROOT / 'gin': old.removeprefix('gin/'),
        tmp_path: gin_config.ROOT / old,
    }.items():
        monkeypatch.chdir(folder)
        with pytest.raises(
            gin_config.ConfigurationError, match=f'^gin file {str(path)!r} has moved: name {new!r} instead$'
        ):
            gin_config.load([path])
    with pytest.raises(gin_config.ConfigurationError, match=f'mine.gin, line 2: gin file {old!r} has moved: .*{new!r}'):
        gin_config.load([tmp_path / 'mine.gin'])
    with pytest.raises(gin_config.ConfigurationError, match=f'--gin_bindings: gin file {old!r} has moved: .*{new!r}'):
        gin_config.load([], [f"include '{old}'"])
    (tmp_path / old).parent.mkdir(parents=True)
    (tmp_path / old).write_text('')  # One of the user's own.
    gin_config.load([tmp_path / 'mine.gin'])


def test_a_command_with_the_old_path_of_a_file_is_one_line_and_status_2(tmp_path, capsys):
    command = [
        '--gin_file',
        'gin/catch/actor_critic.gin',
        '--gin_file',
        'gin/base/snake.gin',
        '--workdir',
        str(tmp_path),
    ]
    assert tools.run.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: gin file 'gin/base/snake.gin' has moved: name 'gin/base/environments/snake.gin' instead"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('old', MOVED_FIELDS)
def test_every_moved_field_leads_to_a_field(old):
    cls, _, field = MOVED_FIELDS[old].rpartition('.')
    module, _, name = cls.rpartition('.')
    assert field in {field.name for field in dataclasses.fields(getattr(importlib.import_module(module), name))}


LATER = re.compile(
    r'REPLICAS_AT_ONCE|.*\.replicas_at_once|.*MetaGradient\.optimiser|outer/(optax|components\.optimisers)\..*'
    r'|optax\..*(cosine_decay_schedule|scale_by_schedule)\..*'
)
"""Bindings that variants have gained since, or changed: the optimiser of meta-parameters is an `Optimiser`."""


def read(path):
    """Bindings of a file, and the agent that it describes, but for what has changed since."""
    gin_config.load([path])
    agent = gin_config.build(Experiment).agent
    if isinstance(agent.meta_optimiser, MetaGradient):
        agent = replace_at(agent, 'meta_optimiser.optimiser', None)
    bindings = {name: value for name, value in gin_config.bindings().items() if not LATER.fullmatch(name)}
    return bindings, re.sub(r' at 0x\w+', '', repr(agent))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_an_old_configuration_describes_the_variant_of_today(path):
    (variant,) = (
        file for file in gin_config.ROOT.glob('gin/*/*.gin') if path.stem == f'{file.parent.name}_{file.stem}'
    )
    assert read(path) == read(variant)


def test_an_old_configuration_is_the_same_in_every_spelling(tmp_path):
    def bindings(spelling):
        (tmp_path / 'old.gin').write_text(respelled(path.read_text(), spelling))
        return gin_config.bindings_of(tmp_path / 'old.gin')

    for path in CONFIGS:
        assert bindings('blocks') == bindings('mixed') == gin_config.bindings_of(path)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_names_that_a_file_gives_to_old_modules_are_kept(spelling, tmp_path):
    lines = [
        'from __gin__ import dynamic_registration',
        'import components.environments.adapters',
        'from components import policies as p',
        'from components.environments import base as environments',
        'components.environments.adapters.GymnaxEnvironment.environment = "CartPole-v1"',
        'p.EpsilonMixture.epsilon = 0.5',
        'environments.Batch.environment = @components.environments.adapters.GymnaxEnvironment()',
        'environments.Batch.batch_size = 2',
    ]
    (tmp_path / 'old.gin').write_text(respelled('\n'.join(lines), spelling))
    assert gin_config.bindings_of(tmp_path / 'old.gin') == {
        'components.environments.adapters.gymnax.GymnaxEnvironment.environment': "'CartPole-v1'",
        'components.acting.policies.EpsilonMixture.epsilon': '0.5',
        'components.environments.batch.Batch.environment': (
            '@components.environments.adapters.gymnax.GymnaxEnvironment()'
        ),
        'components.environments.batch.Batch.batch_size': '2',
    }


def test_a_module_that_exists_no_more_is_one_line(tmp_path):
    (tmp_path / 'old.gin').write_text('from __gin__ import dynamic_registration\nfrom components import vanished\n')
    with pytest.raises(gin_config.ConfigurationError, match=r'old.gin, line 2: .*components\.vanished') as error:
        gin_config.load([tmp_path / 'old.gin'])
    assert len(str(error.value).splitlines()) == 1


@pytest.fixture
def old_run(tmp_path):
    """A run of 40 meta-updates, with checkpoints after 20 and 40."""
    with tarfile.open(DATA / 'run_of_0.1.tar.gz') as archive:
        archive.extractall(tmp_path / 'run', filter='data')
    return tmp_path / 'run'


def test_an_old_run_goes_on_with_its_rows_and_is_described_and_evaluated(old_run, capsys):
    before = (old_run / 'train.csv').read_text()
    assert tools.run.main(['--workdir', str(old_run), '--extend', '--gin_bindings', 'TOTAL_ENV_STEPS = 500']) == 0
    assert 'resuming after 40 of 50 meta-updates' in capsys.readouterr().err
    after = (old_run / 'train.csv').read_text()
    assert after.startswith(before)
    assert [row['meta_updates'] for row in csv.DictReader(after.splitlines())] == ['10', '20', '30', '40', '50']

    assert tools.describe.main(['--workdir', str(old_run)]) == 0
    assert '@exact.Reverse()' in capsys.readouterr().out
    assert tools.evaluate.main(['--workdir', str(old_run), '--checkpoint', '20', '--episodes', '2']) == 0


def test_an_old_run_that_is_cut_back_takes_the_same_steps_again(old_run):
    """From the checkpoint before its last one: to what the old version went on to, but for clocks and rounding."""
    rows = list(csv.DictReader((old_run / 'train.csv').read_text().splitlines()))
    for path in sorted((old_run / 'checkpoints' / '40').rglob('*'), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (old_run / 'checkpoints' / '40').rmdir()
    assert tools.run.main(['--workdir', str(old_run)]) == 0
    again = list(csv.DictReader((old_run / 'train.csv').read_text().splitlines()))
    assert len(again) == len(rows)
    for old, new in zip(rows, again, strict=True):
        numbers = {name for name in old if 'time' not in name and 'per_second' not in name}
        assert old.keys() == new.keys()
        assert {name: float(new[name]) for name in numbers} == pytest.approx(
            {name: float(old[name]) for name in numbers}, rel=1e-3, abs=1e-7, nan_ok=True
        )
