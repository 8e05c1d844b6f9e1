"""tools/run.py as a person runs it: in a process of its own, from another working directory."""

import contextlib
import csv
import os
import pathlib
import shlex
import signal
import subprocess
import sys

import pytest

import tools.run
from agents.experiments import launch, outputs, run_folder
from agents.experiments.launch import SIGNALS
from tests.helpers.documented_metrics import undocumented

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = [
    'NUM_ENVS = 4',
    'TOTAL_ENV_STEPS = 2_000',
    'LOG_EVERY = 500',
    'EVALUATE_EVERY = 1_000',
    'CHECKPOINT_EVERY = 1_000',
]


def command(*arguments, bindings=SMALL):
    options = [part for binding in bindings for part in ('--gin_bindings', binding)]
    return [sys.executable, str(ROOT / 'tools' / 'run.py'), *arguments, *options]


def run(cwd, *arguments, bindings=SMALL):
    return subprocess.run(
        command(*arguments, bindings=bindings), cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


@contextlib.contextmanager
def running(cwd, *arguments, bindings=SMALL):
    """A run under way, past its first row; it handles signals whatever the process of the tests ignores, and is
    ended."""
    reset = f'import os, signal, sys; [signal.signal(n, signal.SIG_DFL) for n in {list(map(int, SIGNALS))}]'
    start = [sys.executable, '-c', f'{reset}; os.execv(sys.argv[1], sys.argv[1:])']
    process = subprocess.Popen(
        [*start, *command(*arguments, bindings=bindings)],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while ' s left' not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_a_run_from_another_directory_leaves_all_its_files(tmp_path):
    done = run(tmp_path, '--gin_file', 'gin/catch/meta_discount.gin', '--workdir', 'here', '--seed', '3',
               bindings=[*SMALL, 'NUM_SEEDS = 2'])  # fmt: skip
    assert done.returncode == 0, done.stderr
    workdir = tmp_path / 'here'
    assert done.stdout.splitlines()[-1] == f'results are in {workdir}'
    assert 'objective.returns.discount 0.' in done.stdout
    assert {path.name for path in workdir.iterdir()} == {
        '.lock', 'config.gin', 'operative_config.gin', 'train.csv', 'eval.csv', 'tensorboard', 'checkpoints'
    }  # fmt: skip

    train = rows(workdir / 'train.csv')
    assert list(train[0])[:6] == [
        'seed', 'env_steps', 'learner_updates', 'meta_updates', 'wall_time', 'steps_per_second'
    ]  # fmt: skip
    # 50 meta-steps of 4 x 10 steps, in log periods of 12: five rows for each of two seeds.
    assert [(row['seed'], row['env_steps']) for row in train[-2:]] == [('3', '2000'), ('4', '2000')]
    assert len(train) == 2 * 5
    assert all(None not in row and row['meta_gradient/objective.returns.discount'] for row in train)
    evaluations = rows(workdir / 'eval.csv')
    assert [row['meta_updates'] for row in evaluations] == ['36', '36', '50', '50']
    assert undocumented([*train[0], *evaluations[0]]) == []
    assert {int(path.name) for path in (workdir / 'checkpoints').iterdir()} == {36, 50}
    assert 'SEED = 3' in (workdir / 'config.gin').read_text()
    assert 'torsos.MLP.hidden_sizes = (64, 64)' in (workdir / 'operative_config.gin').read_text()
    assert 'network.Network.shared = True' in (workdir / 'operative_config.gin').read_text()  # A default.

    before = {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}
    again = run(tmp_path, '--gin_file', 'gin/catch/meta_discount.gin', '--workdir', 'here')
    assert again.returncode == 2
    (line,) = again.stderr.splitlines()  # Of a process: nothing that it imports says more.
    assert 'NUM_SEEDS = 2 there, 1 here; SEED = 3 there, 0 here' in line
    assert {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()} == before


def test_a_run_that_was_terminated_goes_on_with_nothing_but_its_folder(tmp_path):
    long = [*SMALL, 'TOTAL_ENV_STEPS = 500_000_000']
    arguments = ['--gin_file', 'gin/catch/meta_discount.gin', '--workdir', str(tmp_path / 'run')]
    with running(tmp_path, *arguments, bindings=long) as process:
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=120)
    assert process.returncode == 143, error
    assert out.splitlines()[-1] == f'stopped; results so far are in {tmp_path / "run"}'
    train = rows(tmp_path / 'run' / 'train.csv')
    assert all(None not in row.values() for row in train)  # No half rows.
    last = train[-1]['meta_updates']
    assert (tmp_path / 'run' / 'checkpoints' / last).is_dir()

    with running(tmp_path, '--workdir', str(tmp_path / 'run'), bindings=[]) as process:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert f'resuming after {int(last):,} of 12,500,000 meta-updates' in error
    updates = [int(row['meta_updates']) for row in rows(tmp_path / 'run' / 'train.csv')]
    assert updates == [*range(12, updates[-1] + 1, 12)]
    assert updates[-1] > int(last)


@pytest.mark.parametrize(
    ('arguments', 'bindings', 'part'),
    [
        (['--gin_file', 'gin/nothing.gin'], [], 'searched'),
        (['--gin_file', 'gin/catch/meta_discount.gin'], ['NUM_SEDS = 1'], 'did you mean NUM_SEEDS'),
        (['--gin_file', 'gin/catch/meta_discount.gin'], ['TOTAL_ENV_STEPS = 10'], 'less than one meta-step'),
        (['--gin_file', 'gin/base/agents/actor_critic.gin'], [], 'is required and not set'),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_nothing_is_written(
    tmp_path, arguments, bindings, part, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert tools.run.main(command(*arguments, bindings=bindings)[2:]) == 2
    out, error = capsys.readouterr()
    assert out == ''
    (line,) = error.splitlines()
    assert line.startswith('error: ')
    assert part in line
    assert not list(tmp_path.iterdir())


def test_a_dead_meta_parameter_is_told_in_one_line(tmp_path, capsys):
    binding = "meta_parameters.MetaParameterSet.parameters = {'objective.returns.lambda_': @meta_parameters.Scalar()}"
    # With one step a trajectory lambda has nothing to mix.
    arguments = ['--gin_file', 'gin/catch/meta_discount.gin', '--workdir', str(tmp_path / 'run')]
    assert tools.run.main(command(*arguments, bindings=[*SMALL, 'UNROLL_LENGTH = 1', binding])[2:]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'objective.returns.lambda_': its meta-gradient is exactly zero" in line
    assert 'objective.returns.discount' in line


def test_a_file_in_the_way_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path('file').write_text('')
    assert tools.run.main(command('--gin_file', 'gin/catch/meta_discount.gin', '--workdir', 'file/run')[2:]) == 2
    assert 'cannot write to' in capsys.readouterr().err


def test_a_start_that_failed_does_not_claim_its_folder(tmp_path, capsys):
    arguments = ['--gin_file', 'gin/catch/meta_discount.gin', '--workdir', str(tmp_path / 'run')]
    # With two rows the ball is caught or missed in one step, and the discount has no effect.
    failing, corrected = ([*SMALL, 'LOG_EVERY = 480', f'catch.Catch.rows = {rows}'] for rows in (2, 5))
    assert tools.run.main(command(*arguments, bindings=failing)[2:]) == 2
    assert 'exactly zero' in capsys.readouterr().err
    assert (tmp_path / 'run' / 'config.gin').exists()
    assert tools.run.main(command(*arguments, bindings=corrected)[2:]) == 0
    assert 'Catch.rows = 5' in (tmp_path / 'run' / 'config.gin').read_text()
    # Now it holds rows.
    assert tools.run.main(command(*arguments, bindings=failing)[2:]) == 2
    assert 'Catch.rows = 5 there, 2 here' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('files', 'has_progress'),
    [
        ({}, False),
        ({'train.csv': ''}, False),
        ({'train.csv': 'seed,env_steps\n'}, False),
        ({'train.csv': 'seed,env_steps\n0,1\n'}, True),
        ({'eval.csv': 'seed,env_steps\n0,1\n'}, True),
        ({'checkpoints/36/state': ''}, True),
        ({'checkpoints/36.damaged/state': ''}, True),
        ({'checkpoints/36.orbax-checkpoint-tmp-0/state': ''}, False),
    ],
)
def test_rows_and_checkpoints_are_progress(files, has_progress, tmp_path):
    for name, text in {'config.gin': '', **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert run_folder.has_progress(tmp_path) == has_progress


@pytest.fixture
def handlers():
    """Of signals the default ones, whatever the process of the tests ignores; puts those back."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures('handlers')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_first_signal_asks_to_stop_and_a_second_one_ends_the_process(number, capsys):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As `nohup` starts it.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    with launch.StopOnSignal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert stop.signal == number
        assert 'once more to stop at once' in capsys.readouterr().err
        assert {signal.getsignal(other) for other in SIGNALS if other != signal.SIGHUP} == {signal.SIG_DFL}
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert {signal.getsignal(other) for other in (signal.SIGINT, signal.SIGUSR1)} == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGTERM) not in (before, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize('redirection', ['>&-', '>/dev/full', '>&- 2>&-', '>/dev/full 2>/dev/full'])
def test_a_run_whose_output_is_lost_trains_to_its_end(redirection, tmp_path):
    words = shlex.join(command('--gin_file', 'gin/catch/actor_critic.gin', '--workdir', str(tmp_path / 'run')))
    assert subprocess.run(f'{words} {redirection}', shell=True, timeout=300, check=False).returncode == 0
    assert rows(tmp_path / 'run' / 'train.csv')[-1]['env_steps'] == '2000'


def test_a_stream_that_nobody_reads_is_discarded(tmp_path):
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, 'w')
    outputs.say('a line', stream)
    outputs.say('another', stream)
    assert not outputs.is_lost(stream)
    stream.close()
    outputs.say('after it was closed', stream)
