"""Sweeps: what their runs are, and how these are started, retried, stopped and continued."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from agents.analysis import run_tables
from agents.experiments import executors, sweep_folder, sweep_table, sweeps
from agents.experiments.executors import LocalExecutor, errors_beside
from agents.experiments.sweep_folder import Request
from agents.experiments.sweep_scheduler import Progress, State, SweepScheduler, command_of
from agents.experiments.sweeps import Sweep, SweepRun, Variant
from components.types import ConfigurationError, UserError

CATCH = Variant(['gin/catch/actor_critic.gin'])


def sweep(grid=None, **fields):
    return Sweep(variants={'catch': CATCH}, grid=grid or {}, **fields)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('NUM_INNER_STEPS=1, 3', ('NUM_INNER_STEPS', [1, 3])),
        ('a/b.C.d=(1, 2),[3],"x,y",{"k": 1}', ('a/b.C.d', [(1, 2), [3], 'x,y', {'k': 1}])),
        ('a.b=@c.D(),%E,None,-1e-3', ('a.b', ['@c.D()', '%E', None, -1e-3])),
        ('a.b=1_000', ('a.b', [1000])),
    ],
)
def test_values_of_the_command_line_are_those_of_gin(text, expected):
    assert sweeps.parse_values(text) == expected


@pytest.mark.parametrize('text', ['a', '=1', 'a=', 'a=1,', 'a=foo', 'a=(1', 'a="x', 'a=1;2'])
def test_values_that_are_none_are_an_error_of_one_line(text):
    with pytest.raises(ConfigurationError, match=r'^--vary [^\n]*$'):
        sweeps.parse_values(text)


def test_paths_are_replicas_of_one_run_and_other_keys_separate_runs():
    asked = sweep({'optimiser.learning_rate': [1e-3, 5e-4], 'NUM_INNER_STEPS': [1, 3]}, num_seeds=5)
    runs = sweeps.planned_runs(asked)
    assert [run.name for run in runs] == ['catch-NUM_INNER_STEPS=1', 'catch-NUM_INNER_STEPS=3']
    assert runs[1].lines == [
        'NUM_INNER_STEPS = 3',
        'NUM_SEEDS = 5',
        "experiment.Experiment.replicas = {'optimiser.learning_rate': [0.001, 0.0005]}",
    ]
    assert sweeps.describe(asked, runs) == (
        '2 runs, separate for NUM_INNER_STEPS; each is one program for 2 values of optimiser.learning_rate'
    )


def test_several_paths_are_replicas_of_all_combinations():
    (run,) = sweeps.planned_runs(sweep({'optimiser.learning_rate': [1, 2], 'objective.value_cost': [3, 4]}))
    assert run.replicas == {'optimiser.learning_rate': [1, 1, 2, 2], 'objective.value_cost': [3, 4, 3, 4]}


def test_zipped_keys_go_together():
    grid = {'optimiser.learning_rate': [1, 2, 3], 'a.B.c': ['@d.E()', '@d.E()/2', 'text']}
    runs = sweeps.planned_runs(sweep(grid, zipped=True))
    assert [(run.bindings, run.replicas) for run in runs] == [
        (['a.B.c = @d.E()'], {'optimiser.learning_rate': [1]}),
        (['a.B.c = @d.E()/2'], {'optimiser.learning_rate': [2]}),
        (["a.B.c = 'text'"], {'optimiser.learning_rate': [3]}),
    ]


def test_names_are_unique_and_safe():
    variants = {'logs': CATCH, 'Logs': CATCH, 'a/b': CATCH, 'a b': CATCH, '..': CATCH, 'x' * 200: CATCH}
    names = [run.name for run in sweeps.planned_runs(Sweep(variants=variants, grid={'a/b.C.d': ['e/../f', 'e/..:f']}))]
    names += [run.name for run in sweeps.planned_runs(Sweep(variants=variants))]
    assert len({name.lower() for name in names}) == len(names)
    assert all(re.fullmatch(r'[\w=-][\w.=-]{0,102}', name, re.ASCII) for name in names)
    plain = [run.name.lower() for run in sweeps.planned_runs(Sweep(variants=variants))]
    assert len(set(plain)) == len(variants)
    assert 'logs' not in plain


@pytest.mark.parametrize(
    ('fields', 'part'),
    [
        ({'variants': {}}, 'variants is empty'),
        ({'grid': {'a': []}}, 'a has no values'),
        ({'grid': {'a': [1, 2, 1]}}, 'the value 1 twice'),
        ({'grid': {'a': [1, 2], 'b': [1]}, 'zipped': True}, 'a has 2, b has 1'),
        ({'grid': {'a': 'text'}}, 'grid must be'),
        ({'num_seeds': 0}, 'num_seeds must be'),
    ],
)
def test_a_sweep_that_cannot_be_is_one_line(fields, part):
    with pytest.raises(UserError, match=part) as error:
        Sweep(**{'variants': {'catch': CATCH}, **fields})
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('value', [True, 'x', None])
def test_a_value_of_a_path_is_a_number(value):
    with pytest.raises(ConfigurationError, match=r'optimiser\.learning_rate is a path to a number'):
        sweeps.planned_runs(sweep({'optimiser.learning_rate': [value]}))


@pytest.mark.parametrize(
    ('variants', 'grid', 'part'),
    [
        ({'good': CATCH, 'bad': Variant(CATCH.gin_files, ['GAMA = 1'])}, {}, 'variant bad: macro GAMA'),
        ({'v': CATCH}, {'catch.Catch.column': [3]}, 'variant v, run v-column=3: .*column'),
        ({'v': CATCH}, {'objective.returns.bootstrap': [1.0]}, 'leads to no number: .*optimiser.learning_rate'),
        ({'v': CATCH}, {'optimiser.learning_rate': [1e-3, -1.0]}, 'variant v: .*learning_rate. must be'),
        (
            {'v': CATCH},
            {'meta_optimiser.optimiser.learning_rate': [1.0]},
            'leads to no number: no such field; there is',
        ),
        ({'v': CATCH}, {'objective.nothing': [1.0]}, 'objective.nothing leads to no number: no such field'),
    ],
)
def test_what_cannot_be_built_names_its_variant(variants, grid, part):
    runs = sweeps.planned_runs(Sweep(variants=variants, grid=grid))
    with pytest.raises(ConfigurationError, match=part) as error:
        sweeps.check_runs(runs)
    assert len(str(error.value).splitlines()) == 1


def test_replicas_are_checked_as_one_run():
    runs = sweeps.planned_runs(sweep({'optimiser.learning_rate': [1e-3, 5e-4]}))
    assert [run.num_meta_steps for run in sweeps.check_runs(runs)] == [2_000_000 // (64 * 10)]


def test_two_variants_of_one_name_are_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match='two variants are named meta_discount'):
        sweeps.sweep_of_options([], ['gin/catch/meta_discount.gin', 'gin/snake/meta_discount.gin'], [], [])
    (tmp_path / 'twice.gin').write_text(
        'from __gin__ import dynamic_registration\n'
        'from agents.experiments import sweeps\n'
        "sweeps.Sweep.variants = {'a': @sweeps.Variant(), 'a': @sweeps.Variant()}\n"
        "sweeps.Variant.gin_files = ['gin/catch/actor_critic.gin']\n"
    )
    with pytest.raises(ConfigurationError, match="line 3: the dictionary has the key 'a' twice"):
        sweeps.load_sweep([tmp_path / 'twice.gin'])


def test_options_are_added_to_what_a_file_says():
    asked = sweeps.sweep_of_options(
        ['gin/ablations/smoke.gin'], ['more=gin/catch/self_tuning.gin'], ['NUM_INNER_STEPS=1,2'], ['SEED = 3'],
        num_seeds=None, retries=4,
    )  # fmt: skip
    assert list(asked.variants) == ['fixed', 'learned', 'more']
    assert all(variant.bindings[-1] == 'SEED = 3' for variant in asked.variants.values())
    assert (asked.num_seeds, asked.retries, asked.grid) == (2, 4, {'NUM_INNER_STEPS': [1, 2]})


# The folder.


def planned(*names):
    return [SweepRun(name, name, ['f.gin'], ['A = 1'], {'x.y': [1.0, 2.0]}, 10) for name in names]


def test_the_folder_remembers_what_was_asked_for(tmp_path):
    assert sweep_folder.read(tmp_path / 'new') is None
    request = Request(planned('a', 'b'), 2)
    sweep_folder.write(tmp_path, request)
    assert sweep_folder.read(tmp_path) == request
    sweep_folder.check_same(request.runs, planned('a', 'b'), tmp_path)
    for other, part in ((planned('a'), 'b is only there'), (planned('a', 'b', 'c'), 'c is only here')):
        with pytest.raises(ConfigurationError, match=f'holds another sweep: run {part}'):
            sweep_folder.check_same(request.runs, other, tmp_path)
    changed = [planned('a')[0]._replace(bindings=['A = 2']), *planned('b')]
    with pytest.raises(ConfigurationError, match='run a is another one there'):
        sweep_folder.check_same(request.runs, changed, tmp_path)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"runs": [{"name": 1}], "retries": 1}'])
def test_a_damaged_folder_is_one_line(tmp_path, text):
    (tmp_path / 'sweep.json').write_text(text)
    with pytest.raises(ConfigurationError, match=r'sweep.json is damaged'):
        sweep_folder.read(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / 'thesis.tex').touch()
    with pytest.raises(ConfigurationError, match='holds no sweep'):
        sweep_folder.read(tmp_path)


def test_a_run_is_complete_by_its_last_checkpoint(tmp_path):
    (run,) = planned('a')
    (tmp_path / 'a' / 'checkpoints' / '9').mkdir(parents=True)
    (tmp_path / 'a' / 'config.gin').touch()
    assert not sweep_folder.is_complete(tmp_path, run)
    (tmp_path / 'a' / 'checkpoints' / '10').mkdir()
    assert sweep_folder.is_complete(tmp_path, run)


def test_the_command_is_that_of_a_run(tmp_path):
    (run,) = planned('a')
    assert command_of(run, tmp_path)[2:] == [
        '--workdir', str(tmp_path), '--gin_file', 'f.gin', '--gin_bindings', 'A = 1',
        '--gin_bindings', "experiment.Experiment.replicas = {'x.y': [1.0, 2.0]}",
    ]  # fmt: skip


# Processes: a run that does what its name says.

PLAY = """
import os, pathlib, signal, sys, time
directory, name = pathlib.Path(sys.argv[1]), sys.argv[2]
directory.mkdir(exist_ok=True)
(directory / 'config.gin').touch()
(directory / f'start_{time.monotonic_ns()}').touch()
is_first = len(list(directory.glob('start_*'))) == 1
if name == 'wrong':
    print('one line', file=sys.stderr)
    print('error: the last line', file=sys.stderr)
    sys.exit(2)
