"""Rows, a table and a plot of the noise of meta-gradients."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import rich.table

from agents.analysis import signal_to_noise, tables
from agents.analysis.gradient_noise import NoiseSummary, WeightedEstimator

WITH_INTERVALS = ('variance_ratio', 'signal_to_noise', 'signal_to_noise_gain')


def rows(
    checkpoint: str,
    summaries: Mapping[tuple[WeightedEstimator, str], NoiseSummary],
    num_unrolls: int,
    num_reference_unrolls: int,
) -> Iterator[tables.Row]:
    """A row for each estimator and meta-parameter of a checkpoint.

    Args:
      checkpoint: the number of meta-updates of the frozen agent.
      summaries: from `gradient_noise.summarise_noise`.
      num_unrolls: that they are of.
      num_reference_unrolls: that the reference is of.
    """
    for (estimator, path), summary in summaries.items():
        yield {
            'checkpoint': checkpoint,
            'num_inner_steps': estimator.num_inner_steps,
            'step_weights': str(estimator.step_weights),
            'meta_parameter': path,
            'num_unrolls': num_unrolls,
            'num_reference_unrolls': num_reference_unrolls,
            'signal_to_noise_method': signal_to_noise.METHOD,
            **_figures(summary),
        }


def _figures(summary: NoiseSummary) -> dict[str, str]:
    figures: dict[str, str] = {}
    for name, value in summary._asdict().items():
        if isinstance(value, tuple):
            name = name.removesuffix('_interval')
            figures |= {f'{name}_low': tables.number(value[0]), f'{name}_high': tables.number(value[1])}
        else:
            figures[name] = tables.number(value)
    return figures


def table(rows: Sequence[tables.Row]) -> rich.table.Table:
    """A line for each row, with 95% intervals."""
    columns = ['checkpoint', 'K', 'weights', 'meta-parameter', 'variance', 'LastStep variance / this']
    columns += ['signal-to-noise', 'less that of LastStep', 'cosine']
    caption = f'signal-to-noise: {signal_to_noise.METHOD}, 0 if that is negative; 95% intervals'
    return tables.table(columns, map(_line, rows), caption=caption)


def _line(row: tables.Row) -> list[str]:
    keys = [str(row[name]) for name in ('checkpoint', 'num_inner_steps', 'step_weights', 'meta_parameter')]
    intervals = [f'{row[n]} [{row[f"{n}_low"]}, {row[f"{n}_high"]}]' if row[n] else '' for n in WITH_INTERVALS]
    return [*keys, row['variance'], *intervals, row['cosine'] or 'unresolved']


def plot(path: pathlib.Path, rows: Sequence[tables.Row]) -> None:
    """Signal-to-noise with its interval, a panel for each checkpoint and meta-parameter."""
    labels, names = (list(dict.fromkeys(row[name] for row in rows)) for name in ('checkpoint', 'meta_parameter'))
    groups = tables.grouped(rows, 'checkpoint', 'meta_parameter')
    with tables.panels(path, len(labels), len(names), (3.2, 2.4), share_y=True) as axes:
        for panel, (label, name) in zip(axes.flat, ((label, name) for label in labels for name in names), strict=True):
            here = groups[label, name]
            ys = range(len(here))
            value, low, high = (
                np.array([float(row[f'signal_to_noise{end}'] or 'nan') for row in here])
                for end in ('', '_low', '_high')
            )
            panel.hlines(ys, low, high)
            panel.plot(value, ys, 'o', markersize=4)
            panel.set_yticks(ys, [f'K={row["num_inner_steps"]} {row["step_weights"]}' for row in here], fontsize=6)
            panel.set_title(f'checkpoint {label}\n{name}', fontsize=7)
            panel.tick_params(axis='x', labelsize=6)
            panel.grid(axis='x', alpha=0.3)
        axes[0, 0].figure.supxlabel('signal-to-noise of one unroll, 95% interval', fontsize=8)
