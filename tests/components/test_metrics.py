"""The names of logged values, and their explanations."""

from components.metrics import Group, Name, columns
from tests.helpers.documented_metrics import patterns, undocumented


def test_every_group_is_explained_and_every_explained_group_exists():
    assert (
        undocumented([str(group('a/b')) for group in Group if group not in (Group.INNER_UPDATE, Group.INNER_LOOP)])
        == []
    )
    explained = {name.split('/')[0] for name in patterns() if '/' in name}
    assert explained - {'stochastic', 'greedy'} == {str(group) for group in Group}


def test_a_column_is_the_group_and_the_entry():
    assert Group.LOSS('critic/value') == Name(Group.LOSS, 'critic/value')
    assert columns({Group.META_PARAMETER('optimiser.learning_rate'): 1}) == {'meta/optimiser.learning_rate': 1}
