"""Runs that are interrupted, by whatever, and go on: they end as one that never was."""

import contextlib
import csv
import dataclasses
import functools
import os
import pathlib
import resource

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.experiments import gin_config, run_folder
from agents.experiments.checkpoints import Checkpointer, CheckpointError
from agents.experiments.experiment import Experiment
from agents.experiments.loggers import CSVLogger, TensorBoardLogger
from agents.learner import Learner
from components.environments.adapters.ale import Atari
from components.environments.adapters.host import HostEnvironment
from components.environments.catch import HostCatch
from components.networks.network import Network
from components.networks.torsos import MLP
from components.optimisers import Optimiser
from components.types import DivergedError
from tests.helpers.agents_for_tests import make_agent, update_rule

CLOCKS = ('wall_time', 'steps_per_second')


class Interrupted(Exception):
    """In place of whatever ends a process."""


class InterruptingLogger(CSVLogger):
    """Raises when it is to write its `rows`-th row, half of which is then in the file."""

    def __init__(self, label, run, rows):
        super().__init__(label, run)
        self._left, self._csv = rows, run.directory / f'{label}.csv'

    def write(self, data):
        self._left -= 1
        if self._left < 0:
            with self._csv.open('a') as file:
                file.write('0,17,')
            raise Interrupted
        super().write(data)


def make_experiment(**kwargs):
    """Twenty-five meta-steps of twenty steps; rows every two, evaluation every six and checkpoints every seven."""
    defaults = {
        'agent': make_agent(),
        'total_env_steps': 25 * 20,
        'log_every': 2 * 20,
        'evaluate_every': 6 * 20,
        'checkpoint_every': 7 * 20,
        'loggers': (CSVLogger,),
    }
    return Experiment(**{**defaults, **kwargs})


def rows(path):
    with path.open(newline='') as file:
        return [{n: x for n, x in row.items() if n not in CLOCKS} for row in csv.DictReader(file, strict=True)]


def arrays(experiment, directory):
    """Bits of every array of the newest checkpoint."""
    learner = Learner(experiment.agent, num_seeds=experiment.num_seeds, seed=experiment.seed)
    checkpointer = Checkpointer(directory / 'checkpoints')
    state = checkpointer.restore(learner.save()).state
    checkpointer.close()
    is_key = lambda x: isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(x) if is_key(x) else x).tobytes() for x in jax.tree.leaves(state)]


def assert_same_run(experiment, one, other):
    assert rows(one / 'train.csv') == rows(other / 'train.csv')
    assert rows(one / 'eval.csv') == rows(other / 'eval.csv')
    assert arrays(experiment, one) == arrays(experiment, other)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp('uninterrupted')
    experiment = make_experiment()
    assert experiment.run(directory) == 25
    assert [row['meta_updates'] for row in rows(directory / 'train.csv')] == [*map(str, range(2, 25, 2)), '25']
    assert [row['meta_updates'] for row in rows(directory / 'eval.csv')] == ['6', '12', '18', '24', '25']
    return directory


def test_stopping_again_and_again_changes_nothing(tmp_path, uninterrupted):
    experiment = make_experiment()
    taken, told = [], []
    for chunks in (1, 4, 1, 6, 9):
        stops = iter([False] * (chunks - 1) + [True])
        taken.append(experiment.run(tmp_path, should_stop=lambda stops=stops: next(stops), notify=told.append))
    assert taken == [2, 10, 12, 24, 25]
    assert 'resuming after 24 of 25' in told[-1]
    assert_same_run(experiment, tmp_path, uninterrupted)


def test_interruptions_in_the_middle_of_rows_change_nothing(tmp_path, uninterrupted):
    experiment = make_experiment()
    for num_rows in (0, 5, 2):
        breaking = dataclasses.replace(experiment, loggers=(functools.partial(InterruptingLogger, rows=num_rows),))
        with pytest.raises(Interrupted):
            breaking.run(tmp_path, notify=lambda _: None)
    experiment.run(tmp_path, notify=lambda _: None)
    assert_same_run(experiment, tmp_path, uninterrupted)


def test_a_full_disk_loses_nothing(tmp_path, uninterrupted):
    experiment = make_experiment()
    for largest in (2_000, 6_000):  # Bytes; first no checkpoint has room, then no table.
        with _largest_file(largest), pytest.raises((CheckpointError, OSError)) as raised:
            experiment.run(tmp_path, notify=lambda _: None)
        assert len(str(raised.value).splitlines()) == 1
    experiment.run(tmp_path, notify=lambda _: None)
    assert_same_run(experiment, tmp_path, uninterrupted)


@contextlib.contextmanager
def _largest_file(size):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_damaged_checkpoint_costs_no_more_than_the_way_from_the_one_before(tmp_path, uninterrupted):
    experiment = make_experiment()
    stops = iter([False] * 10 + [True])
    experiment.run(tmp_path, should_stop=lambda: next(stops))
    for path in (tmp_path / 'checkpoints' / '22').rglob('*'):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-5])
    told = []
    experiment.run(tmp_path, notify=told.append)
    assert 'checkpoint 22 is damaged' in told[0]
    assert 'resuming after 22' not in told[1]
    assert_same_run(experiment, tmp_path, uninterrupted)


