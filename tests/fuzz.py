"""Starts runs with wrong values and damaged gin files, and checks that each trains or ends in one line.

    python tests/fuzz.py bindings --tries 2000
    python tests/fuzz.py bindings --gin_file gin/catch/meta_discount.gin --name learning_rate
    python tests/fuzz.py files --tries 200

`bindings` binds every field of every component of each gin file, and every macro, to each of some twenty values of
wrong types, out of range, infinite, or in containers. `files` cuts gin files, deletes, repeats and swaps their lines,
changes their characters and encodings, and adds circles of includes and of macros, and deep nesting; their bindings are
lines or in blocks. Tries are drawn at random if they are fewer than all. Each is a run of its own: its status must be
0, 2 or 3 within the time limit, or it must train by then, without a traceback, and with one line that says why where it
is not 0. Prints a line for each that does not, and a count of statuses. Exit status: 0 if all hold, 1 if not.
"""

import argparse
import collections
import concurrent.futures
import multiprocessing
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import tools.run
from agents.experiments import gin_config, provenance
from agents.experiments.experiment import Experiment
from tests.helpers.gin_text import SPELLINGS, respelled
from tools.command_line import Parser, run_command

VARIANTS = (
    'gin/catch/self_tuning.gin',
    'gin/snake/bootstrapped_outer_critic.gin',
    'gin/random_walk/frodo.gin',
    'gin/grid_worlds/lpg.gin',
    'gin/off_policy/v_trace.gin',
    'gin/bandits/independent.gin',
)

VALUES = (
    'None', 'True', 'False', '0', '1', '-1', '0.5', '1.5', '-0.5', '1e999', '-1e999', '1e300', '1e18', '10 ** 18',
    '1' + 18 * '0',
    '2147483648', "'text'", "'False'", "''", '[1]', '()', '{}', "{'a': 1}", '[None]', "b'x'", '1j',
    '@nothing', '%NOTHING',
)  # fmt: skip

PROGRESS = ' s left'
"""In each line that a run prints while it trains."""

SMALL = (
    'TOTAL_ENV_STEPS = 4_000',
    'NUM_ENVS = 4',
    'UNROLL_LENGTH = 4',
    'NUM_SEEDS = 1',
    'LOG_EVERY = 2_000',
    'EVALUATE_EVERY = 0',
    'CHECKPOINT_EVERY = 0',
)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _fuzz, arguments)


def _fuzz(args: argparse.Namespace) -> int:
    if args.what == 'files':
        args.tries = min(args.tries, 200)
    statuses: collections.Counter[int | None] = collections.Counter()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        tries = (binding_tries if args.what == 'bindings' else file_tries)(args, pathlib.Path(folder))
        for name, command in tries:
            status, output, seconds = attempt([*command, '--workdir', f'{folder}/run'], args.seconds)
            shutil.rmtree(f'{folder}/run', ignore_errors=True)
            statuses[status] += 1
            if statuses.total() % 100 == 0:
                print(f'{statuses.total()} tries, by status: {dict(statuses)}; {failed} do not hold', file=sys.stderr)
            if problem := judge(status, output):
                failed += 1
                print(f'{problem}, {seconds:.0f} s: {name}: {output.strip()[-300:]}', flush=True)
    print(f'{statuses.total()} tries, by status: {dict(statuses)}; {failed} do not hold')
    return 1 if failed else 0


def judge(status: int | None, output: str) -> str | None:
    """What is wrong with how a run ended; None if nothing is."""
    if status is None:
        return 'did not end'
    if status not in (0, 2, 3):
        return f'status {status}'
    if 'Traceback' in output:
        return 'traceback'
    line = output.strip().splitlines()[-1] if output.strip() else ''
    if status and not line.startswith(('error: ', 'fuzz.py: error: ')):
        return f'status {status} without a line'
    return 'a line that is not for users' if '--traceback shows' in line else None


