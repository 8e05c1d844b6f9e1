"""Numbers at paths by bindings, beside those of the agents that are built from them."""

import pytest

from agents import replicas
from agents.analysis import bound_numbers
from agents.analysis.run_tables import Run
from agents.analysis.variants import Configurations
from agents.experiments import gin_config, run_folder
from agents.experiments.experiment import Experiment


@pytest.mark.parametrize('file', ['catch/self_tuning', 'snake/k_step', 'catch/frodo_consistency'])
def test_every_number_of_an_agent_is_found_in_the_files_of_its_run(tmp_path, file):
    gin_config.load([f'gin/{file}.gin'])
    agent = gin_config.build(Experiment).agent
    run_folder.write_configuration(tmp_path)
    run = Run(tmp_path, 'run')
    configurations = Configurations([run])
    expected = replicas.numbers(agent)
    found = {path: configurations.number_at(run, path) for path in expected}
    assert len(expected) > 8
    assert {path: number and number.value for path, number in found.items()} == expected


E = 'agents.experiments.experiment.Experiment'
BINDINGS = {
    f'{E}.agent': '@a.Agent()', 'a.Agent.update_rule': '@x/y/b.Rule()', 'x/b.Rule.objective': "{'one': @c.One(), 'n': %N}",
    'N': '%M', 'M': '3', 'x/c.One.cost': '0.5', 'c.One.cost': '0.25', 'x/z/c.One.cost': '1.0', 'c.One.flag': 'True',
    'c.One.name': "'3'", 'c.One.broken': '[', 'a.Agent.meta_optimiser': '@d.Meta()', 'd.Meta.rate': '-1e-3',
}  # fmt: skip


@pytest.mark.parametrize(
    ('path', 'expected'),
    [
        ('objective.one.cost', ('x/c.One.cost', 0.5)),
        ('objective.n', ('x/b.Rule.objective', 3)),
        ('meta_optimiser.rate', ('d.Meta.rate', -1e-3)),
        *((f'objective.one.{name}', None) for name in ('flag', 'name', 'broken', 'none', 'cost.more')),
        ('objective.two.cost', None),
        ('optimiser.learning_rate', None),
    ],
)
def test_scopes_dictionaries_and_macros_are_followed(path, expected):
    assert bound_numbers.number_at(path, BINDINGS) == expected


def test_a_meta_parameter_starts_from_its_initial_value():
    learned = {'a.Agent.meta_parameters': '@m.Set()', 'm.Set.parameters': "{'objective.one.cost': @u/m.Scalar()}"}
    assert bound_numbers.number_at('objective.one.cost', {**BINDINGS, **learned}).value == 0.5
    learned['u/m.Scalar.initial_value'] = '0.125'
    assert bound_numbers.number_at('objective.one.cost', {**BINDINGS, **learned}) == ('u/m.Scalar.initial_value', 0.125)
