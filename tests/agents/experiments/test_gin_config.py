import math
import os
import pathlib
import re
import subprocess
import sys

import pytest

from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.gin_config import ConfigurationError
from components.networks import network, torsos

HEADER = """
from __gin__ import dynamic_registration

from components.networks import network
from components.networks import torsos
"""
VARIANT = 'gin/catch/meta_discount.gin'


@pytest.fixture
def written(tmp_path):
    """Writes a gin file with the header and imports, and gives its path."""

    def write(text, name='file.gin', header=HEADER):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + text)
        return path

    return write


def test_files_are_read_in_order_then_bindings_and_the_last_value_wins(written):
    one = written('SIZE = 1\ntorsos.MLP.hidden_sizes = [%SIZE]', 'one.gin')
    two = written('SIZE = 2', 'two.gin')
    gin_config.load([one, two])
    assert gin_config.build(torsos.MLP).hidden_sizes == [2]
    gin_config.load([one, two], ['SIZE = 3'])
    assert gin_config.build(torsos.MLP).hidden_sizes == [3]
    gin_config.load([two, one])
    assert gin_config.build(torsos.MLP).hidden_sizes == [1]


def test_what_was_read_before_is_forgotten(written):
    gin_config.load([written('torsos.MLP.hidden_sizes = [3]')])
    gin_config.load([written('network.Network.torso = @torsos.MLP()')])
    assert gin_config.build(network.Network).torso == torsos.MLP()


def test_bindings_use_the_names_that_the_files_import():
    gin_config.load([VARIANT], ['inner/returns.LambdaReturn.lambda_ = 0.5'])
    assert gin_config.build(Experiment).agent.update_rule.objective.returns.lambda_ == 0.5


def test_a_file_of_the_same_name_in_the_working_directory_does_not_win(written, tmp_path, monkeypatch):
    written('FOO = 1', 'gin/base/run.gin')
    monkeypatch.chdir(tmp_path)
    gin_config.load([VARIANT])
    assert gin_config.build(Experiment).num_seeds == 1
    assert pathlib.Path.cwd() == tmp_path


USED = 'network.Network.torso = @used/torsos.MLP()\nused/torsos.MLP.hidden_sizes = [1]\n'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('unused/torsos.MLP.hidden_sizes = [2]', 'unused/torsos.MLP.hidden_sizes (PLACE:8) has no effect, as nothing'),
        ('unused/torsos.MLP:\n  hidden_sizes = [2]', 'unused/torsos.MLP.hidden_sizes (PLACE:9) has no effect'),
        ('torsos.Convolutional.channels = [3]', 'torsos.Convolutional.channels (PLACE:8) has no effect, as nothing'),
        (
            'torsos.MLP.hidden_sizes = [3]',
            'torsos.MLP.hidden_sizes (PLACE:8) has no effect, overridden by used/torsos.MLP.hidden_sizes',
        ),
    ],
)
def test_a_binding_without_effect_is_an_error_that_names_what_overrides_it(written, text, message):
    path = written(USED + text)
    gin_config.load([path])
    with pytest.raises(ConfigurationError, match=re.escape(message.replace('PLACE', str(path)))):
        gin_config.check_effects(network.Network)
    gin_config.load([written(USED)], text.split('\n'))
    with pytest.raises(ConfigurationError, match=re.escape('(--gin_bindings) has no effect')):
        gin_config.check_effects(network.Network)
    # What a run's own file holds was accepted when the run started.
    gin_config.load([written(USED + text, 'config.gin')])
    gin_config.check_effects(network.Network)


def test_an_included_binding_may_be_of_what_is_not_built_but_not_be_overridden_everywhere(written):
    written('torsos.Convolutional.channels = [3]\nunused/torsos.MLP.hidden_sizes = [3]', 'base.gin')
    gin_config.load([written(f"include 'base.gin'\n{USED}")])
    gin_config.check_effects(network.Network)
    written('torsos.MLP.hidden_sizes = [3]', 'base.gin')
    gin_config.load([written(f"include 'base.gin'\n{USED}")])
    with pytest.raises(
        ConfigurationError, match=r'torsos.MLP.hidden_sizes \(.*base.gin:6\) has no effect, overridden by'
    ):
        gin_config.check_effects(network.Network)


