"""tools/describe.py and the description it prints, checked against what is built."""

import ast
import dataclasses
import json
import re

import jax
import pytest

from agents.experiments import gin_config, provenance
from agents.experiments.description import Head, LearnedField, by_path, describe, differences
from agents.experiments.experiment import Experiment
from agents.experiments.gin_reader import COMMAND_LINE
from agents.experiments.provenance import DEFAULT, Setting
from components.networks import network
from tests.helpers.gin_text import lines_of_bindings
from tools import describe as tool

FILES = sorted(str(path.relative_to(gin_config.ROOT)) for path in gin_config.ROOT.glob('gin/*/*.gin'))
VARIANTS = [file for file in FILES if not file.startswith(('gin/base/', 'gin/ablations/'))]
CATCH = 'gin/catch/meta_discount.gin'
ACTOR_CRITIC, META_GRADIENT = 'gin/base/agents/actor_critic.gin', 'gin/base/methods/meta_gradient.gin'
INNER, OUTER = 'agent.update_rule.objective.', 'agent.meta_optimiser.outer_loss.objective.'
HEADER = """from __gin__ import dynamic_registration
from components.networks import network
from components.networks import torsos
"""


def at(file, name):
    """`file:line` of a binding."""
    return f'{file}:{lines_of_bindings((gin_config.ROOT / file).read_text())[name]}'


def check_against(settings, built):
    """Compares literals with the attributes of what was built; how many there were."""
    compared = 0
    for name, setting in settings.items():
        if dataclasses.is_dataclass(built):
            child = getattr(built, name)
        elif type(built) in (dict, list, tuple):
            child = built[ast.literal_eval(name)[0] if name.startswith('[') else name]
        else:
            return compared  # Of another library: its attributes need not be its arguments.
        if setting.parts:
            assert dataclasses.is_dataclass(child) <= (type(child).__name__ in setting.value)
            compared += check_against(setting.parts, child)
        elif not setting.value.startswith('@') and not setting.value.endswith('()'):
            assert ast.literal_eval(setting.value) == child, name
            compared += 1
    return compared


def parameters(settings, container=None):
    """Every setting with the name of the parameter that is bound, that of the container for an entry of one."""
    for name, setting in settings.items():
        parameter = container or name
        yield parameter, setting
        yield from parameters(setting.parts, parameter if setting.value in ('{...}', '[...]', '(...)') else None)


@pytest.mark.parametrize(
    ('bindings', 'path', 'value', 'macro', 'source'),
    [
        ([], f'{INNER}returns.discount', '0.8', '', at(CATCH, 'inner/returns.LambdaReturn.discount')),  # Overrides.
        ([], f'{INNER}returns.lambda_', '0.95', '', at(ACTOR_CRITIC, 'inner/returns.LambdaReturn.lambda_')),
        ([], f'{OUTER}returns.discount', '1.0', '', at(META_GRADIENT, 'outer/returns.LambdaReturn.discount')),
        ([], f'{OUTER}value_cost', '0.25', '', at(CATCH, 'outer/actor_critic.ActorCritic.value_cost')),
        ([], f'{INNER}value_cost', '0.5', '', at(ACTOR_CRITIC, 'inner/actor_critic.ActorCritic.value_cost')),
        ([], f'{INNER}value_head', "'value'", '', DEFAULT),
        ([], 'agent.environment.batch_size', '64', '%NUM_ENVS', at('gin/catch/actor_critic.gin', 'NUM_ENVS')),
        (['NUM_ENVS = 3', 'NUM_ENVS = 4'], 'agent.environment.batch_size', '4', '%NUM_ENVS', COMMAND_LINE),
        (['inner/returns.LambdaReturn.lambda_ = 0.5'], f'{INNER}returns.lambda_', '0.5', '', COMMAND_LINE),
        (['inner/returns.LambdaReturn.lambda_ = 0.5'], f'{OUTER}returns.lambda_', '1.0', '',
         at(META_GRADIENT, 'outer/returns.LambdaReturn.lambda_')),
        ([], 'agent.meta_optimiser.optimiser.learning_rate', '0.003', '',
         at(META_GRADIENT, 'outer/optimisers.Optimiser.learning_rate')),
        ([], 'agent.meta_optimiser.optimiser.transform.transforms[1].b1', '0.9', '', DEFAULT),
        ([], 'loggers[0]', '@loggers.CSVLogger', '', at('gin/base/run.gin', 'experiment.Experiment.loggers')),
    ],
)  # fmt: skip
def test_a_value_is_told_with_its_source(bindings, path, value, macro, source):
    assert by_path(describe([CATCH], bindings).components)[path] == Setting(value, source, macro)


