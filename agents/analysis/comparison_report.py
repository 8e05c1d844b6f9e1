"""Writes the comparison of variants: tables in Markdown, CSV and LaTeX, figures, and a page."""

import csv
import datetime
import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from agents.analysis import (
    comparison,
    comparison_figures,
    comparison_page,
    comparison_plots,
    result_lists,
    tables,
    variants,
)
from agents.analysis.comparison_figures import MAX_SHOWN, Compared
from agents.analysis.published import Published
from agents.analysis.result_lists import Comparison
from agents.analysis.run_tables import ListedRun, Run, RunTableError
from agents.analysis.variants import Configurations, Measure, Variant

LAST = 0.1
"""Share of a seed's rows that are its final performance, if another is not asked for."""

RESULTS = 'results.csv'
"""List of the final performance of each seed, which can be given in the place of the runs."""

_REPLICAS = 'agents.experiments.experiment.Experiment.replicas'

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Header and lines."""


class AnyReport(Protocol):
    """What a report can be asked."""

    def write(self) -> None:
        """Writes all files.

        Raises:
          PlotlyMissingError: if plotly is not installed, when all but the page is written.
        """
        ...

    def table(self) -> Table:
        """What is shown first: a line for each variant or agent."""
        ...

    def about(self) -> str:
        """What was compared, in a line."""
        ...

    def partial(self) -> list[str]:
        """Names of variants that are not complete."""
        ...

    def failed(self) -> list[ListedRun]:
        """Runs that have failed for good, and so stay partial."""
        ...

    def awaited(self) -> list[str]:
        """Names of variants and runs of which there may be more later."""
        ...


class Report(NamedTuple):
    """What is compared, and where the files are put.

    Attributes:
      environment: in which the variants were measured.
      measure: what they are compared by.
      variants: all of them.
      configurations: of their runs; None if they are from a list of results.
      out: folder of the files.
      published: values to compare with; those of other environments and measures are left out.
      listed: runs that sweeps are to train.
    """

    environment: str
    measure: Measure
    variants: Sequence[Variant]
    configurations: Configurations | None
    out: pathlib.Path
    published: Sequence[Published] = ()
    listed: Sequence[ListedRun] = ()

    def table(self) -> Table:
        return comparison_table(self.variants)

    def partial(self) -> list[str]:
        return [variant.name for variant in self.variants if not variant.is_complete]

    def failed(self) -> list[ListedRun]:
        return variants.failed_runs(self.variants, self.listed)

    def awaited(self) -> list[str]:
        return variants.awaited(self.variants, self.listed)

    def shown(self) -> list[Variant]:
        """The variants that figures show: the best ones, if there are more than can be told apart."""
        known = [variant for variant in self.variants if len(variant.seeds)]
        best = sorted(known, key=lambda variant: -float(comparison.interquartile_mean(variant.final)))[:MAX_SHOWN]
        return [variant for variant in known if variant in best]

    def fitting(self) -> list[Published]:
        """The published values of this environment and measure."""
        return [each for each in self.published if each.is_of(self.environment, self.measure)]

    def write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        shown = self.shown()
        with_curves = shown if self.configurations else []
        curves = {variant.name: variants.read_curves(variant, self.measure) for variant in with_curves}
        figures = comparison_figures.figures(Compared(self.measure, shown, curves, self.fitting()))
        labels = {variant.name: comparison_figures.label(variant) for variant in shown}
        styles = comparison_figures.styles(list(labels))
        results = self._write_tables(shown)
        for figure in figures:
            for ending, contents in comparison_plots.draw(figure, labels, styles).items():
                _write(self.out / f'{figure.name}.{ending}', contents)
        title = 'Comparison of ' + (
            f'{len(self.variants)} variants' if len(self.variants) > 1 else self.variants[0].name
        )
        _write(self.out / 'report.md', _markdown_page(title, self.about(), figures, results).encode())
        javascript = comparison_page.plotly_javascript()
        text = comparison_page.page(title, self.about(), figures, labels, styles, results, javascript)
        _write(self.out / 'report.html', text.encode())

    def about(self) -> str:
        partial = len(self.partial())
        not_started, failed = (
            variants.not_started(self.listed),
            [f'{run.name} ({run.failure})' for run in self.failed()],
        )
        parts = [
            f'Environment: {self.environment}.',
            f'Final performance: {self.measure.description}.',
            f'{partial} of {len(self.variants)} variants are partial.' if partial else '',
            f'Not started yet: {comparison_figures.few(not_started)}.' if not_started else '',
            f'Failed: {comparison_figures.few(failed)}.' if failed else '',
            '' if self.configurations else 'From a list of results, which has no curves.',
            'No published value is of this environment and measure.' if self.published and not self.fitting() else '',
            f'Figures show the best {MAX_SHOWN} of {len(self.variants)}.' if len(self.variants) > MAX_SHOWN else '',
            f'Written {datetime.datetime.now().astimezone():%Y-%m-%d %H:%M}.',
        ]
        return ' '.join(filter(None, parts))

    def _write_tables(self, shown: Sequence[Variant]) -> dict[str, Table]:
        results = {'comparison': self.table()}
        if len(shown) > 1:
            results['probability_of_improvement'] = probability_table(shown)
        if self.configurations:
            differing = differences_table(self.variants, self.configurations)
            if differing[1] and len(differing[0]) > 1:
                results['differences'] = differing
        for name, table in results.items():
            write_table(self.out / name, table)
        result_lists.write(self.out / RESULTS, Comparison(self.environment, self.measure, self.variants))
        titles = {
            'comparison': f'Comparison by {self.measure}',
            'probability_of_improvement': 'Probability of improvement, by pair',
            'differences': 'What differs between the configurations',
        }
        return {titles[name]: table for name, table in results.items()}


def write(reports: Sequence[AnyReport]) -> comparison_page.PlotlyMissingError | None:
    """Writes the files of reports; returns why they have no page if they have none."""
    missing = None
    for report in reports:
        try:
            report.write()
        except comparison_page.PlotlyMissingError as error:
            missing = error
    return missing


def failed(reports: Sequence[AnyReport]) -> list[ListedRun]:
    """Runs that have failed for good, by the reports of several environments."""
    return [run for run in reports[0].failed() if all(run in report.failed() for report in reports)]


def write_table(path: pathlib.Path, table: Table) -> None:
    """Writes a table in Markdown, CSV and LaTeX to files of that name, which get an ending each."""
    for ending, text in {'md': markdown, 'csv': csv_text, 'tex': latex}.items():
        _write(path.with_name(f'{path.name}.{ending}'), text(*table).encode())


def _markdown_page(
    title: str, about: str, figures: Sequence[comparison_figures.Figure], results: Mapping[str, Table]
) -> str:
    """The report in Markdown: figures with their captions, and the tables."""
    parts = [f'# {title}', about]
    for figure in figures:
        parts += [f'## {figure.title}', f'![{figure.title}]({figure.name}.png)', figure.caption]
    for name, table in results.items():
        parts += [f'## {name}', markdown(*table).rstrip()]
    return '\n\n'.join([*parts, ''])


def _write(path: pathlib.Path, contents: bytes) -> None:
    """Writes a file that is always whole, for those who look at it while it is written again."""
    beside = path.with_name(f'{path.name}.new')
    beside.write_bytes(contents)
    os.replace(beside, path)


def comparison_table(all_variants: Sequence[Variant]) -> Table:
    """A line for each variant: its seeds, how far it is, and its final performance with a 95% interval."""
    header = ['variant', 'seeds', 'status', 'env_steps', 'interquartile mean', '95% low', '95% high', 'mean', 'median']
    return [*header, 'lowest', 'highest'], [_line(variant) for variant in all_variants]


def _line(variant: Variant) -> list[str]:
    figures = [float('nan')] * 7
    final = variant.final
    if len(final):
        statistics = [final.mean(), np.median(final), final.min(), final.max()]
        figures = [float(x) for x in (*comparison.interquartile_mean_interval(final), *statistics)]
    seeds = str(len(final)) + (f' of {variant.num_seeds}' if variant.num_seeds > len(final) else '')
    return [variant.name, seeds, variant.status, tables.number(variant.env_steps), *map(tables.number, figures)]


def probability_table(shown: Sequence[Variant]) -> Table:
    """A line for each pair of variants: how probable it is that the first improves on the second."""
    lines = [
        [first.name, second.name, *(tables.number(float(x)) for x in estimate)]
        for first, second, estimate in comparison_figures.pairs(shown)
    ]
    return ['variant', 'improves on', 'probability', '95% low', '95% high'], lines


def differences_table(all_variants: Sequence[Variant], configurations: Configurations) -> Table:
    """A line for each variant, a column for each path of replicas and each binding that differs between them.

    At a path of replicas, variants that are no replicas have the number of their configuration.
    """
    runs = list(dict.fromkeys(variant.run for variant in all_variants))
    bound = configurations.differences(runs)
    columns = {}
    for path in dict.fromkeys(path for variant in all_variants for path in variant.replica_values):
        numbers = {run: configurations.number_at(run, path) for run in runs}
        texts = {run: f'{number.value:g}' if number else '' for run, number in numbers.items()}
        columns[path] = [variant.replica_values.get(path, texts[variant.run]) for variant in all_variants]
        for name in [_REPLICAS, *(number.binding for number in numbers.values() if number)]:
            bound.pop(name, None)  # The path's column has what it says.
    for name, values in zip(_short_names(list(bound)), bound.values(), strict=True):
        by_run = dict(zip(runs, values, strict=True))
        columns[name] = [_short_value(by_run[variant.run]) for variant in all_variants]
    columns = {name: cells for name, cells in columns.items() if len(set(cells)) > 1}
    lines = [[variant.name, *(cells[i] for cells in columns.values())] for i, variant in enumerate(all_variants)]
    return ['variant', *columns], lines


def _short_names(names: Sequence[str]) -> list[str]:
    """Names of bindings without their modules, unless they would be the same."""
    short = [re.sub(r'([\w.]+\.)?(\w+\.\w+)$', r'\2', name) for name in names]
    return [each if short.count(each) == 1 else name for each, name in zip(short, names, strict=True)]


def _short_value(value: str) -> str:
    """A value without the modules of the classes in it."""
    return re.sub(r'@((?:\w+/)*)(?:\w+\.)+(\w+)', r'@\1\2', value)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [header, ['---'] * len(header), *lines]
    return ''.join(f'| {" | ".join(cell.replace("|", chr(92) + "|") for cell in row)} |\n' for row in rows)


def csv_text(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as CSV; names of columns have underscores."""
    text = io.StringIO()
    names = [name.replace(' ', '_').removeprefix('95%_') for name in header]
    csv.writer(text, lineterminator='\n').writerows([names, *lines])
    return text.getvalue()