def test_a_binding_that_reaches_one_of_several_objects_is_used(written):
    text = "network.Network.head_torsos = {'a': @a/torsos.MLP(), 'b': @b/torsos.MLP()}\n"
    gin_config.load([written(f'{USED}{text}a/torsos.MLP.hidden_sizes = [2]\ntorsos.MLP.hidden_sizes = [3]')])
    gin_config.check_effects(network.Network)
    torsos_by_head = gin_config.build(network.Network).head_torsos
    assert [torsos_by_head[name].hidden_sizes for name in 'ab'] == [[2], [3]]


def test_an_included_file_is_found_beside_the_file_that_names_it_then_in_the_working_directory_then_in_the_checkout(
    written, tmp_path, monkeypatch
):
    def sizes(path):
        gin_config.load([path])
        return gin_config.build(torsos.MLP).hidden_sizes

    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    variant = written("include 'parts/base.gin'", 'mine/variant.gin')
    with pytest.raises(ConfigurationError) as error:
        sizes(variant)
    folders = (tmp_path / 'mine', tmp_path / 'elsewhere', gin_config.ROOT)
    searched = ', '.join(str(folder / 'parts/base.gin') for folder in folders)
    assert str(error.value).endswith(
        f"line 6: gin file 'parts/base.gin' is missing or cannot be read; searched {searched}"
    )
    written('torsos.MLP.hidden_sizes = [2]', 'elsewhere/parts/base.gin')
    assert sizes(variant) == [2]
    written('torsos.MLP.hidden_sizes = [1]', 'mine/parts/base.gin')
    assert sizes(variant) == [1]
    # Nested: relative to the file that names it.
    written("include 'deeper.gin'", 'mine/parts/base.gin')
    written('torsos.MLP.hidden_sizes = [3]', 'mine/parts/deeper.gin')
    assert sizes(variant) == [3]
    assert sizes(written("include 'gin/base/environments/catch.gin'", 'mine/other.gin')) == (64, 64)


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        ({'a.gin': "include 'a.gin'"}, 'includes itself: .*a.gin includes .*a.gin'),
        ({'a.gin': "include 'b.gin'", 'b.gin': "include 'a.gin'"}, 'itself: .*a.gin includes .*b.gin includes .*a.gin'),
        ({'a.gin': 'A = %B\nB = %A\ntorsos.MLP.hidden_sizes = %A'}, 'macro %A refers to itself: %A -> %B -> %A'),
        ({'a.gin': 'A = [1, %A]\ntorsos.MLP.hidden_sizes = %A'}, 'macro %A refers to itself'),
        (
            {'a.gin': 'torsos.MLP.hidden_sizes = @torsos.MLP()'},
            r'@MLP\(\) refers to itself: @MLP\(\) -> @MLP\(\)',
        ),
        ({'a.gin': f'SIZE = {"[" * 3_000}{"]" * 3_000}\ntorsos.MLP.hidden_sizes = %SIZE'}, 'a.gin: nested too deeply'),
        ({'a.gin': f'torsos.MLP.hidden_sizes = {"[" * 99}{"]" * 99}'}, 'MLP.hidden_sizes must be .* each an integer'),
        ({'a.gin': 'import no_such_module'}, "a.gin, line 6: No module named 'no_such_module'"),
        ({'a.gin': 'import breaks'}, 'a.gin, line 6: ZeroDivisionError: no luck'),
        ({'a.gin': 'import leaves'}, 'a.gin, line 6: SystemExit: 5'),
        ({'a.gin': 'network.Network.shared = True'}, 'MLP'),
    ],
)
def test_what_cannot_be_read_or_refers_to_itself_is_one_line(files, message, written, tmp_path, monkeypatch):
    (tmp_path / 'breaks.py').write_text("raise ZeroDivisionError('no luck')")
    (tmp_path / 'leaves.py').write_text('raise SystemExit(5)')
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in files.items():
        written(text, name)
    if message == 'MLP':
        gin_config.load([tmp_path / 'a.gin'])
        with pytest.raises(ConfigurationError, match=r'Network.torso is required and not set: add'):
            gin_config.build(network.Network)
        return

    def load_and_build():
        gin_config.load([tmp_path / 'a.gin'])
        gin_config.build(torsos.MLP)

    with pytest.raises(ConfigurationError, match=message) as error:
        load_and_build()
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ('torsos.MLP.hidden_sizes = [7]'.encode('utf-16'), 'not a text file in UTF-8'),
        (b'\xff\xfe\x00', 'not a text file in UTF-8'),
        (b'torsos.MLP.hidden_sizes = [7]\0', 'line 6: '),
    ],
)
def test_what_is_no_text_is_told(data, message, tmp_path):
    (tmp_path / 'a.gin').write_bytes(HEADER.encode() + data)
    with pytest.raises(ConfigurationError, match=f'a.gin.*{message}'):
        gin_config.load([tmp_path / 'a.gin'])


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / 'a.gin').write_text(f'{HEADER}torsos.MLP.hidden_sizes = [7]', encoding='utf-8-sig')
    gin_config.load([tmp_path / 'a.gin'])
    assert gin_config.build(torsos.MLP).hidden_sizes == [7]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('values.Values.x = 1e999', math.inf),
        ('values.Values.x = -1e999', -math.inf),
        ('X = 1e999\nvalues.Values.x = %X', math.inf),
        ("X = 1e999\nvalues.Values.x = {'a': [1, (%X, -1e999)]}", {'a': [1, (math.inf, -math.inf)]}),
        ('values.Values.x = [1e999, None, True, b"x", 1j]', [math.inf, None, True, b'x', 1j]),
    ],
)
def test_every_value_is_kept_in_the_saved_configuration(text, expected, written, tmp_path, monkeypatch):
    (tmp_path / 'values.py').write_text('class Values:\n    def __init__(self, x=None):\n        self.x = x\n')
    monkeypatch.syspath_prepend(tmp_path)
    path = written(f'import values\n{text}')
    gin_config.load([path])
    import values

    assert gin_config.build(values.Values).x == expected
    for saved in (gin_config.config_str(), gin_config.operative_config_str()):
        path.write_text(saved)
        gin_config.load([path])
        assert gin_config.build(values.Values).x == expected