@pytest.mark.parametrize('file', VARIANTS)
def test_every_variant_is_described_as_it_is_built_and_as_its_run_repeats_it(file, tmp_path):
    description = describe([file])
    experiment = gin_config.build(Experiment)
    assert check_against(description.components, experiment) > 20
    for parameter, setting in parameters(description.components):
        if setting.source != DEFAULT:
            path, line = setting.source.split(':')
            text = (gin_config.ROOT / path).read_text().splitlines()[int(line) - 1]
            assert re.match(rf'{setting.macro[1:]} =' if setting.macro else rf'(.*\.| +){parameter} =', text)
    assert len(description.meta_parameters) == len(experiment.agent.meta_parameters.parameters)
    assert description.parameters.total == sum(description.parameters.modules.values()) > 0

    (tmp_path / 'config.gin').write_text(gin_config.config_str())
    assert differences(description, describe([tmp_path / 'config.gin'])) == {}


def test_scopes_macros_and_singletons_are_resolved_as_gin_does(tmp_path):
    text = """
import haiku as hk
network.Network.torso = @a/torsos.Concatenate()
a/torsos.Concatenate.torsos = {
    'unscoped': @torsos.MLP(),
    'scoped': @b/torsos.MLP(),
    'nested': @a/b/torsos.MLP(),
    'not an identifier': %NET,
    'singleton': @net/gin.singleton(),
}
network.Network.shared = %ALIAS
ALIAS = %SHARED
SHARED = False
NET = @torsos.MLP()
net/gin.singleton.constructor = @torsos.MLP
network.Network.core = @c/hk.LSTM
torsos.MLP.hidden_sizes = [1]
a/torsos.MLP.hidden_sizes = [2]
a/b/torsos.MLP.hidden_sizes = [3]
NET/torsos.MLP.hidden_sizes = [4]
net/torsos.MLP:
    hidden_sizes = [5]
c/hk.LSTM.hidden_size = 6
"""
    path = tmp_path / 'scopes.gin'
    path.write_text(HEADER + text)
    gin_config.load([path])
    settings = provenance.settings(network.Network)
    built = gin_config.build(network.Network)
    assert built.torso.torsos['unscoped'].hidden_sizes == [2]  # An unscoped reference is built in the scope around it.
    assert built.torso.torsos['scoped'].hidden_sizes == [1]  # One with a scope is not.
    assert check_against(settings['torso'].parts, built.torso) == 5

    line = (HEADER + text).splitlines().index
    sizes = {name: setting for name, setting in by_path(settings).items() if 'hidden_size' in name}
    torsos = 'torso.torsos'
    assert sizes == {
        f'{torsos}.unscoped.hidden_sizes': Setting('[2]', f'{path}:{line("a/torsos.MLP.hidden_sizes = [2]") + 1}'),
        f'{torsos}.scoped.hidden_sizes': Setting('[1]', f'{path}:{line("torsos.MLP.hidden_sizes = [1]") + 1}'),
        f'{torsos}.nested.hidden_sizes': Setting('[3]', f'{path}:{line("a/b/torsos.MLP.hidden_sizes = [3]") + 1}'),
        f"{torsos}['not an identifier'].hidden_sizes": Setting(
            '[4]', f'{path}:{line("NET/torsos.MLP.hidden_sizes = [4]") + 1}'
        ),
        f'{torsos}.singleton.hidden_sizes': Setting('[5]', f'{path}:{line("    hidden_sizes = [5]") + 1}'),
        'core.hidden_size': Setting('6', f'{path}:{line("c/hk.LSTM.hidden_size = 6") + 1}'),
    }  # fmt: skip
    assert settings['shared'] == Setting('False', f'{path}:{line("SHARED = False") + 1}', '%ALIAS %SHARED')
    assert settings['core'].value == '@c/hk.LSTM'
    assert settings['torso'].parts['torsos'].parts['singleton'].macro == '@net/config.singleton()'  # As gin writes it.