_LATEX = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}'}
_LATEX |= {character: f'\\{character}' for character in '&%$#_{}'}


def latex(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in LaTeX, for the package booktabs."""
    rows = [' & '.join(''.join(_LATEX.get(x, x) for x in cell) for cell in row) + r' \\' for row in [header, *lines]]
    columns = 'l' * len(header)
    parts = [rf'\begin{{tabular}}{{{columns}}}', r'\toprule', rows[0], r'\midrule', *rows[1:], r'\bottomrule']
    return '\n'.join([*parts, r'\end{tabular}', ''])


def reports_of(
    runs: Sequence[Run],
    out: pathlib.Path,
    share: float,
    *,
    table: str | None = None,
    column: str | None = None,
    published: Sequence[Published] = (),
    listed: Sequence[ListedRun] = (),
    by_environment: bool = False,
) -> list[Report]:
    """Reads what a report of runs needs.

    Args:
      runs: that are compared.
      out: folder of the report.
      share: of a seed's rows that are its final performance.
      table: as `variants.measure_of` takes it.
      column: likewise.
      published: values to compare with.
      listed: runs that sweeps are to train.
      by_environment: whether runs in different environments get a report each, in a folder each.

    Raises:
      RunTableError: if a table is damaged, there is nothing to compare, or environments are different.
      ConfigurationError: if a run's configuration cannot be read.
    """
    configurations = Configurations(runs)
    groups = variants.by_environment(runs, configurations)
    if len(groups) > 1 and not by_environment:
        named = '; '.join(
            f'{environment} ({comparison_figures.few([run.name for run in each])})'
            for environment, each in groups.items()
        )
        raise RunTableError(
            f'runs of different environments cannot be compared: {named}; give the runs of one, or --by_environment '
            'for a report of each, or --over_games for statistics over many games'
        )
    made = []
    for folder, (environment, group) in zip(_folders(out, list(groups)), groups.items(), strict=True):
        measure = variants.measure_of(group, share, table, column)
        found = variants.read_variants(group, measure, configurations)
        made.append(Report(environment, measure, found, configurations, folder, published, listed))
    return made


def reports_of_lists(
    paths: Sequence[pathlib.Path], out: pathlib.Path, published: Sequence[Published] = ()
) -> list[Report]:
    """Reads what a report of lists of results needs: one for each environment and measure, in a folder each.

    Args:
      paths: of the lists.
      out: folder of the report.
      published: values to compare with.

    Raises:
      RunTableError: if a list is damaged.
    """
    comparisons = result_lists.read(paths)
    folders = _folders(out, result_lists.labels(comparisons))
    return [
        Report(each.environment, each.measure, each.variants, None, folder, published)
        for each, folder in zip(comparisons, folders, strict=True)
    ]


def _folders(out: pathlib.Path, labels: Sequence[str]) -> list[pathlib.Path]:
    """A folder for each of several reports; the folder itself for one."""
    if len(labels) == 1:
        return [out]
    names = [re.sub(r'\W+', '_', label).strip('_')[:100] for label in labels]
    return [out / (name if names.count(name) == 1 else f'{name}_{i}') for i, name in enumerate(names)]
