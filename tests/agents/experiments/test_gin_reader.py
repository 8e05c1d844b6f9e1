"""A binding is the same in each of gin's spellings, to whatever reads or checks it."""

import re
import subprocess
import sys

import pytest

from agents.experiments import gin_config, gin_reader, provenance
from agents.experiments.description import by_path, describe
from agents.experiments.gin_config import ConfigurationError
from components.networks import network
from tests.helpers.gin_text import SPELLINGS, lines_of_bindings, respelled
from tools import describe as tool
from tools.command_line import FAILED

HEADER = """from __gin__ import dynamic_registration
from components.networks import cores
from components.networks import network
from components.networks import torsos
"""
CATCH = 'gin/catch/meta_discount.gin'
TORSO = 'network.Network.torso = @used/torsos.MLP()\nnetwork.Network.shared = False\n'
SIZE = 'used/torsos.MLP.hidden_sizes = [%SIZE]\n'


@pytest.fixture(params=SPELLINGS)
def spelled(request):
    """Gives a text in one of the spellings."""
    return lambda text: respelled(text, request.param)


@pytest.fixture
def read(tmp_path):
    """Reads a file with the header and lines of the command line, checks what they bind, and builds it."""

    def read(text, *lines):
        (tmp_path / 'a.gin').write_text(HEADER + text)
        gin_config.load([tmp_path / 'a.gin'], lines)
        gin_config.check_effects(network.Network)
        return gin_config.build(network.Network)

    return read


@pytest.mark.parametrize(
    ('text', 'message'),  # `<name>`: the line in which it is bound.
    [
        (f'SIZE = 1\nSIEZ = 1\n{TORSO}{SIZE}', 'macro SIEZ is defined but nothing uses it; did you mean SIZE?'),
        (f'{TORSO}{SIZE}', 'macro %SIZE is used but not defined'),
        (f'SIZE = %gin.REQUIRED\n{TORSO}{SIZE}', 'SIZE is required and not set'),
        (f'SIZE/gin.macro.value = 1.5\n{TORSO}{SIZE}', 'used/MLP.hidden_sizes must be .*, got .*1.5'),
        (f'SIZE = %SIZE\n{TORSO}{SIZE}', 'macro %SIZE refers to itself'),
        ('network.Network.torso = %gin.REQUIRED', 'network.Network.torso is required and not set'),
        ('network.Network.shared = False', 'Network.torso is required and not set'),
        ('network.Network.torso = @network.Network()', r'@Network\(\) refers to itself'),
        (f'{TORSO}net/gin.singleton.constructor = @cores.LSTM', r'net/gin.singleton.constructor \(.*\) has no effect'),
        (f'{TORSO}cores.LSTM.hidden_size = 2', r'LSTM.hidden_size \(.*gin:<cores.LSTM.hidden_size>\) has no effect'),
        (
            f'{TORSO}torsos.MLP.hidden_sizes = [2]\nused/torsos.MLP.hidden_sizes = [3]',
            r'MLP.hidden_sizes \(.*gin:<torsos.MLP.hidden_sizes>\) has no effect, overridden by used/torsos.MLP',
        ),
        (f'{TORSO}network.Network.core = "LSTM"', r'Network.core must be .*a.gin:<network.Network.core>\)'),
        (f'{TORSO}torsos.MPL.hidden_sizes = [2]', 'no attribute MPL.*did you mean MLP'),
        (f'{TORSO}torsos.MLP.hiden_sizes = [2]', 'line <torsos.MLP.hiden_sizes>: .*did you mean hidden_sizes'),
        (f'{TORSO}network.Network.core = @cores.LTSM()', 'line <network.Network.core> .*did you mean LSTM'),
        (f'{TORSO}network.Network.num_groups = two', 'line <network.Network.num_groups>: .*strings need quotes'),
        (f'{TORSO}agent.Agent.unroll_length = 1', "'agent' was not provided by an import .* imports what it names"),
    ],
)
def test_an_error_is_the_same(text, message, spelled, read):
    text = spelled(text)
    lines = lines_of_bindings(HEADER + text.replace('LTSM', 'LSTM').replace('= two', '= 2'))
    message = re.sub('<(.*?)>', lambda match: str(lines[match[1]]), message)
    with pytest.raises(ConfigurationError, match=f'^[^\n]*{message}[^\n]*$'):
        read(text)


@pytest.mark.parametrize('first', SPELLINGS)
@pytest.mark.parametrize('name', ['torsos.MLP.hidden_sizes', 'used/torsos.MLP.hidden_sizes', 'SIZE'])
def test_what_a_file_binds_twice_is_an_error(name, first, spelled, read):
    text = f'{TORSO}{respelled(f"{name} = [1]", first)}\nnetwork.Network.num_groups = 1\n{spelled(f"{name} = [2]")}'
    numbers = [i for i, line in enumerate(f'{HEADER}{text}'.splitlines(), 1) if line.endswith(('= [1]', '= [2]'))]
    message = f'a.gin, line {numbers[1]}: {name} is bound in line {numbers[0]} already; keep one of the two'
    with pytest.raises(ConfigurationError, match=f'{re.escape(message)}$'):
        read(text)


