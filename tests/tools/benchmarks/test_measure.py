"""Sides taken in turn, and rows."""

import numpy as np

from tools.benchmarks.measure import alternate, cpu_and_wall, row


def test_sides_are_taken_in_turn_after_a_call_of_each_that_does_not_count():
    calls = []
    seconds = alternate([lambda: calls.append('ours'), lambda: calls.append('theirs')], rounds=3)
    assert calls == ['ours', 'theirs'] * 4
    assert [side.shape for side in seconds] == [(3,), (3,)]
    assert all((side >= 0).all() for side in seconds)


def test_sides_may_be_measured_by_several_clocks():
    (seconds,) = alternate([lambda: sum(range(1_000))], rounds=3, seconds=cpu_and_wall)
    assert seconds.shape == (3, 2)
    assert (seconds > 0).all()


def test_a_row_has_the_columns_of_the_table_with_four_digits():
    found = row('loops', 'a loop by hand', 'ms', 1234.56, 2, 1 / 3)
    assert found == {
        'benchmark': 'loops',
        'against': 'a loop by hand',
        'unit': 'ms',
        'project': '1235',
        'other': '2',
        'ratio': '0.333',
    }


def test_a_row_of_several_rounds_has_medians_and_an_interval():
    ours, theirs = np.array([1.0, 2.0, 10.0]), np.array([2.0, 2.0, 5.0])
    found = row('loops', 'a loop by hand', 'ms', ours, theirs, theirs / ours)
    assert (found['project'], found['other'], found['ratio']) == ('2', '2', '1.000')
    assert (found['low'], found['high']) == ('0.500', '2.000')
