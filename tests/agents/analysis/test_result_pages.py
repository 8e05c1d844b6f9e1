"""Tables of a page that are written from lists of results, and those of docs/reproductions.md."""

import csv
import pathlib

import pytest

from agents.analysis import published, result_lists, result_pages, variants
from agents.analysis.run_tables import RunTableError
from agents.experiments import gin_config

DOCS = pathlib.Path(__file__).resolve().parents[3] / 'docs'
PAGE = DOCS / 'reproductions.md'

HEADER = 'variant,seed,value,measure,environment\n'


def written(folder, lines, values=''):
    """The page of one table, between its first and its last line."""
    (folder / 'results.csv').write_text(HEADER + '\n'.join(lines) + '\n')
    (folder / 'published.csv').write_text(f'variant,what,value,source,environment,measure\n{values}')
    page = folder / 'page.md'
    page.write_text(
        'Before\n\n<!-- report: results.csv, published: published.csv -->\nold\n<!-- end of report -->\n\nAfter\n'
    )
    page.write_text(result_pages.updated(page))
    assert result_pages.updated(page) == page.read_text()
    lines = page.read_text().splitlines()
    assert (lines[:4], lines[-4:]) == (
        ['Before', '', '<!-- report: results.csv, published: published.csv -->', ''],
        ['', '<!-- end of report -->', '', 'After'],
    )
    return lines[4:-4]


def results(variant, values, measure='return', environment='Catch'):
    return [f'{variant},{seed},{value},{measure},{environment}' for seed, value in enumerate(values)]


def test_one_comparison_has_a_line_for_each_variant(tmp_path):
    lines = written(tmp_path, [*results('a', [1, 2, 3, 10]), *results('b', [5])], 'a,mean,2.5,"A, B",Catch,return\n')
    assert lines == [
        'From [results.csv](results.csv). Environment: Catch. Measure: return.', '',
        '| variant | seeds | interquartile mean [95% interval] | mean | each seed | published |',
        '| --- | --- | --- | --- | --- | --- |',
        '| a | 4 | 2.5 [1, 10] | 4 | 1, 2, 3, 10 | 2.5 |',
        '| b | 1 | 5 | 5 | 5 |  |', '',
        'Published: 2.5 (mean); A, B.',
    ]  # fmt: skip


def test_of_many_seeds_the_lowest_and_the_highest_are_shown(tmp_path):
    lines = written(tmp_path, results('a', range(8)))
    assert lines[2] == '| variant | seeds | interquartile mean [95% interval] | mean | lowest, highest |'
    assert lines[4].endswith('| 3.5 | 0, 7 |')


def test_one_variant_has_a_line_for_each_comparison(tmp_path):
    lines = written(
        tmp_path, [*results('a', [1]), *results('a', [2], 'regret')], 'a,x,3,A,,regret\na,y,4,B,Snake,\nb,z,5,C,,\n'
    )
    assert lines == [
        'From [results.csv](results.csv). Environment: Catch.', '',
        '| measure | one seed | published |', '| --- | --- | --- |',
        '| return | 1 |  |', '| regret | 2 | 3 |', '',
        'Published: 3 (x); A.',
    ]  # fmt: skip


@pytest.mark.parametrize('others', [(), ('c',)])
def test_variants_of_several_comparisons_are_cells(tmp_path, others):
    places = ['Catch', 'Maze', 'Snake']
    rows = [line for place in places for line in results('a', [1, 1, 4], environment=place)]
    rows += [line for other in others for place in places for line in results(other, [3], environment=place)]
    rows += results('b', [7, 8], environment='Maze') + results('d', range(4), environment='Maze') * bool(others)
    lines = written(tmp_path, rows, 'b,best,9,A,Maze,\n')
    cell = '2 [1, 4]; 2; 1, 1, 4'
    table = [line.strip('| ').split(' | ') for line in lines if line.startswith('|')]
    if others:
        assert table[0] == ['variant', 'Catch', 'Maze', 'Snake']
        assert table[2:4] == [['a', cell, cell, cell], ['c', '3', '3', '3']]
        assert table[4][2] == '7.5; 7.5; 7, 8; published 9'
        assert table[5][2] == '1.5 [0, 3]; 1.5; 0, 3'
    else:
        assert table[0] == ['environment', 'a', 'b']
        assert table[2][:2] == ['Catch', cell]
        assert table[3] == ['Maze', cell, '7.5; 7.5; 7, 8; published 9']
    assert 'In each cell: interquartile mean over seeds [95% bootstrap interval]; mean;' in ' '.join(lines)


BEGIN = '<!-- report: results.csv -->'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('Nothing\n', 'page.md has no table to write'),
        (f'One\n{BEGIN}\n', 'page.md, line 2: the table that begins here has no <!-- end of report -->'),
        (f'{BEGIN}\n{BEGIN}\n{result_pages.END}\n', 'page.md, line 1: the table that begins here has no'),
        (f'\n{result_pages.END}\n', 'page.md, line 2: a table begins with <!-- report: FILE.csv -->'),
        (f'<!-- report results.csv -->\n{result_pages.END}\n', 'line 1: a table begins with <!-- report: FILE.csv -->'),
        (f'{BEGIN[:-4]}, from: x.csv -->\n{result_pages.END}\n', 'line 1: a table begins with'),
    ],
)
def test_a_mark_that_is_wrong_or_missing_is_named(tmp_path, text, message):
    (tmp_path / 'page.md').write_text(text)
    with pytest.raises(RunTableError) as error:
        result_pages.updated(tmp_path / 'page.md')
    assert message in str(error.value)


# The page of the project.


def test_the_tables_of_the_page_are_what_its_lists_say():
    assert result_pages.updated(PAGE) == PAGE.read_text(encoding='utf-8')


def test_every_list_of_results_is_on_the_page():
    text, shown = PAGE.read_text(encoding='utf-8'), {each.results for each in result_pages.marked(PAGE)}
    for path in (DOCS / 'results').glob('*.csv'):
        with path.open() as file:
            is_list = set(next(csv.reader(file))) >= set(result_lists.NEEDED)
        if is_list:
            result_lists.read([path])
            assert f'results/{path.name}' in shown or f'`results/{path.name}`' in text, path.name


def test_published_values_name_their_source_and_are_found():
    values = published.read(DOCS / 'results' / 'published.csv')  # Each has a source, or it is refused.
    text = ' '.join(PAGE.read_text(encoding='utf-8').split())
    tables = [each for each in result_pages.marked(PAGE) if each.published]
    beside = [
        value for each in tables for found in result_lists.read([DOCS / each.results]) for variant in found.variants
        for value in values if value.variant == variant.name and value.is_of(found.environment, found.measure)
    ]  # fmt: skip
    assert len(beside) == 10
    for value in beside:
        assert f'({value.what})' in text
        assert f'; {value.source}.' in text


def test_published_returns_of_snake_are_of_the_environment_of_its_variants(tmp_path):
    gin_config.load(['gin/snake/meta_discount_outer_critic.gin'])
    (tmp_path / 'config.gin').write_text(gin_config.config_str())
    environment = variants.environment_of(gin_config.bindings_of(tmp_path / 'config.gin'))
    measure = variants.Measure('eval', 'stochastic/episode_return', 0.1)
    values = published.read(DOCS / 'results' / 'published.csv')
    assert {each.variant for each in values if each.is_of(environment, measure)} == {
        'actor_critic', 'meta_discount', 'meta_discount_outer_critic', 'bootstrapped', 'bootstrapped_outer_critic'
    }  # fmt: skip