def test_a_value_that_no_file_can_hold_is_refused(written, tmp_path, monkeypatch):
    (tmp_path / 'binds.py').write_text(
        'import gin\ndef bind(name):\n    gin.bind_parameter(name, object())\nbind(("A", "gin.macro", "value"))\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match=r'A = <object object .* cannot be written to a gin file'):
        gin_config.load([written('import binds\ntorsos.MLP.hidden_sizes = %A')])


def test_lines_of_the_command_line_can_import_and_include(written):
    lines = [
        'from components.networks import cores',
        'network.Network.core = @cores.LSTM()',
        'cores.LSTM.hidden_size = 3',
    ]
    path = written('network.Network.torso = @torsos.MLP()')
    gin_config.load([path], [*lines, f"include '{written('torsos.MLP.hidden_sizes = [9]', 'more.gin')}'"])
    built = gin_config.build(network.Network)
    assert (built.core.hidden_size, built.torso.hidden_sizes) == (3, [9])


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        ('ZeroDivisionError("no luck")', 'Part: ZeroDivisionError: no luck'),
        ('KeyError("x")', "Part: KeyError: 'x'"),
        ('OSError(2, "rom not found", "/roms/x")', "Part: [Errno 2] rom not found: '/roms/x'"),
        ('SystemExit(3)', 'SystemExit: 3'),
        ('RuntimeError("two\\nlines")', 'Part: RuntimeError: two lines'),
    ],
)
def test_whatever_a_constructor_raises_is_one_line(error, message, written, tmp_path, monkeypatch):
    name = f'part_{abs(hash(error))}'
    (tmp_path / f'{name}.py').write_text(
        f'class Part:\n    def __init__(self, x=1):\n        raise {error}\n    def __call__(self, observation): pass\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    gin_config.load([written(f'import {name}\nnetwork.Network.torso = @{name}.Part()')])
    with pytest.raises(ConfigurationError, match=f'^{re.escape(message)}$'):
        gin_config.build(network.Network)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'torsos.MLP.hidden_sizes = [0]',
            'MLP.hidden_sizes must be a list or a tuple of entries that are each at least 1',
        ),
        ('SIZES = 3\ntorsos.MLP.hidden_sizes = %SIZES', r'a list or a tuple, got 3 \(%SIZES from .*a.gin:6\)'),
        (
            'network.Network.torso = @a/torsos.MLP()\na/torsos.MLP.hidden_sizes = "64"',
            r'a/MLP.hidden_sizes .*a.gin:7\)',
        ),
        ("network.Network.shared = 'False'", "Network.shared must be True or False, got 'False'"),
        ('network.Network.torso = @torsos.MLP', r'Network.torso must be a Torso, not a class: write @MLP\(\)'),
        ('network.Network.torso = @network.Network', r'not a class: write @Network\(\)'),
        (
            'network.Network.core = @torsos.MLP()\nnetwork.Network.num_groups = @torsos.MLP()',
            'num_groups must be an integer',
        ),
        (
            "network.Network.head_torsos = {'value': 3}",
            "head_torsos must be a dictionary whose entry 'value' is a Torso",
        ),
    ],
)
def test_arguments_are_checked_before_anything_is_made(text, message, written):
    base = '' if 'network.Network.torso' in text else 'network.Network.torso = @torsos.MLP()\n'
    gin_config.load([written(text, 'a.gin'), written(base, 'b.gin')])
    with pytest.raises(ConfigurationError, match=message):
        gin_config.build(network.Network)


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        ('torsos.MLP.hidden_sizes = (1,', ['file.gin, line', 'EOF']),
        ('torsos.MLP.hidden_sizes', ['file.gin, line 6', "expected ':' or '='"]),
        (
            'torsos.MLP.hidden_sizes = wide',
            ['file.gin, line 6', 'strings need quotes', 'torsos.MLP.hidden_sizes = wide'],
        ),
        ('torsos.MPL.hidden_sizes = 1', ['line 6', 'MPL', 'did you mean MLP']),
        ('torsos.MLP.hiden_sizes = 1', ['line 6', 'hiden_sizes', 'did you mean hidden_sizes?']),
        ('network.Network.torso = @torsos.Foo()', ['line 6', 'Foo', 'did you mean Torso?']),
        (
            'agent.Agent.unroll_length = 1',
            ["'agent' was not provided by an import", 'every gin file imports what it names'],
        ),
        ('from components import nothing', ["No module named 'components.nothing'"]),
        ("include 'gin/base/nothing.gin'", ['gin/base/nothing.gin']),
        (
            'SIZE = %gin.REQUIRED\ntorsos.MLP.hidden_sizes = [%SIZE]',
            ['SIZE is required', "--gin_bindings 'SIZE = ...'"],
        ),
        ('torsos.MLP.hidden_sizes = [%gin.REQUIRED]', ['MLP.hidden_sizes is required']),
        ('SIZE = 1\ntorsos.MLP.hidden_sizes = [%SIEZ]', ['%SIEZ is used but not defined', 'did you mean SIZE?']),
        ('SIZE = 1', ['macro SIZE is defined but nothing uses it']),
        ('SIZE = 1\nSIEZ = 2\ntorsos.MLP.hidden_sizes = [%SIZE]', ['SIEZ is defined but nothing uses it', 'SIZE?']),
    ],
)
def test_a_wrong_file_is_told_in_one_line(written, text, parts):
    with pytest.raises(ConfigurationError) as error:
        gin_config.load([written(text)])
    message = str(error.value)
    assert '\n' not in message
    assert not message.endswith('there are ')
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ('binding', 'parts'),
    [
        ('NUM_SEEDS = ten', ['--gin_bindings', 'strings need quotes']),
        ('NUM_SEDS = 10', ['NUM_SEDS is defined but nothing uses it; did you mean NUM_SEEDS']),
        (
            'validation_loss.ValidationLoss.num_steps = 1',
            ['--gin_bindings', 'num_steps', 'did you mean num_inner_steps'],
        ),
        ('foo.Bar.baz = 1', ["'foo'", '--gin_bindings can name what the files import', 'torsos']),
    ],
)
def test_a_wrong_binding_is_told_in_one_line(binding, parts):
    with pytest.raises(ConfigurationError) as error:
        gin_config.load([VARIANT], [binding])
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ('binding', 'parts'),
    [
        ('TOTAL_ENV_STEPS = 100', ['total_env_steps is 100', 'one meta-step of 640']),
        ('TOTAL_ENV_STEPS = 1e6', ['total_env_steps must be an integer', '1000000.0']),
        ('NUM_INNER_STEPS = 0', ['num_inner_steps must be at least 1, got 0']),
        ('NUM_ENVS = 0', ['batch_size must be at least 1, got 0']),
        ('NUM_SEEDS = 0', ['Experiment.num_seeds must be at least 1, got 0']),
        ('LOG_EVERY = 1e4', ['log_every must be an integer', '10000.0']),
        (
            'inner/returns.LambdaReturn.discount = 1.5',
            ['LambdaReturn.discount must be in [0, 1], got 1.5', 'inner/', '(--gin_bindings)'],
        ),
        ('inner/returns.LambdaReturn.discount = 1.0', ["'objective.returns.discount'", 'not strictly between']),
        ('network.Network.torso = @torsos.Convolutional()', ['network and objectives do not fit', '(10, 5)']),
        (
            "meta_parameters.MetaParameterSet.parameters = {'objective.discount': @meta_parameters.Scalar()}",
            ["'objective.discount': no such field", 'objective.returns.discount, objective.returns.lambda_'],
        ),
        ('optimisers.Optimiser.transform = @optax.scale_by_adam()', ['eps_root']),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(binding, parts):
    gin_config.load([VARIANT], [binding])
    with pytest.raises(ConfigurationError) as error:
        gin_config.build(Experiment)
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message


def test_a_missing_or_unreadable_file_is_named_with_the_searched_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ('nothing.gin', tmp_path):
        with pytest.raises(ConfigurationError, match='is missing or cannot be read; searched') as error:
            gin_config.load([path])
        assert str(tmp_path) in str(error.value)
    with pytest.raises(ConfigurationError) as error:
        gin_config.load(['gin/catch/nothing.gin'])
    assert str(gin_config.ROOT / 'gin/catch/nothing.gin') in str(error.value)


def modules_after(program):
    """Modules loaded in a fresh interpreter that has run a program."""
    output = subprocess.run(
        [sys.executable, '-c', f'{program}\nimport sys\nprint(*sys.modules)'],
        cwd=gin_config.ROOT, capture_output=True, text=True, check=True, env={**os.environ, 'PYTHONPATH': '.'},
    ).stdout  # fmt: skip
    return set(output.split())


def test_importing_components_imports_neither_gin_nor_other_peoples_frameworks():
    program = (
        'import importlib, pkgutil, components\n'
        'for module in pkgutil.walk_packages(components.__path__, "components."):\n'
        '    importlib.import_module(module.name)\n'
    )
    modules = modules_after(program)
    assert 'components.inner_loop' in modules
    assert 'components.environments.adapters.host' in modules
    forbidden = {'gin', 'tensorflow', 'gymnasium', 'gymnax', 'jumanji', 'orbax', 'tensorboardX', 'ale_py', 'torch'}
    assert not forbidden & modules


def test_importing_components_makes_no_array_and_starts_no_device():
    program = (
        'import importlib, pkgutil, components, jax\n'
        'for module in pkgutil.walk_packages(components.__path__, "components."):\n'
        '    importlib.import_module(module.name)\n'
        'jax.config.update("jax_num_cpu_devices", 2)\n'  # Refused once a device has started.
        'assert jax.device_count() == 2'
    )
    assert 'jax' in modules_after(program)


def test_only_the_modules_of_the_configuration_know_gin():
    found = subprocess.run(
        ['grep', '-rnE', r'^\s*(import|from) gin\b', '--include=*.py', 'components', 'agents', 'tools'],
        cwd=gin_config.ROOT, capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    modules = {pathlib.Path(line.split(':')[0]).stem for line in found.splitlines()}
    assert modules == {'gin_config', 'gin_reader', 'provenance'}
