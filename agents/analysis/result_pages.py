"""Tables in a Markdown page that compare variants by their seeds, written from lists of results.

A table stands between two lines. The first names its list by the path from the page, and may name published values:

    <!-- report: results/catch.csv, published: results/published.csv -->
    <!-- end of report -->

What is between them is written again, so that a page says what its lists say.
"""

import os
import pathlib
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from agents.analysis import comparison, published, result_lists, tables
from agents.analysis.comparison_figures import label
from agents.analysis.comparison_report import Table, markdown
from agents.analysis.published import Published
from agents.analysis.result_lists import Comparison
from agents.analysis.run_tables import RunTableError
from agents.analysis.variants import Variant

MAX_SEEDS = {'line': 5, 'cell': 3}
"""Of more seeds a line, or a cell, has the lowest and the highest result in the place of each."""

WIDTH = 120

END = '<!-- end of report -->'
_MARK = re.compile(r'^<!--\s*(?:end of )?report\b.*$', re.MULTILINE)
_START = re.compile(r'<!-- report: (\S+\.csv)(?:, published: (\S+\.csv))? -->')


class Marked(NamedTuple):
    """A table of a page.

    Attributes:
      results: path of its list, as the page has it.
      published: path of the list of published values beside them; None without one.
      start: of the text between its marks.
      stop: end of that text.
    """

    results: str
    published: str | None
    start: int
    stop: int


def marked(page: pathlib.Path) -> list[Marked]:
    """The tables of a page that are written from lists.

    Raises:
      RunTableError: if there is none, or a mark is wrong or missing; the message names page and line.
    """
    text = page.read_text(encoding='utf-8')
    marks = list(_MARK.finditer(text))
    if not marks:
        raise RunTableError(f'{page} has no table to write: put <!-- report: FILE.csv --> and {END} around it')
    found = []
    for opening, ending in zip(marks[::2], [*marks[1::2], None], strict=False):
        names = _START.fullmatch(opening[0].rstrip())
        line = f'{page}, line {text.count(chr(10), 0, opening.start()) + 1}'
        if names is None:
            raise RunTableError(
                f'{line}: a table begins with <!-- report: FILE.csv --> or <!-- report: FILE.csv, published: FILE.csv '
                f'-->, not with {opening[0]}'
            )
        if ending is None or ending[0].rstrip() != END:
            raise RunTableError(f'{line}: the table that begins here has no {END}')
        found.append(Marked(names[1], names[2], opening.end(), ending.start()))
    return found


def updated(page: pathlib.Path) -> str:
    """The text of a page with its tables written again.

    Raises:
      RunTableError: if a mark is wrong or missing, or a list is damaged.
    """
    text, parts, done = page.read_text(encoding='utf-8'), [], 0
    for each in marked(page):
        values = published.read(page.parent / each.published) if each.published else []
        written = section(each.results, result_lists.read([page.parent / each.results]), values)
        parts += [text[done : each.start], f'\n\n{written}\n\n']
        done = each.stop
    return ''.join([*parts, text[done:]])


def update(page: pathlib.Path) -> bool:
    """Writes the tables of a page again; returns whether it has changed.

    Raises:
      RunTableError: if a mark is wrong or missing, or a list is damaged; the page stays as it is.
    """
    text = updated(page)
    is_changed = text != page.read_text(encoding='utf-8')
    if is_changed:
        beside = page.with_name(f'{page.name}.new')
        beside.write_text(text, encoding='utf-8')
        os.replace(beside, page)
    return is_changed


def section(path: str, comparisons: Sequence[Comparison], values: Sequence[Published]) -> str:
    """The table of a list in Markdown, what its numbers are, and the sources of published ones.

    Args:
      path: of the list, as the page has it.
      comparisons: in the list.
      values: published ones; those of other variants, environments and measures are left out.
    """
    names = list(dict.fromkeys(label(variant) for each in comparisons for variant in each.variants))
    is_wide = len(comparisons) > 1 and len(names) > 1
    table = _wide_table(comparisons, names, values) if is_wide else _long_table(comparisons, values)
    parts = [_caption(path, comparisons, is_wide), markdown(*table).rstrip()]
    beside = [value for each in comparisons for variant in each.variants for value in _beside(each, variant, values)]
    if beside:
        parts.append(_sources(list(dict.fromkeys(beside))))
    return '\n\n'.join(parts)


def _sources(values: Sequence[Published]) -> str:
    """What published values are, and where each is from."""
    several = len({each.variant for each in values}) > 1
    by_source: dict[str, list[str]] = {}
    for each in values:
        whose = f'{each.variant} ' if several else ''
        by_source.setdefault(each.source, []).append(f'{whose}{tables.number(each.value)} ({each.what})')
    return _wrapped(' '.join(f'Published: {", ".join(texts)}; {source}.' for source, texts in by_source.items()))