def test_an_include_after_a_binding_and_a_later_file_win(tmp_path):
    paths = [tmp_path / 'one.gin', tmp_path / 'two.gin']
    paths[0].write_text(f"{HEADER}torsos.MLP.hidden_sizes = (8,)\ninclude 'gin/base/environments/catch.gin'\n")
    paths[1].write_text(f'{HEADER}\ntorsos.MLP.hidden_sizes = (9,)\n')

    def hidden_sizes(*paths):
        gin_config.load(paths)
        return provenance.settings(network.Network)['torso'].parts['hidden_sizes']

    source = at('gin/base/environments/catch.gin', 'torsos.MLP.hidden_sizes')
    assert hidden_sizes(paths[0]) == Setting('(64, 64)', source)
    assert hidden_sizes(*paths) == Setting('(9,)', f'{paths[1]}:5')


def test_components_that_are_defaults_are_told_with_their_own():
    settings = by_path(describe([CATCH]).components)
    path = 'agent.policy'
    assert settings[f'{path}.head'] == Setting("'logits'", DEFAULT)
    assert (settings[path].value, settings[path].source) == ('Softmax()', DEFAULT)


def test_meta_parameters_start_in_the_units_of_their_fields():
    file, bindings = 'gin/snake/self_tuning_outer_critic.gin', ['positive/meta_parameters.Scalar.initial_value = 0.02']
    terms = 'objective.terms.actor_critic'
    assert describe([file], bindings).meta_parameters == {
        f'{terms}.returns.discount': LearnedField(1, 0.8, 'Sigmoid', 0.0, 1.0),
        f'{terms}.returns.lambda_': LearnedField(1, 0.95, 'Sigmoid', 0.0, 1.0),
        f'{terms}.entropy_cost': LearnedField(1, 0.02, 'Exp', 0.0, None),
    }
    assert describe(['gin/catch/actor_critic.gin']).meta_parameters == {}


def test_heads_are_told_with_who_reads_them():
    binding = 'bootstrapped_target.BootstrappedTarget.value_cost = 0.5'
    heads = describe(['gin/snake/bootstrapped_outer_critic.gin'], [binding]).heads
    terms, outer = 'update_rule.objective.terms', 'meta_optimiser.outer_loss.objective'
    assert heads == {
        'logits': Head(
            (4,),
            (f'{terms}.actor_critic.policy', f'{terms}.outer_critic.policy'),
            (f'{outer}.policy', 'meta_optimiser.outer_loss.policy'),
        ),
        'value': Head((), (f'{terms}.actor_critic',), ('meta_optimiser.outer_loss',)),  # What it matches itself.
        'outer_value': Head((), (f'{terms}.outer_critic',), (outer,)),
    }


def test_parameter_counts_are_those_of_real_weights():
    counts = describe([CATCH], ['torsos.MLP.hidden_sizes = (3, 2)']).parameters
    params = gin_config.build(Experiment).agent.network_functions().init(jax.random.key(0))
    assert counts.total == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert counts.modules.keys() == params.keys()
    assert counts.modules['network/logits_head'] == 3 * 2 + 3
    assert counts.modules['network/value_head'] == 2 + 1


@pytest.mark.parametrize('arguments', [[], ['--json']])
def test_bindings_without_effect_are_shown_and_an_error_as_in_training(arguments, capsys):
    for binding, message in (
        (
            'meta_optimisers.Fixed.num_inner_steps = 7',
            'meta_optimisers.Fixed.num_inner_steps (--gin_bindings) has no effect',
        ),
        ('returns.LambdaReturn.lambda_ = 0.5', 'overridden by inner/returns.LambdaReturn.lambda_ and outer/returns'),
    ):
        assert tool.main(['--gin_file', CATCH, '--gin_bindings', binding, *arguments]) == 2
        shown, error = capsys.readouterr()
        assert message in shown
        (line,) = error.splitlines()
        assert message in line


def test_differences_are_what_one_has_and_the_other_has_not():
    one, other = (
        describe([CATCH], ['inner/returns.LambdaReturn.discount = 0.7']),
        describe(['gin/catch/actor_critic.gin']),
    )
    found = differences(one, other)
    path = f'{INNER}returns.discount'
    assert found[path] == (
        Setting('0.7', COMMAND_LINE),
        Setting('0.99', at(ACTOR_CRITIC, 'inner/returns.LambdaReturn.discount')),
    )
    assert found['agent.meta_optimiser.overlapping'][1] is None
    assert f'{INNER}returns.lambda_' not in found
    assert differences(other, one) == {path: (b, a) for path, (a, b) in found.items()}
    assert differences(one, one) == {}


