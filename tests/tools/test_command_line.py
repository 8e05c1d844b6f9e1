"""The frame of the command-line tools."""

import errno
import pathlib
import sys

import pytest

from components.types import CompositionError, ConfigurationError, DivergedError, UserError
from tools.command_line import Parser, configuration, run_command
from tools.option_types import at_least, integers

TOOLS = pathlib.Path(__file__).resolve().parents[2] / 'tools'


def test_a_full_disk_is_one_line_with_the_way_out(capsys):
    def full(args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    assert run_command(Parser('A tool.'), full, []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: [Errno 28] No space left on device: make room')


class OfUsers(UserError):
    exit_status = 7


@pytest.mark.parametrize(
    ('error', 'status', 'line'),
    [
        (CompositionError('a part\ndoes not fit'), 2, 'error: a part does not fit'),
        (DivergedError('not a number'), 3, 'error: not a number'),
        (OfUsers('x'), 7, 'error: x'),
        (FileNotFoundError(2, 'missing', '/x'), 2, "error: [Errno 2] missing: '/x'"),
        (KeyError('x'), 2, "error: KeyError: 'x'; --traceback shows where it comes from"),
        (RuntimeError('y ' * 1_000), 2, f'error: RuntimeError: {"y " * 250}...; --traceback shows where it comes from'),
    ],
)
def test_any_error_is_one_line_with_its_status_and_a_traceback_on_request(error, status, line, capsys):
    def fails(args):
        raise error

    assert run_command(Parser('A tool.'), fails, []) == status
    assert capsys.readouterr().err == f'{line}\n'
    assert run_command(Parser('A tool.'), fails, ['--traceback']) == status
    shown = capsys.readouterr().err
    assert 'Traceback' in shown
    assert 'raise error' in shown
    assert shown.endswith(f'{line}\n')


def options():
    parser = Parser('A tool.\n\nAnd more.')
    parser.add_gin_file()
    parser.add_gin_bindings()
    parser.add_checkpoint()
    parser.add_checkpoints(newest=True)
    parser.add_argument('--workdir', type=pathlib.Path)
    parser.add_argument('--episodes', type=at_least(1), default=5)
    parser.add_argument('--depths', type=integers)
    return parser


def parse(*arguments):
    return options().parse_args(arguments)


def test_options_have_the_values_that_reading_a_run_takes():
    assert parse().checkpoint is None
    assert parse('--checkpoint', 'best').checkpoint == 'best'
    assert parse('--checkpoint', '20').checkpoint == 20
    assert parse().checkpoints == [None]
    assert parse('--checkpoints', 'all').checkpoints is None
    assert parse('--checkpoints', '20,10,20').checkpoints == [20, 10]
    assert parse('--gin_bindings', 'A = 1', '--gin_bindings', 'B = 2').gin_bindings == ['A = 1', 'B = 2']
    assert parse().gin_bindings == []
    assert parse('--depths', '3').depths == [3]


def test_a_configuration_is_that_of_the_files_or_of_the_run():
    assert configuration(parse('--gin_file', 'a.gin', '--workdir', 'run')) == ['a.gin']
    assert configuration(parse('--workdir', 'run')) == [pathlib.Path('run/config.gin')]
    with pytest.raises(ConfigurationError, match='give --gin_file, or the --workdir of a run'):
        configuration(parse())


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['--episodes', '0'], '--episodes must be at least 1, got 0'),
        (['--episodes', '-3'], '--episodes must be at least 1, got -3'),
        (['--episodes', '1.5'], '--episodes must be a whole number, got 1.5'),
        (['--checkpoint', 'newest'], '--checkpoint must be a number or best, got newest'),
        (['--checkpoints', '1,'], '--checkpoints must be positive numbers with commas between them, got 1,'),
        (['--depths', '0,1'], '--depths must be positive numbers with commas between them, got 0,1'),
        (['--depths', 'all'], '--depths must be positive numbers with commas between them, got all'),
        (['--nothing'], 'unrecognized arguments: --nothing'),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2_and_nothing_is_done(arguments, line, capsys):
    assert run_command(options(), None, arguments) == 2
    assert capsys.readouterr().err == f'error: {line}\n'


def test_help_shows_the_first_line_of_the_docstring(capsys):
    with pytest.raises(SystemExit, match='0'):
        run_command(options(), None, ['--help'])
    out = capsys.readouterr().out
    assert 'A tool.' in out
    assert 'And more.' not in out


def test_gin_files_can_import_what_lies_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', sys.path[:])
    monkeypatch.chdir(tmp_path)
    assert run_command(options(), lambda args: 0 if str(tmp_path) in sys.path else 1, []) == 0


def test_tools_are_short():
    assert [path.name for path in TOOLS.rglob('*.py') if len(path.read_text().splitlines()) >= 150] == []


@pytest.mark.parametrize('tool', sorted(TOOLS.glob('*.py')), ids=lambda path: path.stem)
def test_a_tool_runs_in_the_frame(tool):
    text = tool.read_text()
    is_tool = tool.name not in ('__init__.py', 'command_line.py', 'option_types.py')
    assert ('Parser(__doc__)' in text) == is_tool
    assert ('run_command(_parser(), ' in text) == is_tool
    assert (text.endswith("if __name__ == '__main__':\n    sys.exit(main())\n")) == is_tool