def test_it_can_become_longer(tmp_path, uninterrupted):
    longer = make_experiment(total_env_steps=29 * 20)
    once, twice = tmp_path / 'once', tmp_path / 'twice'
    for directory in (once, twice):
        directory.mkdir()
    longer.run(once)
    make_experiment().run(twice)
    longer.run(twice, notify=lambda _: None)
    (extra,) = {row['meta_updates'] for row in rows(twice / 'train.csv')} - {
        row['meta_updates'] for row in rows(once / 'train.csv')
    }
    assert extra == '25'  # Where it ended first.
    assert arrays(longer, once) == arrays(longer, twice)


def test_a_run_that_has_ended_is_left_alone(uninterrupted):
    before = [(uninterrupted / name).read_bytes() for name in ('train.csv', 'eval.csv')]
    assert make_experiment().run(uninterrupted, notify=lambda _: None) == 25
    assert [(uninterrupted / name).read_bytes() for name in ('train.csv', 'eval.csv')] == before


def test_clocks_go_on(tmp_path):
    experiment = make_experiment()
    experiment.run(tmp_path, should_stop=lambda: True)
    experiment.run(tmp_path, notify=lambda _: None)
    with (tmp_path / 'train.csv').open() as file:
        table = list(csv.DictReader(file))
    times = [float(row['wall_time']) for row in table]
    assert times == sorted(times)
    assert all(float(row['steps_per_second']) > 0 for row in table)


def test_environments_on_the_host_start_new_episodes_and_say_so(tmp_path):
    environment = HostEnvironment(functools.partial(HostCatch, 4, 3), 5, seed_argument='seed')
    experiment = make_experiment(agent=make_agent(environment=environment), evaluate_every=0)
    stops = iter([False, True])
    done = experiment.run(tmp_path, should_stop=lambda: next(stops))
    told = []
    before = arrays(experiment, tmp_path)
    assert experiment.run(tmp_path, notify=told.append) == experiment.num_meta_steps
    assert 'new episodes' in told[0]
    steps = [int(row['env_steps']) for row in rows(tmp_path / 'train.csv')]
    assert steps == sorted(set(steps))
    assert steps[-1] == experiment.total_env_steps > done * 20
    assert before != arrays(experiment, tmp_path)


def atari():
    """Two small emulators whose episodes are cut short, so that some end between checkpoints."""
    return Atari('breakout', 2, height=12, width=12, stack=1, max_frames=40)


def host_catch():
    return HostEnvironment(functools.partial(HostCatch, 4, 3), 2, seed_argument='seed')


@pytest.mark.parametrize('make', [atari, host_catch])
def test_environments_outside_of_checkpoints_go_on_alike_after_one(tmp_path, make):
    """Twelve meta-steps of eight steps; rows every two, checkpoints every four."""
    environment = make()
    experiment = make_experiment(
        agent=make_agent(environment=environment), total_env_steps=96, log_every=16, evaluate_every=48, checkpoint_every=32
    )  # fmt: skip
    once, killed = tmp_path / 'once', tmp_path / 'killed'
    once.mkdir()
    killed.mkdir()
    experiment.run(once)
    breaking = dataclasses.replace(experiment, loggers=(functools.partial(InterruptingLogger, rows=3),))
    with pytest.raises(Interrupted):
        breaking.run(killed, notify=lambda _: None)
    told = []
    experiment.run(killed, notify=told.append)
    assert 'resuming after 4 of 12' in told[0]
    assert_same_run(experiment, once, killed)


@pytest.mark.parametrize('cuts', [True, False])
def test_what_goes_on_starts_new_episodes_only_where_it_is_asked_to(tmp_path, cuts):
    starts = []

    class Catch(HostCatch):
        def __init__(self, seed):
            starts.append(seed)
            super().__init__(4, 3, seed=seed)

    experiment = make_experiment(
        agent=make_agent(environment=HostEnvironment(Catch, 1, seed_argument='seed')),
        total_env_steps=48, log_every=4, evaluate_every=0, checkpoint_every=16, checkpoints_cut_episodes=cuts,
    )  # fmt: skip
    experiment.run(tmp_path)
    assert len(starts) == 2 + 2 * cuts  # One for the specs, one at the start; checkpoints after 4, 8 and 12 meta-steps.
    assert len(set(starts)) == len(starts)


def test_what_a_checkpoint_says_of_emulators_is_zero_and_never_stepped(tmp_path):
    environment = atari()
    experiment = make_experiment(agent=make_agent(environment=environment), total_env_steps=32, evaluate_every=0)
    experiment.run(tmp_path)
    with contextlib.closing(Checkpointer(tmp_path / 'checkpoints')) as checkpointer:
        learner = experiment.make_learner()
        state = checkpointer.restore(learner.save()).state
    handle = state['state'].agents.actor_state.environment.handle
    np.testing.assert_array_equal(handle, np.zeros((1, 1, 8)))
    own = learner.state.agents.actor_state.environment.handle
    learner.restore(state)
    np.testing.assert_array_equal(learner.state.agents.actor_state.environment.handle, own)  # Closed and used again.
    learner.advance(1)