def binding_tries(args: argparse.Namespace, folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Fields and macros of the variants with each of the values."""
    del folder
    tries = []
    # In another process: one that has used JAX cannot be forked safely.
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
        for file in args.gin_file or VARIANTS:
            names = [name for name in process.submit(names_in, file).result() if args.name in name]
            tries += [(file, name, value) for name in names for value in VALUES]
    for file, name, value in _drawn(tries, args):
        bindings = [*(binding for binding in SMALL if not binding.startswith(f'{name} =')), f'{name} = {value}']
        yield f'{file} {name} = {value}', command(file, bindings)


def names_in(file: str) -> list[str]:
    """Fields and macros of a variant."""
    gin_config.load([file], SMALL)
    return provenance.bindable_names(Experiment)


def file_tries(args: argparse.Namespace, folder: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """Variants whose text was damaged."""
    random_ = random.Random(args.seed)
    for i in range(args.tries):
        source = random_.choice(args.gin_file or VARIANTS)
        damage = random_.choice(DAMAGES)
        path = folder / f'{i}.gin'
        text = respelled((gin_config.ROOT / source).read_text(), random_.choice(SPELLINGS))
        damaged = damage(text, random_, path)
        path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
        yield f'{i}: {source}, {damage.__name__}', command(str(path), SMALL)


def command(file: str, bindings: Sequence[str]) -> list[str]:
    """Arguments of tools/run.py."""
    return ['--gin_file', file, *(part for binding in bindings for part in ('--gin_bindings', binding))]


def attempt(arguments: list[str], seconds: float) -> tuple[int | None, str, float]:
    """Runs tools/run.py in a process of its own: status (None if it was stopped), output, seconds that it took."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(_status(arguments))
        status = _wait(pid, start + seconds)
        output.seek(0)
        text = output.read().decode(errors='replace')
        if status is None and PROGRESS in text:
            status = 0  # It trains: some values ask for longer than the time limit.
        return status, text, time.monotonic() - start


def _status(arguments: list[str]) -> int:
    import jax

    jax.config.update('jax_disable_most_optimizations', True)
    try:
        return tools.run.main(arguments)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _wait(pid: int, until: float) -> int | None:
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


def _cut(text: str, random_: random.Random, path: pathlib.Path) -> str:
    return text[: random_.randrange(len(text))]


def _delete_line(text: str, random_: random.Random, path: pathlib.Path) -> str:
    lines = text.splitlines()
    del lines[random_.randrange(len(lines))]
    return '\n'.join(lines)


def _swap_lines(text: str, random_: random.Random, path: pathlib.Path) -> str:
    lines = text.splitlines()
    random_.shuffle(lines)
    return '\n'.join(lines)


def _change_characters(text: str, random_: random.Random, path: pathlib.Path) -> str:
    characters = list(text)
    for _ in range(random_.randrange(1, 6)):
        characters[random_.randrange(len(text))] = random_.choice('()[]{}@%=.,:\'"\\#\0\t\n/ é🙂0aA')
    return ''.join(characters)


def _flip_bytes(text: str, random_: random.Random, path: pathlib.Path) -> bytes:
    data = bytearray(text.encode())
    for _ in range(random_.randrange(1, 6)):
        data[random_.randrange(len(data))] = random_.randrange(256)
    return bytes(data)


def _encode(text: str, random_: random.Random, path: pathlib.Path) -> bytes:
    return text.encode(random_.choice(['utf-16', 'utf-32', 'utf-8-sig', 'cp037', 'utf-16-be']))


def _nest(text: str, random_: random.Random, path: pathlib.Path) -> str:
    depth = random_.choice([50, 150, 1_000, 100_000])
    opened, closed = random_.choice(['[]', '()', '{}'])
    return f'{text}\nSEED = {opened * depth}{closed * depth}\n'


def _circle_of_includes(text: str, random_: random.Random, path: pathlib.Path) -> str:
    other = path.with_suffix('.other.gin')
    other.write_text(f"include '{path.name}'\n")
    return f"{text}\ninclude '{other.name}'\n"


def _circle_of_macros(text: str, random_: random.Random, path: pathlib.Path) -> str:
    return f'{text}\nA = %B\nB = {random_.choice(["%A", "[%A]", "(%A, 1)"])}\nSEED = %A\n'


def _circle_of_components(text: str, random_: random.Random, path: pathlib.Path) -> str:
    lines = 'from components.networks import network\nfrom components.networks import torsos\n'
    bindings = (
        "network.Network.torso = @torsos.Concatenate()\ntorsos.Concatenate.torsos = {'a': @torsos.Concatenate()}\n"
    )
    return text.replace('dynamic_registration\n', f'dynamic_registration\n{lines}', 1) + bindings


DAMAGES = ( _cut, _delete_line, _swap_lines, _change_characters, _flip_bytes, _encode, _nest, _circle_of_includes,
_circle_of_macros, _circle_of_components, )  # fmt: skip


def _drawn(tries: list, args: argparse.Namespace) -> list:
    return tries if len(tries) <= args.tries else random.Random(args.seed).sample(tries, args.tries)


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('what', choices=('bindings', 'files'))
    parser.add_gin_file('repeatable; default: six variants')
    parser.add_argument('--name', default='', help='only fields whose names hold this')
    parser.add_argument('--tries', type=int, default=10**9, help='at most; default: all, or 200 files')
    parser.add_argument('--seed', type=int, default=0, help='of what is drawn')
    parser.add_argument('--seconds', type=float, default=60, help='time limit of a try')
    return parser


if __name__ == '__main__':
    sys.exit(main())
