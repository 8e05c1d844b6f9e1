"""Processes that train one agent together, against one process with as many devices."""

import csv
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from agents import processes
from agents.experiments.checkpoints import Checkpointer
from agents.experiments.experiment import CHECKPOINTS

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 8
NUM_META_STEPS = 60
META_STEP = 20 * 8  # Environment steps: unroll length x environments.
BINDINGS = (
    'NUM_ENVS = 8',
    'UNROLL_LENGTH = 20',
    f'TOTAL_ENV_STEPS = {NUM_META_STEPS * META_STEP}',
    f'LOG_EVERY = {META_STEP}',
    f'EVALUATE_EVERY = {30 * META_STEP}',
    f'CHECKPOINT_EVERY = {10 * META_STEP}',
)


def start(workdir, *options):
    bindings = [part for line in BINDINGS for part in ('--gin_bindings', line)]
    command = [sys.executable, 'tools/run.py', '--gin_file', 'gin/catch/meta_discount.gin', *bindings]
    return subprocess.Popen(
        [*command, '--workdir', str(workdir), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(workdir, *options_of_second):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    options = ['--cpu_devices', '1', '--coordinator', address, '--num_processes', '2', '--patience', str(PATIENCE)]
    return [
        start(workdir, *options, '--process_id', '0'),
        start(workdir, *options, '--process_id', '1', *options_of_second),
    ]


def statuses(started, timeout=600):
    outputs = [process.communicate(timeout=timeout)[0] for process in started]
    print(*outputs, sep='\n---\n')
    return [process.returncode for process in started]


def wait_for_checkpoint(workdir, number, started):
    while not (workdir / CHECKPOINTS / f'{number}').is_dir():
        assert all(process.poll() is None for process in started), statuses(started)
        time.sleep(0.02)


def results(workdir):
    """Arrays of the last checkpoint, and rows without what a clock says."""
    checkpointer = Checkpointer(workdir / CHECKPOINTS, read_only=True)
    assert checkpointer.latest() == NUM_META_STEPS
    state = checkpointer.read()['state']
    checkpointer.close()
    rows = []
    for name in ('train.csv', 'eval.csv'):
        with (workdir / name).open(newline='') as file:
            clocks = ('wall_time', 'steps_per_second')
            rows += [{key: x for key, x in row.items() if key not in clocks} for row in csv.DictReader(file)]
    return state, rows


def assert_same(workdir, expected):
    (state, rows), (other_state, other_rows) = results(workdir), expected
    assert rows == other_rows

    def check(x, y):
        if isinstance(x, dict):
            assert x.keys() == y.keys()
            for key in x:
                check(x[key], y[key])
        elif isinstance(x, list | tuple):
            for a, b in zip(x, y, strict=True):
                check(a, b)
        elif x is not None:
            np.testing.assert_array_equal(x, y)

    check(state, other_state)


def test_a_single_process_agrees_with_itself_and_waits_for_nobody():
    assert (processes.count(), processes.is_first(), processes.leave(3)) == (1, True, 3)
    assert (processes.largest(15), processes.from_first({'a': 1})) == (15, {'a': 1})
    assert processes.together(results) is results
    processes.check_equal({'A': '1'})


def test_a_coordinator_that_does_not_answer_is_one_line(tmp_path):
    with socket.socket() as taken:  # No service listens at this port.
        taken.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{taken.getsockname()[1]}'
        one = start(
            tmp_path / 'run', '--coordinator', address, '--num_processes', '2', '--process_id', '1', '--patience', '1'
        )
        output = one.communicate(timeout=300)[0]
    assert one.returncode == processes.LOST
    assert f'error: no coordinator (--process_id 0) answers at {address} within 6 s' in output


@pytest.fixture(scope='module')
def expected(tmp_path_factory):
    """Of one process with two devices."""
    workdir = tmp_path_factory.mktemp('one') / 'run'
    assert statuses([start(workdir, '--cpu_devices', '2')]) == [0]
    return results(workdir)


@pytest.mark.slow
def test_two_processes_are_one_with_two_devices_bit_by_bit(tmp_path, expected):
    assert statuses(start_two(tmp_path / 'run')) == [0, 0]
    assert_same(tmp_path / 'run', expected)


@pytest.mark.slow
@pytest.mark.parametrize('number', [0, 1])
@pytest.mark.parametrize('name', ['SIGKILL', 'SIGSTOP'])
def test_a_lost_process_ends_the_other_and_both_resume(tmp_path, expected, name, number):
    started = start_two(tmp_path / 'run')
    wait_for_checkpoint(tmp_path / 'run', 20, started)
    started[number].send_signal(signal.Signals[name])
    asked = time.monotonic()
    assert statuses([started[1 - number]], timeout=60) == [processes.LOST]
    assert time.monotonic() - asked < 60
    started[number].kill()
    started[number].wait()
    again = start_two(tmp_path / 'run') if number else [start(tmp_path / 'run', '--cpu_devices', '2')]
    assert statuses(again) == [0] * len(again)
    assert_same(tmp_path / 'run', expected)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_with_a_checkpoint(tmp_path, expected):
    started = start_two(tmp_path / 'run')
    wait_for_checkpoint(tmp_path / 'run', 10, started)
    started[1].terminate()
    assert statuses(started, timeout=60) == [128 + signal.SIGTERM] * 2
    assert statuses([start(tmp_path / 'run', '--cpu_devices', '2')]) == [0]
    assert_same(tmp_path / 'run', expected)


@pytest.mark.slow
def test_processes_with_different_configurations_are_refused_before_anything_is_built(tmp_path):
    started = start_two(tmp_path / 'run', '--seed', '3')
    outputs = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [2, 2]
    assert all('processes 0 and 1 were given different configurations: SEED = 0 and 3' in out for out in outputs)
    assert not (tmp_path / 'run').exists()