def _caption(path: str, comparisons: Sequence[Comparison], is_wide: bool) -> str:
    """What the numbers of a table have in common."""
    found = [variant for each in comparisons for variant in each.variants]
    seeds = {len(variant.seeds) for variant in found}
    over = f'{seeds.pop()} seeds' if len(seeds) == 1 else 'seeds'
    interval = f'interquartile mean over {over} [{comparison.LEVEL:.0%} bootstrap interval]'
    most = max(len(variant.seeds) for variant in found)
    rest = '' if most == 1 else '; mean; ' + ('each seed' if most <= MAX_SEEDS['cell'] else 'lowest and highest seed')
    about = {
        'Environment': {each.environment for each in comparisons},
        'Measure': {str(each.measure) for each in comparisons},
        'In each cell': {f'{interval}{rest}'} if is_wide else set(),
    }
    same = [f'{name}: {texts.pop()}.' for name, texts in about.items() if len(texts) == 1]
    return _wrapped(' '.join([f'From [{path}]({path}).', *same]))


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _beside(compared: Comparison, variant: Variant, values: Sequence[Published]) -> list[Published]:
    """Published values of a variant in a comparison."""
    return [
        each for each in values
        if each.variant == variant.name and each.is_of(compared.environment, compared.measure)
    ]  # fmt: skip


def _published(compared: Comparison, variant: Variant, values: Sequence[Published]) -> str:
    return ', '.join(tables.number(each.value) for each in _beside(compared, variant, values))


def _long_table(comparisons: Sequence[Comparison], values: Sequence[Published]) -> Table:
    """A line for each variant of one comparison, or for each comparison of one variant."""
    lines = [(each, variant) for each in comparisons for variant in each.variants]
    names = result_lists.labels(comparisons) if len(comparisons) > 1 else [label(variant) for _, variant in lines]
    most = max(len(variant.seeds) for _, variant in lines)
    columns = {
        'seeds': [str(len(variant.seeds)) for _, variant in lines],
        'interquartile mean [95% interval]': [_interquartile_mean(variant) for _, variant in lines],
        'mean': [tables.number(float(variant.final.mean())) for _, variant in lines],
        'each seed': [_each(variant) for _, variant in lines],
        'lowest, highest': [_ends(variant) for _, variant in lines],
        'published': [_published(each, variant, values) for each, variant in lines],
    }
    if most == 1:
        columns = {'one seed': columns['mean'], 'published': columns['published']}
    columns.pop('each seed' if most > MAX_SEEDS['line'] else 'lowest, highest', None)
    if not any(columns['published']):
        del columns['published']
    first = ' '.join(result_lists.differing(comparisons)) if len(comparisons) > 1 else 'variant'
    return [first, *columns], [list(line) for line in zip(names, *columns.values(), strict=True)]


def _wide_table(comparisons: Sequence[Comparison], names: Sequence[str], values: Sequence[Published]) -> Table:
    """Variants by comparisons; a line for each of whichever there are more."""
    cells = {
        (place, label(variant)): _cell(each, variant, values)
        for place, each in enumerate(comparisons)
        for variant in each.variants
    }
    titles = result_lists.labels(comparisons)
    if len(comparisons) > len(names):
        lines = [[title, *(cells.get((i, name), '') for name in names)] for i, title in enumerate(titles)]
        return [' '.join(result_lists.differing(comparisons)), *names], lines
    lines = [[name, *(cells.get((i, name), '') for i in range(len(titles)))] for name in names]
    return ['variant', *titles], lines


def _cell(compared: Comparison, variant: Variant, values: Sequence[Published]) -> str:
    parts = [_interquartile_mean(variant)]
    if len(variant.seeds) > 1:
        parts.append(tables.number(float(variant.final.mean())))
        parts.append(_each(variant) if len(variant.seeds) <= MAX_SEEDS['cell'] else _ends(variant))
    if value := _published(compared, variant, values):
        parts.append(f'published {value}')
    return '; '.join(parts)


def _interquartile_mean(variant: Variant) -> str:
    value, *ends = (tables.number(float(x)) for x in comparison.interquartile_mean_interval(variant.final))
    return f'{value} [{", ".join(ends)}]' if all(ends) else value


def _each(variant: Variant) -> str:
    return ', '.join(tables.number(float(value)) for value in variant.final)


def _ends(variant: Variant) -> str:
    return f'{tables.number(float(variant.final.min()))}, {tables.number(float(variant.final.max()))}'