def test_what_another_file_or_the_command_line_binds_again_is_replaced(spelled, read, tmp_path):
    for name, size in {'one': 1, 'two': 2}.items():
        text = f'{HEADER}{spelled(f"used/torsos.MLP.hidden_sizes = [{size}]")}'
        (tmp_path / f'{name}.gin').write_text(text)
    text = f"{spelled(TORSO)}\ninclude 'one.gin'\ninclude 'two.gin'\ninclude 'one.gin'\n"
    assert read(text).torso.hidden_sizes == [1]
    assert read(f'{text}{spelled("used/torsos.MLP.hidden_sizes = [3]")}').torso.hidden_sizes == [3]
    lines = [line for size in (4, 5) for line in spelled(f'used/torsos.MLP.hidden_sizes = [{size}]').splitlines()]
    assert read(text, *lines).torso.hidden_sizes == [5]


ALL = f"""SIZE = 4
{TORSO}{SIZE}network.Network.core = @net/gin.singleton()
net/gin.singleton.constructor = @cores.LSTM
network.Network.head_torsos = {{
    'value': @torsos.MLP(),
}}
# Between two bindings of a class.

network.Network.num_groups = 2  # After one.
net/cores.LSTM.hidden_size = 3
"""


def test_what_is_read_described_and_saved_is_the_same(spelled, read, tmp_path):
    def results():
        return gin_config.bindings(), gin_config.config_str(), gin_config.operative_config_str()

    expected, before = read(ALL), results()
    found = read(spelled(ALL))
    assert (found, results()) == (expected, before)
    settings = by_path(provenance.settings(network.Network))
    lines = lines_of_bindings((tmp_path / 'a.gin').read_text())
    for path, name in {
        'shared': 'network.Network.shared',
        'num_groups': 'network.Network.num_groups',
        'torso.hidden_sizes': 'used/torsos.MLP.hidden_sizes',
        'torso.hidden_sizes[0]': 'SIZE',
        'core.hidden_size': 'net/cores.LSTM.hidden_size',
        'head_torsos': 'network.Network.head_torsos',
    }.items():
        assert settings[path].source == f'{tmp_path}/a.gin:{lines[name]}', path

    (tmp_path / 'config.gin').write_text(gin_config.config_str())
    gin_config.load([tmp_path / 'config.gin'])
    assert (gin_config.build(network.Network), gin_config.bindings()) == (expected, before[0])


def test_lines_of_the_command_line_are_the_same(spelled):
    bindings = 'optimisers.Optimiser.learning_rate = 0.25\noptimisers.Optimiser.transform = @optax.identity()'
    gin_config.load([CATCH], bindings.splitlines())
    expected = gin_config.bindings()
    text = spelled(bindings)
    for lines in (text.splitlines(), [text], [*text.splitlines(), 'SEED = 0']):
        gin_config.load([CATCH], lines)
        assert gin_config.bindings() == expected
    source = by_path(describe([CATCH], text.splitlines()).components)['agent.update_rule.optimiser.learning_rate']
    assert (source.value, source.source) == ('0.25', '--gin_bindings')


def test_tools_take_and_refuse_the_same(spelled, capsys):
    def main(binding):
        return tool.main(['--gin_file', CATCH, '--gin_bindings', spelled(binding)])

    assert main('inner/returns.LambdaReturn.lambda_ = 0.5') == 0
    assert ['lambda_', '0.5', '--gin_bindings'] in [line.split()[-3:] for line in capsys.readouterr().out.splitlines()]
    for binding, message in {
        'returns.LambdaReturn.lambda_ = 0.5': 'has no effect, overridden by inner/returns.LambdaReturn.lambda_ and out',
        'inner/returns.LambdaReturn.lambda_ = 2': 'LambdaReturn.lambda_ must be in [0, 1], got 2 (--gin_bindings)',
        'foo.Bar.baz = 1': '--gin_bindings can name what the files import',
    }.items():
        assert main(binding) == FAILED
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('torsos.MLP:\nhidden_sizes = [1]', 'line 6: Expected indentation'),
        ('torsos.MLP:\n    # No binding.\n', 'Expected indentation'),
        ('torsos.MLP:\n    torsos.MLP.hidden_sizes = [1]', "line 6: Expected '='"),
        ("torsos.MLP:\n    include 'a.gin'", "line 6: Expected '='"),
        ('torsos.MLP: hidden_sizes = [1]', 'line 5: Expected newline'),
        ('torsos.MLP:\n    hidden_sizes = [1]\n  other = 2', 'line 7: unindent does not match'),
        ('torsos.MLP:\n    hidden_sizes = [1,', 'EOF in multi-line statement'),
        ('SIZE:\n    value = 1', "line 5: 'SIZE' was not provided by an import"),
    ],
)
def test_a_damaged_block_is_told_in_one_line(text, message, read):
    with pytest.raises(ConfigurationError, match=f'^[^\n]*{message}[^\n]*$'):
        read(text)


def test_another_package_that_imports_as_gin_is_named(tmp_path):
    (tmp_path / 'gin').mkdir()
    (tmp_path / 'gin' / '__init__.py').touch()
    path = [str(tmp_path), str(gin_reader.ROOT)]
    code = f'import sys; sys.path[:0] = {path!r}; import agents.experiments.gin_config'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert "'gin' is not gin-config: python -m pip install gin-config" in result.stderr.splitlines()[-1]
