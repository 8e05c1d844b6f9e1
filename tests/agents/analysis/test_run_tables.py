"""Run folders and their tables."""

import numpy as np
import pytest

from agents.analysis import run_tables
from tests.helpers import made_up_runs


def read(path, *needed):
    return run_tables.read_table(path, lambda name: name.startswith('meta/'), needed)


def test_runs_are_named_by_their_path_and_what_lies_in_a_run_is_part_of_it(tmp_path):
    for name in ('b', 'a/x', 'a/x/meta_test'):
        made_up_runs.write_config(tmp_path / 'sweep' / name)
    assert [run.name for run in run_tables.find_runs([tmp_path / 'sweep'])] == ['a/x', 'b']
    assert [run.name for run in run_tables.find_runs([tmp_path / 'sweep/b'])] == ['b']


def test_names_of_several_folders_have_the_folder_in_front_where_they_are_the_same(tmp_path):
    for name in ('one/a', 'two/a', 'three/b'):
        made_up_runs.write_config(tmp_path / name)
    folders = [tmp_path / name for name in ('one', 'two', 'three')]
    assert [run.name for run in run_tables.find_runs(folders)] == ['one/a', 'two/a', 'three/b']
    assert [run.name for run in run_tables.find_runs(folders[1:])] == ['a', 'b']
    with pytest.raises(run_tables.RunTableError, match='given twice'):
        run_tables.find_runs([folders[0], folders[0]])


def test_seeds_lie_side_by_side_and_replicas_are_apart(tmp_path):
    replicas = [{'replica/optimiser.learning_rate': rate} for rate in (0.001, 0.0005)]
    values = np.arange(8.0).reshape(4, 2)
    made_up_runs.write_table(tmp_path, 'train', {'x': values, 'meta/y': values}, (3, 4), replicas)
    tables = read(tmp_path / 'train.csv', 'x')
    assert list(tables) == ['optimiser.learning_rate=0.001', 'optimiser.learning_rate=0.0005']
    second = tables['optimiser.learning_rate=0.0005']
    assert second.seeds.tolist() == [3, 4]
    np.testing.assert_array_equal(second.columns['x'], [[4, 5], [6, 7]])
    assert second.columns.keys() == {'x', 'meta/y'}


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    path = tmp_path / 'train.csv'
    path.write_text('seed,x\n0,1\n1,2\n0,3\n1,')
    np.testing.assert_array_equal(read(path, 'x')[''].columns['x'], [[1], [2]])
    for text in ('seed,x\n', 'seed', ''):
        path.write_text(text)
        assert read(path, 'x') == {}
    assert read(tmp_path / 'none.csv', 'x') == {}


@pytest.mark.parametrize(
    ('text', 'message'),
    [('seed,y\n0,1\n', 'has no column x'), ('seed,x\n0\n', 'line 2 has 1 cells'), ('seed,x\n0,one\n', 'column x'),
     ('seed,x\n0,"1\n', 'not a table')],
)  # fmt: skip
def test_a_damaged_table_is_named(tmp_path, text, message):
    (tmp_path / 'train.csv').write_text(text)
    with pytest.raises(run_tables.RunTableError, match=message) as error:
        read(tmp_path / 'train.csv', 'x')
    assert 'train.csv' in str(error.value)


def test_thinned_curves_are_means_of_rows_that_follow_one_another():
    values = np.array([[0, 2, 4, np.nan, np.nan, np.nan, 7]])
    np.testing.assert_array_equal(run_tables.thinned(values, 4), [[1, 4, np.nan, 7]])
    assert run_tables.thinned(values, 7) is values
    assert run_tables.thinned(np.zeros((2, 1001)), 400).shape == (2, 334)


def test_empty_cells_hold_the_last_value():
    values = np.array([[np.nan, 1, np.nan, 3], [2, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(run_tables.filled(values), [[np.nan, 1, 1, 3], [2, 2, 2, 2]])
