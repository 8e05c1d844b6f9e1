"""Compares the variants of a sweep, or of any run folders: figures, tables and one HTML page.

    python tools/report.py runs/sweep
    python tools/report.py runs/sweep runs/more --out runs/report --watch
    python tools/report.py runs/snake --published docs/results/published.csv
    python tools/report.py docs/results/catch.csv --out runs/catch_report
    python tools/report.py --update docs/reproductions.md

A variant is a run folder, or the part of one that has the same values of its columns replica/...; its seeds are those
of the column seed. Variants are compared by stochastic/episode_return of eval.csv where every run has evaluations, else
by episode_return of train.csv; --table and --column choose another column. Final performance is the mean over the last
tenth of a seed's rows (--last). Intervals are 95% bootstrap intervals of the interquartile mean over seeds; fewer than
three seeds have none. Runs that are not complete are marked as partial.

Writes to --out, by default the folder report in the first folder: report.html, which opens offline; each figure as PNG
and PDF (learning curves, final performance, performance profiles, probability of improvement, meta-parameters, their
signal-to-noise); tables in Markdown, CSV and LaTeX; and results.csv, a list of the final performance of each seed.
Lists can be given in the place of runs; they have no curves (agents/analysis/result_lists.py). With --over_games,
human-normalised scores over the games that each agent has runs of, in tables. --watch writes it again until all runs
are complete or have failed for good. --update writes the marked tables of a Markdown page again.

Exit status: 0, 2 when what was asked for cannot be done, or 130 after Ctrl-C.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents.analysis import comparison_report, games_report, published, result_pages, run_tables, tables
from agents.analysis.comparison_page import PlotlyMissingError
from components.types import ConfigurationError
from tools.command_line import Parser, run_command
from tools.option_types import at_least, share

FOR_RUNS = ('watch', 'last', 'table', 'column', 'by_environment', 'over_games')
"""Options that lists of results have no use for."""

INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _report, arguments)


def _report(args: argparse.Namespace) -> int:
    if args.update:
        return _update(args)
    if not args.folder:
        raise ConfigurationError('give folders of runs, or lists of results, or --update with a page')
    try:
        while not _is_finished(args):
            time.sleep(args.watch)
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def _update(args: argparse.Namespace) -> int:
    """Writes the tables of a page again."""
    if args.folder:
        raise ConfigurationError(f'--update reads the lists that {args.update} names: give no others')
    is_changed = result_pages.update(args.update)
    print(f'{args.update}: ' + ('written again' if is_changed else 'its tables are as its lists say'))
    return 0


def _is_finished(args: argparse.Namespace) -> bool:
    """Writes all reports; returns whether they need not be written again."""
    listed = run_tables.listed_runs(args.folder)
    try:
        reports, missing = _write(args, listed)
    except run_tables.NothingYetError as error:
        if not args.watch or (listed and all(run.failure is not None for run in listed)):
            raise
        print(f'waiting: {error}', flush=True)
        return False
    is_finished = not (args.watch and any(report.awaited() for report in reports))
    if is_finished:
        for run in comparison_report.failed(reports):
            print(f'failed: {run.name}: {run.failure}', flush=True)
        if missing:
            raise missing
    return is_finished


def _write(
    args: argparse.Namespace, listed: Sequence[run_tables.ListedRun]
) -> tuple[Sequence[comparison_report.AnyReport], PlotlyMissingError | None]:
    """Writes all reports; returns them, and why there is no page."""
    first = args.folder[0]
    out = args.out or (first.parent if first.is_file() else first) / 'report'
    reports = _reports(args, out, listed)
    missing = comparison_report.write(reports)
    for report in reports:
        tables.show(tables.table(*report.table(), caption=report.about()))
    partial = sum(len(report.partial()) for report in reports)
    print(f'results are in {out}' + (f'; {partial} variants are partial' if partial else ''), flush=True)
    return reports, missing


def _reports(
    args: argparse.Namespace, out: pathlib.Path, listed: Sequence[run_tables.ListedRun]
) -> Sequence[comparison_report.AnyReport]:
    values = published.read(args.published) if args.published else []
    if any(path.is_file() for path in args.folder):
        if given := [name for name in FOR_RUNS if getattr(args, name)]:
            raise ConfigurationError(f'--{given[0]} is for runs: a list of results says itself what was measured')
        return comparison_report.reports_of_lists(args.folder, out, values)
    runs, last = run_tables.find_runs(args.folder), args.last or comparison_report.LAST
    if args.over_games:
        return [games_report.report_of(runs, out, last, args.table, args.column, listed)]
    return comparison_report.reports_of(
        runs, out, last, table=args.table, column=args.column, published=values, listed=listed,
        by_environment=args.by_environment,
    )  # fmt: skip


def _parser() -> Parser:
    parser = Parser(__doc__)
    add = parser.add_argument
    add('folder', type=pathlib.Path, nargs='*', help='that holds run folders, at any depth; or a list of results')
    add('--out', type=pathlib.Path, help='folder for results; default: report in the first folder')
    add('--watch', type=at_least(1), nargs='?', const=30, metavar='SECONDS', help='write again; default 30')
    add('--last', type=share, metavar='SHARE', help=f'rows of final performance; default {comparison_report.LAST}')
    add('--table', choices=(run_tables.TRAIN, run_tables.EVAL), help='which to compare by')
    add('--column', help='of that table, by default of train.csv')
    add('--published', type=pathlib.Path, metavar='CSV', help='published values to draw')
    add('--by_environment', action='store_true', help='a report for each environment, in a folder each')
    add('--over_games', action='store_true', help='statistics of agents over many games, in tables')
    add('--update', type=pathlib.Path, metavar='PAGE', help='write the marked tables of a page again')
    return parser


if __name__ == '__main__':
    sys.exit(main())
