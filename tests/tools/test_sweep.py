"""tools/sweep.py as a person runs it."""

import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import pytest

import tools.sweep
from agents.experiments import ray_executor, sweep_folder
from components.types import ConfigurationError
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


@pytest.fixture
def made_up_ray(monkeypatch):
    """In the place of Ray, which tests need not have: addresses that it is asked for, none of which it can reach."""
    addresses = []

    def init(address, **_):
        addresses.append(address)
        raise RuntimeError('Version mismatch:\n  Ray: 2.1.')

    module = types.ModuleType('ray')
    module.exceptions = types.ModuleType('ray.exceptions')
    module.init = init
    for name, each in (('ray', module), ('ray.exceptions', module.exceptions)):
        monkeypatch.setitem(sys.modules, name, each)
    for name in ('RAY_ADDRESS', 'RAY_USE_TLS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ray_executor, '_SECONDS', 0.5)
    return addresses


SETTINGS = b'\0\0\0\4\0\0\0\0\0'


def answer_once(server, answer):
    connection, _ = server.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(answer)


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        (None, 'refused'),
        (b'', 'timed out'),
        (b'HTTP/1.1 400 Bad Request', 'what answers there is no Ray cluster'),
        (SETTINGS, 'Version mismatch: Ray: 2.1;'),
    ],
)
def test_a_ray_cluster_that_cannot_be_reached_is_one_line(made_up_ray, answer, reason, tmp_path, capsys):
    with socket.create_server(('127.0.0.1', 0)) as server:
        address = f'127.0.0.1:{server.getsockname()[1]}'
        if answer is None:
            server.close()
        if answer:
            thread = threading.Thread(target=answer_once, args=(server, answer))
            thread.start()
        asked = ['--gin_file', 'gin/catch/actor_critic.gin', '--workdir', str(tmp_path / 'W')]
        assert tools.sweep.main([*asked, '--executor', 'ray', '--address', address]) == 2
        if answer:
            thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: no Ray cluster can be reached at {address}: ')
    assert reason in line
    assert 'start one with `ray start --head`, or leave --address out' in line
    assert not (tmp_path / 'W').exists()


def test_without_an_address_a_new_ray_cluster_is_started(made_up_ray):
    with pytest.raises(ConfigurationError, match=r'^no Ray cluster can be started on this machine: Version mismatch'):
        ray_executor.RayExecutor()
    assert made_up_ray == ['local']


LONG = ['NUM_ENVS = 4', 'TOTAL_ENV_STEPS = 400_000', 'LOG_EVERY = 2_000', 'CHECKPOINT_EVERY = 4_000']
HALF = 5_000
"""Of the meta-updates of a long run."""


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


def is_below(number, ancestor):
    """Whether a process was started by another one, or by one that it has started."""
    while number not in (0, ancestor):
        try:
            number = int(pathlib.Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()[1])
        except OSError:
            return False
    return number == ancestor


def run_of(number):
    """Name of the run that a process trains."""
    arguments = pathlib.Path(f'/proc/{number}/cmdline').read_bytes().decode().split('\0')
    return pathlib.Path(arguments[arguments.index('--workdir') + 1]).name


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
def test_a_sweep_on_ray_that_is_stopped_and_killed_ends_with_the_tables_of_the_local_executor(tmp_path):
    pytest.importorskip('ray')
    workdir, on_ray = tmp_path / 'ray', command(tmp_path / 'ray', '--executor', 'ray')
    for number, status in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)):
        done = sweep_folder.newest_checkpoint(workdir / 'b')
        with subprocess.Popen(on_ray, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sweep:
            while sweep.poll() is None and sweep_folder.newest_checkpoint(workdir / 'b') == done:
                time.sleep(0.05)
            sweep.send_signal(number)
            printed = sweep.communicate()[0]
        assert sweep.returncode == status, printed
        while processes_of(workdir):
            time.sleep(0.05)  # They end with their tasks, which Ray ends.
    for folder, more in ((workdir, ['--executor', 'ray']), (tmp_path / 'local', [])):
        subprocess.run(command(folder, *more), check=True, stdout=subprocess.DEVNULL)
    assert rows(workdir) == rows(tmp_path / 'local')


@pytest.mark.slow
def test_runs_of_a_ray_node_that_is_lost_end_on_another_one(tmp_path):
    pytest.importorskip('ray')
    import ray.cluster_utils

    workdir, more = tmp_path / 'ray', ['--vary', 'SEED=0,1']
    cluster = ray.cluster_utils.Cluster()
    try:
        settings = {'num_cpus': 1, 'include_dashboard': False, 'object_store_memory': 100_000_000}
        _, lost = (cluster.add_node(**settings) for _ in range(2))
        (raylet,) = lost.all_processes['raylet']
        with subprocess.Popen(
            command(workdir, *more, '--executor', 'ray', '--address', cluster.address),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as sweep:  # fmt: skip
            trained = []
            while sweep.poll() is None and not (trained and list(workdir.glob('logs/*.complete'))):
                time.sleep(0.05)
                there = [number for number in processes_of(workdir) if is_below(number, raylet.process.pid)]
                trained = [n for n in there if 0 < sweep_folder.newest_checkpoint(workdir / run_of(n)) < HALF]
            (name,) = {run_of(number) for number in trained}
            complete = {path.stem for path in workdir.glob('logs/*.complete')}
            before = started(workdir)
            cluster.remove_node(lost, allow_graceful=False)
            printed = sweep.communicate()[0]
        assert sweep.returncode == 0, printed
        assert f'{name}: lost, retried' in printed
        counts = {run: printed.count(f'{run}: started') for run in before}
        assert counts == {run: 1 + (run == name) for run in before}
        assert complete
        assert all(started(workdir)[run] == before[run] for run in complete)
        assert 'resuming after' in (workdir / 'logs' / f'{name}.errors.txt').read_text()
        assert not processes_of(workdir)
    finally:
        cluster.shutdown()
    subprocess.run(command(tmp_path / 'local', *more), check=True, stdout=subprocess.DEVNULL)
    assert len(rows(workdir)) == 4
    assert rows(workdir) == rows(tmp_path / 'local')