def test_another_structure_is_refused_before_anything_is_changed(tmp_path, uninterrupted):
    before = {path: path.read_bytes() for path in uninterrupted.rglob('*') if path.is_file()}
    with pytest.raises(CheckpointError, match=r'params.* is float32\[1, 1, 16, 3\] in it and float32\[1, 1, 7, 3\]'):
        make_experiment(agent=make_agent(network=Network(MLP((7,))))).run(uninterrupted)
    assert {path: path.read_bytes() for path in uninterrupted.rglob('*') if path.is_file()} == before


@pytest.mark.parametrize('stops', [True, False])
def test_divergence_is_told_and_the_checkpoints_are_from_before(tmp_path, stops):
    rule = dataclasses.replace(update_rule(), optimiser=Optimiser(_explode_after(9), 1.0))
    experiment = make_experiment(
        agent=make_agent(update_rule=rule), evaluate_every=0, checkpoint_every=40, stop_when_not_finite=stops
    )
    if not stops:
        assert experiment.run(tmp_path) == 25
        return
    with pytest.raises(DivergedError, match=r'seed 0 was not a finite number within the 10 updates'):
        experiment.run(tmp_path)
    assert rows(tmp_path / 'train.csv')[-1]['learner_updates'] == '10'  # The row that shows it.
    assert all(np.all(np.isfinite(np.frombuffer(x, np.float32))) for x in _weights(experiment, tmp_path))


def _explode_after(num_updates):
    """A transform that does nothing, and in the end too much."""

    def update(updates, state, params=None):
        scale = jnp.where(state == num_updates, jnp.inf, 1e-3)
        return jax.tree.map(lambda x: x * scale, updates), state + 1

    return optax.GradientTransformation(lambda params: jnp.int32(0), update)


def _weights(experiment, directory):
    learner = Learner(experiment.agent)
    checkpointer = Checkpointer(directory / 'checkpoints')
    checkpoint = checkpointer.restore(learner.save())
    checkpointer.close()
    assert checkpoint.step == 8
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(checkpoint.state['state'].agents.params)]


def test_one_process_at_a_time(tmp_path):
    with contextlib.ExitStack() as stack:
        stack.enter_context(run_folder.locked(tmp_path / 'run'))
        with pytest.raises(gin_config.ConfigurationError, match=rf'another process \(process {os.getpid()}\)'):
            stack.enter_context(run_folder.locked(tmp_path / 'run'))
    with run_folder.locked(tmp_path / 'run'):
        (tmp_path / 'run' / 'config.gin.new').touch()  # Killed before it began.
        assert run_folder.check(tmp_path / 'run')
        (tmp_path / 'run' / 'notes.txt').touch()
        with pytest.raises(gin_config.ConfigurationError, match='holds no run'):
            run_folder.check(tmp_path / 'run')


def test_what_differs_is_listed():
    before = {'A': '1', 'm.X.b': '2', 'TOTAL_ENV_STEPS': '100'}
    folder = pathlib.Path('w')
    run_folder.check_same_run(before, dict(before), folder, extend=False)
    on_other_devices = {
        'agents.experiments.experiment.Experiment.placement': '@agents.placement.Placement()',
        'agents.placement.Placement.seeds': '2',
    }
    run_folder.check_same_run(before, before | on_other_devices, folder, extend=False)
    run_folder.check_same_run(before, before | {'TOTAL_ENV_STEPS': '101'}, folder, extend=True)
    with pytest.raises(gin_config.ConfigurationError, match='100 in w and 101 here: a larger one needs --extend'):
        run_folder.check_same_run(before, before | {'TOTAL_ENV_STEPS': '101'}, folder, extend=False)
    with pytest.raises(gin_config.ConfigurationError, match='can only become larger'):
        run_folder.check_same_run(before, before | {'TOTAL_ENV_STEPS': '99'}, folder, extend=True)
    with pytest.raises(gin_config.ConfigurationError, match=r'A = 1 there, 3 here; m\.Y = not set there, 4 here'):
        run_folder.check_same_run(before, before | {'A': '3', 'm.Y': '4'}, folder, extend=True)


def test_a_users_own_logger_sees_the_rows_and_tensorboard_goes_on(tmp_path):
    seen = []

    class Own:
        def __init__(self, label, run):
            assert run.directory == tmp_path
            self._label = label

        def write(self, data):
            seen.append((self._label, data['meta_updates']))

        def close(self):
            seen.append((self._label, 'closed'))

    experiment = make_experiment(loggers=(CSVLogger, TensorBoardLogger, Own), total_env_steps=4 * 20)
    experiment.run(tmp_path, should_stop=lambda: True)
    experiment.run(tmp_path, notify=lambda _: None)
    assert seen == [
        ('train', 2), ('train', 'closed'), ('eval', 'closed'), ('train', 4), ('eval', 4), ('train', 'closed'), ('eval', 'closed')
    ]  # fmt: skip
    assert len(list((tmp_path / 'tensorboard' / 'train').iterdir())) == 2