if name == 'killed' or name == 'killed_once' and is_first:
    os.kill(os.getpid(), signal.SIGKILL)
if name == 'preempted' and is_first:
    sys.exit(75)
if name == 'long':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (directory / 'ready').touch()
    time.sleep(60)
"""


class Silent:
    def __init__(self):
        self.lines = []

    def notify(self, line):
        self.lines.append(line)

    def show(self):
        pass


def play(tmp_path, *names, retries=1, jobs=4, should_stop=lambda: False):
    """States and messages of runs by name, how often each was started, and the lines that were shown."""
    sweep_folder.write(tmp_path, Request(planned(*names), retries))
    scheduler = SweepScheduler(
        tmp_path, planned(*names), LocalExecutor(jobs), retries=retries,
        command=lambda run, directory: [sys.executable, '-S', '-c', PLAY, str(directory), run.name],
    )  # fmt: skip
    silent = Silent()
    scheduler.train(should_stop, silent)
    states = {progress.run.name: (progress.state, progress.message) for progress in scheduler.progress}
    starts = {name: len(list((tmp_path / name).glob('start_*'))) for name in names}
    return states, starts, silent.lines


def test_a_failure_stops_no_other_and_only_what_was_killed_is_retried(tmp_path):
    names = ('wrong', 'killed', 'killed_once', 'preempted', 'good')
    states, starts, _ = play(tmp_path, *names, jobs=2)
    assert states == {
        'wrong': (State.FAILED, 'exit status 2: error: the last line'),
        'killed': (State.FAILED, 'ended by SIGKILL'),
        'killed_once': (State.COMPLETE, ''),
        'preempted': (State.COMPLETE, ''),
        'good': (State.COMPLETE, ''),
    }
    assert starts == {'wrong': 1, 'killed': 2, 'killed_once': 2, 'preempted': 2, 'good': 1}
    failures = {run.name: run.failure for run in run_tables.listed_runs([tmp_path]) if run.failure is not None}
    assert failures == {name: states[name][1] for name in ('wrong', 'killed')}

    states, starts, lines = play(tmp_path, *names, retries=0)
    assert starts == {'wrong': 2, 'killed': 3, 'killed_once': 2, 'preempted': 2, 'good': 1}
    assert lines[0] == '3 of 5 runs are complete already'


def test_asked_to_stop_it_ends_what_runs_and_starts_nothing_more(tmp_path):
    states, starts, _ = play(tmp_path, 'long', 'good', jobs=1, should_stop=(tmp_path / 'long' / 'ready').exists)
    assert states == {'long': (State.STOPPED, ''), 'good': (State.STOPPED, '')}
    assert starts == {'long': 1, 'good': 0}
    assert [run.failure for run in run_tables.listed_runs([tmp_path])] == [None, None]
    assert (tmp_path / 'logs' / 'long.txt').exists()


def test_cores_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, '_cores', lambda: [0, 1, 2, 3, 4])
    assert LocalExecutor(2)._shares == [[0, 2, 4], [1, 3]]
    assert LocalExecutor(cpus=2)._shares == [[0, 2, 4], [1, 3]]
    assert LocalExecutor(7)._shares == [[0], [1], [2], [3], [4], [0], [1]]
    core = min(os.sched_getaffinity(0))
    output = tmp_path / 'out.txt'
    show = [sys.executable, '-S', '-c', 'import os, sys; print(os.sched_getaffinity(0)); print(1, file=sys.stderr)']
    assert executors.start(show, output, [core]).wait() == 0
    assert output.read_text() == f'{{{core}}}\n'
    assert errors_beside(output).read_text() == '1\n'


def is_alive(number):
    try:
        state = pathlib.Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()[0]
    except FileNotFoundError:
        return False
    return state != 'Z'


@pytest.mark.skipif(sys.platform != 'linux', reason='needs prctl')
def test_no_process_outlives_a_sweep_that_is_killed(tmp_path):
    program = (
        'import pathlib, sys, time; from agents.experiments.executors import start\n'
        'command = "import pathlib, time; pathlib.Path(chr(114)).touch(); time.sleep(600)"\n'
        'print(start([sys.executable, "-S", "-c", command], pathlib.Path("out.txt")).pid, flush=True)\n'
        'time.sleep(600)'
    )
    environment = {**os.environ, 'PYTHONPATH': str(pathlib.Path(__file__).parents[3])}
    parent = subprocess.Popen(
        [sys.executable, '-c', program], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    while not (tmp_path / 'r').exists():
        time.sleep(0.01)  # Until it has become the command.
    assert is_alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in range(500):
        if not is_alive(child):
            break
        time.sleep(0.02)
    assert not is_alive(child)


# What is shown.


def test_progress_is_read_from_the_newest_whole_rows(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'train.csv').write_text(
        'seed,env_steps,meta_updates,steps_per_second,episode_return\n'
        '0,50,2,10,1\n1,50,2,10,2\n0,100,4,20,3\n1,100,4,20,\n0,150,6,'
    )
    row = sweep_table.last_row(tmp_path / 'a', 10)
    assert row == sweep_table.LastRow(2, 0.4, 3.0, 20.0, 150 * 2 / 20)
    assert sweep_table.last_row(tmp_path / 'b', 10) is None
    progress = [Progress(run, State.RUNNING) for run in planned('a', 'b')]
    assert sweep_table.summary(tmp_path, progress) == '2 running; a 40%, return 3, 20 steps/s, 15 s left'
    assert len(sweep_table.table(tmp_path, progress).rows) == 2
    for broken in ('', 'seed\n', 'seed,env_steps\n1,2\n', '\0\n'):
        (tmp_path / 'a' / 'train.csv').write_text(broken)
        assert sweep_table.last_row(tmp_path / 'a', 10) is None


def test_the_request_is_readable(tmp_path):
    sweep_folder.write(tmp_path, Request(planned('a'), 1))
    assert json.loads((tmp_path / 'sweep.json').read_text())['runs'][0]['bindings'] == ['A = 1']
