"""Lists of results."""

import numpy as np
import pytest

from agents.analysis import result_lists
from agents.analysis.result_lists import Comparison
from agents.analysis.run_tables import Run, RunTableError
from agents.analysis.variants import Measure, Variant

HEADER = 'variant,seed,value,measure,environment'


def listed(folder, *lines, header=HEADER):
    path = folder / 'results.csv'
    path.write_text('\n'.join([header, *lines, '']))
    return path


def test_what_is_written_is_read(tmp_path):
    measure = Measure('train', 'episode_return', 0.1)
    full = Variant('a, b', Run(None, ''), '', np.array([1, 2]), np.array([0.1, 1 / 3]), 3, 900, 900, True)
    half = Variant('c', Run(None, ''), '', np.array([5]), np.array([2.0]), 1, 450, None, False)
    result_lists.write(tmp_path / 'results.csv', Comparison('Catch(columns=5)', measure, [full, half]))
    ((environment, found, variants),) = result_lists.read([tmp_path / 'results.csv'])
    assert environment == 'Catch(columns=5)'
    assert (
        found.description == str(found) == 'mean of episode_return of train.csv over the last 10% of the rows of a seed'
    )
    assert [each.name for each in variants] == ['a, b', 'c']
    assert [each.seeds.tolist() for each in variants] == [[1, 2], [5]]
    assert [each.final.tolist() for each in variants] == [[0.1, 1 / 3], [2.0]]
    assert [(each.env_steps, each.total_env_steps) for each in variants] == [(900, 900), (450, None)]
    assert [each.status for each in variants] == ['complete', 'partial']


def test_lines_of_one_environment_and_measure_are_compared(tmp_path):
    path = listed(tmp_path, 'a,0,1,return,Catch', 'b,0,2,return,Catch', 'a,1,3,return,Catch', 'a,0,4,error,Catch')
    returns, errors = result_lists.read([path])
    assert [(each.name, each.final.tolist(), each.status) for each in returns.variants] == [
        ('a', [1, 3], 'complete'), ('b', [2], 'complete')
    ]  # fmt: skip
    assert [each.final.tolist() for each in errors.variants] == [[4]]
    assert result_lists.labels([returns, errors]) == ['return', 'error']
    assert result_lists.labels([returns, errors._replace(environment='Snake')]) == ['Catch: return', 'Snake: error']


GOOD = 'a,0,1,return,Catch'


@pytest.mark.parametrize(
    ('lines', 'header', 'message'),
    [
        ([], HEADER, 'has no results, only a header'),
        (['a,0,1,return'], HEADER, 'line 2 has 4 cells, its header 5'),
        ([GOOD, 'a,1,high,return,Catch'], HEADER, 'line 3: value must be a number, got high'),
        ([GOOD, 'a,1,nan,return,Catch'], HEADER, 'line 3: value must be a number, got nan'),
        ([GOOD, 'a,1,,return,Catch'], HEADER, 'line 3: value must be a number, got nothing'),
        ([GOOD, 'a,-1,1,return,Catch'], HEADER, 'line 3: seed must be a whole number, got -1'),
        ([GOOD, 'a,,1,return,Catch'], HEADER, 'line 3: variant a has no seed'),
        ([GOOD, GOOD], HEADER, 'line 3: variant a has seed 0 twice'),
        ([GOOD], HEADER.replace('measure', 'kind'), 'it has no column measure'),
        ([f'{GOOD},1'], f'{HEADER},more', 'unknown column more'),
        ([f'{GOOD},1'], f'{HEADER},seed', 'it has a column twice'),
        ([f'{GOOD},done'], f'{HEADER},status', 'status must be complete or partial, got done'),
        ([f'{GOOD},5', 'a,1,1,return,Catch,6'], f'{HEADER},env_steps', 'line 3: env_steps of variant a is not that of'),
        (['a,0,1,"return,Catch'], HEADER, 'is not a list of results: unexpected end of data'),
    ],
)
def test_damage_is_named(tmp_path, lines, header, message):
    with pytest.raises(RunTableError, match='results') as error:
        result_lists.read([listed(tmp_path, *lines, header=header)])
    assert message in str(error.value)


def test_a_file_that_is_no_table_is_named(tmp_path):
    (tmp_path / 'empty.csv').touch()
    (tmp_path / 'binary.csv').write_bytes(b'\xff\xfe')
    for name in ('empty', 'binary'):
        with pytest.raises(RunTableError, match=f'{name}.csv is not a list of results'):
            result_lists.read([tmp_path / f'{name}.csv'])
