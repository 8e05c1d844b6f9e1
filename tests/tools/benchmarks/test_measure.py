"""Sides taken in turn, and rows."""

from tools.benchmarks.measure import alternate, row


def test_sides_are_taken_in_turn_after_a_call_of_each_that_does_not_count():
    calls = []
    seconds = alternate([lambda: calls.append('ours'), lambda: calls.append('theirs')], rounds=3)
    assert calls == ['ours', 'theirs'] * 4
    assert [len(side) for side in seconds] == [3, 3]
    assert all(taken >= 0 for side in seconds for taken in side)


def test_a_row_has_the_columns_of_the_table_with_four_digits():
    found = row('composition', 'a loop by hand', 'ms', 1234.56, 2, 1 / 3)
    assert found == {
        'benchmark': 'composition',
        'against': 'a loop by hand',
        'unit': 'ms',
        'project': '1235',
        'other': '2',
        'ratio': '0.333',
    }
