"""Compares the variants of a sweep, or of any run folders: figures, tables and one HTML page.

    python tools/report.py runs/sweep
    python tools/report.py runs/sweep runs/more --out runs/report --watch
    python tools/report.py runs/snake --published docs/results/published.csv
    python tools/report.py runs/walks --column monitor/state_value_error --last 0.05

A variant is a run folder, or the part of one that has the same values of its columns replica/...; its seeds are those
of the column seed. Variants are compared by stochastic/episode_return of eval.csv where every run has evaluations, else
by episode_return of train.csv; --table and --column choose another column. Final performance is the mean over the last
tenth of a seed's rows (--last). Intervals are 95% bootstrap intervals of the interquartile mean over seeds; fewer than
three seeds have none. Runs that are not complete are marked as partial.

Writes to --out, by default the folder report in the first folder: report.html, which opens offline; each figure as PNG
and PDF (learning curves, final performance, performance profiles, probability of improvement, meta-parameters, their
signal-to-noise); and the tables comparison, probability_of_improvement and differences, each in Markdown, CSV and
LaTeX. With --over_games, median, mean and interquartile mean over the games that each agent has runs of, by the column
human_normalised or stochastic/human_normalised. --watch writes them again until all runs are complete; Ctrl-C ends it. Exit status: 0, 2 when what was asked for
cannot be done, or 130 after Ctrl-C.
"""

import argparse
import pathlib
import sys
import time

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

from agents.analysis import comparison_report, games_report, run_tables, tables
from agents.analysis.comparison_page import PlotlyMissingError
from tools.command_line import Parser, at_least, run_command

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
    try:
        while not _is_finished(args):
            time.sleep(args.watch)
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def _is_finished(args: argparse.Namespace) -> bool:
    """Writes all reports; returns whether they need not be written again."""
    try:
        unfinished, missing = _write(args)
    except run_tables.NothingYetError as error:
        if not args.watch:
            raise
        print(f'waiting: {error}', flush=True)
        return False
    is_finished = not (args.watch and unfinished)
    if missing and is_finished:
        raise missing
    return is_finished


def _write(args: argparse.Namespace) -> tuple[list[str], PlotlyMissingError | None]:
    """Writes all reports; returns the names of variants and runs that are not complete, and why there is no page."""
    out, missing = args.out or args.folder[0] / 'report', None
    if args.over_games:
        return _write_over_games(args, out), None
    not_started = run_tables.not_started(args.folder)
    reports = comparison_report.reports_of(
        run_tables.find_runs(args.folder),
        out,
        args.last,
        table=args.table,
        column=args.column,
        published=comparison_report.read_published(args.published) if args.published else [],
        not_started=not_started,
        by_environment=args.by_environment,
    )
    for report in reports:
        try:
            report.write()
        except PlotlyMissingError as error:
            missing = error
        tables.show(tables.table(*comparison_report.comparison_table(report.variants), caption=report.about()))
    partial = [variant.name for report in reports for variant in report.variants if not variant.is_complete]
    print(f'results are in {out}' + (f'; {len(partial)} variants are partial' if partial else ''), flush=True)
    return partial + not_started, missing


def _write_over_games(args: argparse.Namespace, out: pathlib.Path) -> list[str]:
    """Writes the report over games; returns the names of runs that are not complete."""
    report = games_report.report_of(run_tables.find_runs(args.folder), args.last, args.table, args.column)
    report.write(out)
    tables.show(tables.table(*report.over_games(), caption=report.about()))
    print(f'results are in {out}', flush=True)
    return report.partial() + run_tables.not_started(args.folder)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f'must be a share of the rows above 0 and at most 1, got {text}')
    return share


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('folder', type=pathlib.Path, nargs='+', help='a folder that holds run folders, at any depth')
    parser.add_argument('--out', type=pathlib.Path, help='folder for results; default: report in the first folder')
    parser.add_argument(
        '--watch', type=at_least(1), nargs='?', const=30, metavar='SECONDS', help='write again; default 30'
    )
    parser.add_argument(
        '--last', type=_share, default=0.1, metavar='SHARE', help='rows of final performance; default 0.1'
    )
    parser.add_argument('--table', choices=(run_tables.TRAIN, run_tables.EVAL), help='which to compare by')
    parser.add_argument('--column', help='of that table, by default of train.csv')
    parser.add_argument('--published', type=pathlib.Path, metavar='CSV', help='published values to draw')
    parser.add_argument('--by_environment', action='store_true', help='a report for each environment, in a folder each')
    parser.add_argument('--over_games', action='store_true', help='statistics of agents over many games, in tables')
    return parser


if __name__ == '__main__':
    sys.exit(main())