def test_tables_for_people(capsys):
    assert tool.main(['--gin_file', CATCH]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['│', '└──', 'batch_size', '64', '%NUM_ENVS', at('gin/catch/actor_critic.gin', 'NUM_ENVS')] in rows
    source = at(CATCH, 'inner/returns.LambdaReturn.discount')
    assert ['│', '│', '│', '├──', 'discount', '0.8,', 'learned', source] in rows
    assert ['objective.returns.discount', '1', '0.8', 'Sigmoid', '0.0', '1.0'] in rows
    assert ['value', '()', 'update_rule.objective', 'meta_optimiser.outer_loss.objective'] in rows
    assert ['total', '7,684'] in rows
    assert any('transforms' in row for row in rows)
    assert any('[0]' in row for row in rows)  # Not taken for markup.


def test_json_says_the_same(capsys):
    assert tool.main(['--gin_file', CATCH, '--gin_bindings', 'NUM_ENVS = 4', '--json']) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(json.dumps(dataclasses.asdict(describe([CATCH], ['NUM_ENVS = 4']))))
    assert document['components']['agent']['parts']['environment']['parts']['batch_size'] == {
        'value': '4', 'source': COMMAND_LINE, 'macro': '%NUM_ENVS', 'parts': {}
    }  # fmt: skip
    assert document['meta_parameters']['objective.returns.discount']['initial_value'] == 0.8
    assert document['heads']['logits']['shape'] == [3]


def test_a_run_is_compared_with_a_file_either_way_round(tmp_path, capsys):
    describe([CATCH], ['UNROLL_LENGTH = 7'])
    (tmp_path / 'config.gin').write_text(gin_config.config_str())
    (line,) = [i for i, text in enumerate(gin_config.config_str().splitlines(), 1) if text == 'UNROLL_LENGTH = 7']
    run = {'value': '7', 'source': f'{tmp_path}/config.gin:{line}', 'macro': '%UNROLL_LENGTH'}
    file = {'value': '10', 'source': at('gin/catch/actor_critic.gin', 'UNROLL_LENGTH'), 'macro': '%UNROLL_LENGTH'}

    assert tool.main(['--workdir', str(tmp_path), '--diff', CATCH, '--json']) == 0
    assert json.loads(capsys.readouterr().out) == {
        'first': str(tmp_path), 'second': CATCH, 'differences': {'agent.unroll_length': {'first': run, 'second': file}}
    }  # fmt: skip
    assert tool.main(['--gin_file', CATCH, '--diff', str(tmp_path), '--json']) == 0
    found = json.loads(capsys.readouterr().out)['differences']
    assert found == {'agent.unroll_length': {'first': file, 'second': run}}

    assert tool.main(['--workdir', str(tmp_path), '--diff', CATCH]) == 0
    _, row = [line.split() for line in capsys.readouterr().out.splitlines() if 'rom' in line or 'agent' in line]
    assert row == ['agent.unroll_length', '7', '%UNROLL_LENGTH', run['source'], '10', '%UNROLL_LENGTH', file['source']]
    assert tool.main(['--workdir', str(tmp_path), '--diff', str(tmp_path)]) == 0
    assert 'none' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--gin_file', 'gin/nothing.gin'], 'searched'),
        (['--gin_file', 'gin/base/agents/actor_critic.gin'], 'is required and not set'),
        (['--gin_file', CATCH, '--gin_bindings', 'NUM_SEDS = 1'], 'did you mean NUM_SEEDS'),
        (['--gin_file', CATCH, '--gin_bindings', 'NUM_ENVS = 0'], 'batch_size must be at least 1'),
        (['--gin_file', CATCH, '--diff', 'gin/nothing.gin'], 'searched'),
        (['--gin_file', CATCH, '--diff', 'gin'], "gin/config.gin' is missing"),
        (['--workdir', 'docs'], "docs/config.gin' is missing"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, arguments, part):
    assert tool.main([*arguments, '--json']) == 2
    output = capsys.readouterr()
    assert output.out == ''
    (line,) = output.err.splitlines()
    assert line.startswith('error: ')
    assert part in line


@pytest.mark.parametrize('arguments', [[], ['--gin_file', CATCH, '--workdir', 'docs']])
def test_one_of_file_and_run_is_described(arguments, capsys):
    assert tool.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert '--gin_file' in line
    assert '--workdir' in line
