"""Lists of published values."""

import pytest

from agents.analysis import published
from agents.analysis.published import Published
from agents.analysis.run_tables import RunTableError
from agents.analysis.variants import Measure

HEADER = 'variant,what,value,source'


def test_published_values_are_read_and_told_apart_by_environment_and_measure(tmp_path):
    path = tmp_path / 'published.csv'
    path.write_text(f'{HEADER}\na,mean,1.5,"A, B"\n')
    (value,) = published.read(path)
    assert value == Published('a', 'mean', 1.5, 'A, B')
    assert value.is_of('Catch()', Measure('train', 'episode_return', 0.1))

    path.write_text(f'{HEADER},environment,measure\na,mean,2,A,Catch(),\na,mean,3,B,Catch(),regret\n')
    anything, regret = published.read(path)
    assert anything.is_of('Catch()', Measure('', 'regret', 1.0))
    assert regret.is_of('Catch()', Measure('', 'regret', 1.0))
    assert not regret.is_of('Catch()', Measure('train', 'episode_return', 0.1))
    assert not anything.is_of('Snake()', Measure('', 'regret', 1.0))
    assert published.sources([anything, regret]) == 'a 2 (mean), published: A; a 3 (mean), published: B'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'it is empty'),
        ('variant,what\na,b\n', 'it has no column value, source'),
        (f'{HEADER},year\na,b,1,d,2020\n', 'unknown column year'),
        (f'{HEADER}\na,b,c,d\n', 'line 2: could not convert'),
        (f'{HEADER}\na,b,1\n', 'line 2 has 3 cells, its header 4'),
        (f'{HEADER}\na,b,1,A\na,b,1,\n', 'line 3 has no source'),
        (f'{HEADER}\na,b,nan,A\n', 'line 2 has no number'),
    ],
)
def test_a_wrong_list_is_named(tmp_path, text, message):
    path = tmp_path / 'published.csv'
    path.write_text(text)
    with pytest.raises(RunTableError, match=r'published\.csv is not a list of published values') as error:
        published.read(path)
    assert message in str(error.value)
