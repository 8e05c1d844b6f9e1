"""What figures, tables and the page of a comparison show."""

import json
import re

import numpy as np
import pytest

from agents.analysis import comparison_figures, comparison_page, comparison_report, run_tables
from agents.analysis.comparison_figures import COLOURS, MAX_SHOWN, Compared
from agents.analysis.published import Published
from agents.analysis.variants import Measure, Variant
from tests.helpers import made_up_runs


def variant(name, final, is_complete=True):
    seeds = np.arange(len(final))
    run = run_tables.Run(None, name)
    return Variant(name, run, '', seeds, np.array(final, float), len(final), 500, 1000, is_complete)


def compared(*variants, **what):
    return Compared(Measure('train', 'episode_return', 0.1), variants, {}, **what)


A, B, ONE = variant('a', [1, 2, 3]), variant('b', [2, 3, 4], is_complete=False), variant('one', [5])


def test_final_performance_has_a_dot_for_each_seed_and_says_what_has_no_interval_or_is_partial():
    figure = comparison_figures.final_performance(compared(A, B, ONE))
    rows = figure.panels[0].rows
    assert [row.label for row in rows] == ['a', 'b (partial, 50%)', 'one']
    assert rows[1].seeds == {0: 2, 1: 3, 2: 4}
    assert [float(row.estimate.value) for row in rows] == [2, 3, 5]
    assert [bool(np.isfinite(row.estimate.low)) for row in rows] == [True, True, False]
    assert 'No interval for one: fewer than 3 seeds.' in figure.caption
    assert 'mean of episode_return of train.csv over the last 10% of the rows' in figure.caption
    assert 'judged by the rows that there are: b (partial, 50%)' in figure.caption


def test_pairs_have_the_better_variant_first():
    rows = comparison_figures.probabilities_of_improvement(compared(A, B, ONE)).panels[0].rows
    assert [row.label for row in rows] == ['one > b', 'one > a', 'b > a']
    assert float(rows[2].estimate.value) == pytest.approx(7 / 9)  # Of nine pairs of seeds, six win and two tie.


def test_of_many_pairs_those_of_the_best_variant_are_drawn():
    many = [variant(f'v{i}', [i, i, i]) for i in range(8)]
    figure = comparison_figures.probabilities_of_improvement(compared(*many))
    assert [row.label for row in figure.panels[0].rows] == [f'v7 > v{i}' for i in range(6, -1, -1)]
    assert 'Only pairs with the best variant are drawn' in figure.caption


def test_profiles_are_shares_of_seeds_above_a_threshold():
    line = comparison_figures.performance_profiles(compared(A)).panels[0].lines[0]
    for threshold, share in zip(line.x, line.estimate.value, strict=True):
        assert share == np.mean(np.array([1, 2, 3]) > threshold)


def test_styles_tell_as_many_variants_apart_as_are_shown():
    styles = comparison_figures.styles([str(i) for i in range(MAX_SHOWN)])
    assert len(set(styles.values())) == MAX_SHOWN
    assert styles['0'].colour == styles['7'].colour == COLOURS[0]


TABLE = ['a variant', '95% low'], [['x|y_1', '50%'], ['$', '']]


def test_tables_in_each_format():
    assert comparison_report.markdown(*TABLE) == (
        '| a variant | 95% low |\n| --- | --- |\n| x\\|y_1 | 50% |\n| $ |  |\n'
    )
    assert comparison_report.csv_text(*TABLE) == 'a_variant,low\nx|y_1,50%\n$,\n'
    lines = comparison_report.latex(*TABLE).splitlines()
    assert lines[2] == r'a variant & 95\% low \\'
    assert lines[4:6] == [r'x|y\_1 & 50\% \\', r'\$ &  \\']


def test_the_page_holds_everything_and_escapes_names():
    shown = [variant('</script><b>', [1, 2, 3]), A]
    names = {each.name: comparison_figures.label(each) for each in shown}
    values = [Published('a', 'mean', 2.5, 'A paper')]
    figures = comparison_figures.figures(compared(*shown, published=values))
    styles = comparison_figures.styles(list(names))
    text = comparison_page.page('<title>', 'about', figures, names, styles, {'results': TABLE}, 'PLOTLY {{title}}')
    assert text.count('</script>') == 3
    assert '<b>' not in text
    assert 'PLOTLY {{title}}' in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [figure['name'] for figure in data['figures']] == [figure.name for figure in figures]
    assert data['variants'][1] == {'name': 'a', 'label': 'a', 'colour': COLOURS[1], 'dash': 'solid'}
    final = data['figures'][0]['traces']
    assert {trace.get('meta') for trace in final} == {'</script><b>', 'a', None}
    assert any(trace.get('hovertext') == 'a, mean: 2.5' for trace in final)


def test_replicas_and_bindings_that_differ_have_columns(tmp_path):
    made_up_runs.write_config(tmp_path / 'grid', num_rows=2)
    replicas = [{'replica/optimiser.learning_rate': rate} for rate in (0.001, 0.0005)]
    made_up_runs.write_table(tmp_path / 'grid', 'train', {'episode_return': np.eye(4)[:, :2]}, (0, 1), replicas)
    made_up_runs.write_run(tmp_path / 'longer', 1.0, num_rows=4, learning_rate=0.1)
    made_up_runs.write_run(tmp_path / 'plain', 1.0, num_rows=2)
    (report,) = comparison_report.reports_of(run_tables.find_runs([tmp_path]), tmp_path / 'report', 0.1)
    header, lines = comparison_report.differences_table(report.variants, report.configurations)
    assert header == ['variant', 'optimiser.learning_rate', 'TOTAL_ENV_STEPS']
    assert lines == [
        ['grid optimiser.learning_rate=0.001', '0.001', '2000'],
        ['grid optimiser.learning_rate=0.0005', '0.0005', '2000'],
        ['longer', '0.1', '4000'],
        ['plain', '0.001', '2000'],
    ]
