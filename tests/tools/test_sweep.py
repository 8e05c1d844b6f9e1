"""tools/sweep.py as a person runs it."""

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

import tools.sweep
from tests.agents.experiments.test_sweeps import is_alive

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ['NUM_ENVS = 4', 'TOTAL_ENV_STEPS = 2_000', 'LOG_EVERY = 400', 'EVALUATE_EVERY = 0', 'CHECKPOINT_EVERY = 1_000']


def options(bindings=SMALL):
    return [part for binding in bindings for part in ('--gin_bindings', binding)]


def started(workdir):
    """When the configuration of each run was written last."""
    return {path.parent.name: path.stat().st_mtime_ns for path in workdir.glob('*/config.gin')}


def test_a_sweep_trains_its_runs_and_skips_them_when_asked_again(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ['--gin_file', 'gin/catch/actor_critic.gin', '--vary', 'SEED=0,5', '--seeds', '2', *options()]
    assert tools.sweep.main([*asked, '--workdir', 'W']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '2 runs, separate for SEED'
    assert lines[-1] == f'2 complete; results are in {tmp_path / "W"}'
    first = started(tmp_path / 'W')
    assert first.keys() == {'actor_critic-SEED=0', 'actor_critic-SEED=5'}
    table = (tmp_path / 'W' / 'actor_critic-SEED=0' / 'train.csv').read_text()
    assert len(table.splitlines()) == 1 + 5 * 2

    assert tools.sweep.main([*asked, '--workdir', 'W']) == 0
    assert tools.sweep.main(['--workdir', 'W']) == 0
    assert '2 of 2 runs are complete already' in capsys.readouterr().out
    assert started(tmp_path / 'W') == first

    assert tools.sweep.main([*asked, '--vary', 'NUM_ENVS=2', '--workdir', 'W']) == 2
    assert 'holds another sweep' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        ([], 'give --gin_file'),
        (['--vary', 'SEED=1,2'], '--gin_bindings need --gin_file or --variant'),
        (['--gin_file', 'gin/catch/actor_critic.gin', '--vary', 'SEED'], "must be of the form 'key=value,value'"),
        (['--gin_file', 'gin/catch/actor_critic.gin', '--vary', 'SEED='], 'a value is missing'),
        (['--gin_file', 'gin/catch/actor_critic.gin', *['--vary', 'SEED=1'] * 2], 'SEED is given twice'),
        (['--gin_file', 'gin/catch/none.gin'], 'is missing'),
        (['--variant', 'a=gin/catch/none.gin'], 'variant a: gin file'),
        (['--variant', 'a=gin/catch/actor_critic.gin', '--variant', 'a=x.gin'], 'two variants are named a'),
        (['--gin_file', 'gin/catch/actor_critic.gin', '--jobs', '0'], '--jobs must be at least 1'),
        (['--gin_file', 'gin/catch/actor_critic.gin', '--gpus', '1'], '--gpus is for --executor ray'),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(arguments, part, tmp_path, capsys):
    assert tools.sweep.main([*arguments, '--workdir', str(tmp_path / 'W')]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line
    assert not (tmp_path / 'W').exists()


def test_ray_that_is_not_installed_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    asked = ['--gin_file', 'gin/catch/actor_critic.gin', '--workdir', str(tmp_path / 'W')]
    assert tools.sweep.main([*asked, '--executor', 'ray']) == 2
    assert "pip install -e '.[distributed]'" in capsys.readouterr().err
    assert not (tmp_path / 'W').exists()


LONG = ['NUM_ENVS = 4', 'TOTAL_ENV_STEPS = 400_000', 'LOG_EVERY = 2_000', 'CHECKPOINT_EVERY = 4_000']


def command(workdir, *more):
    asked = ['--variant', 'a=gin/catch/actor_critic.gin', '--variant', 'b=gin/catch/meta_discount.gin']
    tool = str(ROOT / 'tools' / 'sweep.py')
    return [sys.executable, tool, *asked, '--workdir', str(workdir), *options(LONG), *more]


def processes_of(workdir):
    """Numbers of the processes that are alive and name a folder in their command lines."""
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
        try:
            if str(workdir).encode() in path.read_bytes() and is_alive(int(path.parent.name)):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def rows(workdir):
    """Tables of training without clocks."""
    lines = {path.parent.name: path.read_text().splitlines() for path in workdir.glob('*/train.csv')}
    clocks = {name: [table[0].split(',').index(clock) for clock in ('wall_time', 'steps_per_second')]
              for name, table in lines.items()}  # fmt: skip
    return {
        name: [[cell for i, cell in enumerate(line.split(',')) if i not in clocks[name]] for line in table]
        for name, table in lines.items()
    }


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    moments = random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(command(tmp_path / 'killed'), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(5, 40))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(1)
        assert not processes_of(tmp_path / 'killed')
    for workdir in (tmp_path / 'killed', tmp_path / 'once'):
        subprocess.run(command(workdir), check=True, stdout=subprocess.DEVNULL)
    assert rows(tmp_path / 'killed') == rows(tmp_path / 'once')


@pytest.mark.slow
def test_ray_gives_the_tables_of_the_local_executor(tmp_path):
    pytest.importorskip('ray')
    for workdir, more in ((tmp_path / 'ray', ['--executor', 'ray']), (tmp_path / 'local', [])):
        subprocess.run(command(workdir, *more), check=True, stdout=subprocess.DEVNULL)
    assert rows(tmp_path / 'ray') == rows(tmp_path / 'local')
