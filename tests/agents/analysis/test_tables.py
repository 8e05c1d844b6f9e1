"""CSV files, numbers, tables and plots."""

import numpy as np
import pytest

from agents.analysis import tables


def test_a_file_has_the_columns_of_all_rows_and_blanks_where_a_row_has_none(tmp_path):
    tables.write_csv(tmp_path / 'rows.csv', [{'a': 1, 'b': 'x'}, {'c': 0.5, 'a': 2}])
    assert (tmp_path / 'rows.csv').read_text() == 'a,b,c\n1,x,\n2,,0.5\n'


@pytest.mark.parametrize(
    ('value', 'text'),
    [(None, ''), (float('nan'), ''), (np.float32('nan'), ''), (0.123456, '0.1235'), (np.float64(2), '2'), (7, '7'),
     ('all', 'all')],
)  # fmt: skip
def test_what_is_not_known_is_blank(value, text):
    assert tables.number(value) == text


def test_precision_is_of_floats():
    assert tables.number(1 / 3, '.6g') == '0.333333'
    assert tables.number(12345678, '.3g') == '12345678'


def test_mean_and_range():
    assert tables.mean_and_range([0.25]) == '0.250'
    assert tables.mean_and_range([0.0, np.float64(1)]) == '0.500 [0.000, 1.000]'


def test_rows_are_grouped_in_the_order_in_which_they_come():
    rows = [{'x': 2, 'y': 0}, {'x': 1, 'y': 0}, {'x': 2, 'y': 1}]
    assert tables.grouped(rows, 'x') == {(2,): [rows[0], rows[2]], (1,): [rows[1]]}
    assert list(tables.grouped(rows, 'y', 'x')) == [(0, 2), (0, 1), (1, 2)]


def test_a_table_is_as_wide_as_it_is_and_brackets_are_no_markup(capsys):
    tables.show(tables.table(['path', 'r[t+1]'], [['x' * 150, '[bold]']], title='a title'), tables.table(['y'], []))
    out = capsys.readouterr().out
    assert 'x' * 150 in out
    assert all(text in out for text in ('r[t+1]', '[bold]', 'a title', 'none'))


def test_a_plot_is_written_at_the_end_and_not_after_an_error(tmp_path):
    with tables.panels(tmp_path / 'plot.png', 1, 2, (2, 2)) as axes:
        axes[0, 1].plot([1, 2])
        assert not (tmp_path / 'plot.png').exists()
    assert (tmp_path / 'plot.png').stat().st_size > 1_000
    with pytest.raises(ZeroDivisionError), tables.panels(tmp_path / 'none.png', 1, 1, (2, 2)):
        1 / 0  # noqa: B018
    assert not (tmp_path / 'none.png').exists()
