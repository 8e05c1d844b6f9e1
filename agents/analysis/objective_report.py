"""Rows, a table and a plot of what the learned objectives of a run have discovered, checkpoint by checkpoint."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import rich.table

from agents.analysis import tables
from agents.analysis.learned_objectives import Inspector, ObjectiveSummary, best_fit, nearest, summarise_objective
from agents.analysis.reference_returns import KnownReturn
from agents.experiments.restore import RestoredRun

Findings = dict[str, dict[int, ObjectiveSummary]]
"""Of all seeds, leaves `[S, ...]`, by path of the learned objective and checkpoint."""

INPUTS = {'reward': 'reward r[t+1+j]', 'value': 'value v[t+1+j]', 'log_rho': 'log importance ratio of a[t+j]'}
"""What sensitivity is to, as the plot says it."""

FIGURES = ('distance', 'r_squared', 'correlation')
"""What a target is compared with a known return by."""

PRECISION = '.6g'
"""Of the numbers in CSV files."""


def inspect_seeds(run: RestoredRun, inspector: Inspector, acting_seed: int) -> ObjectiveSummary:
    """Looks at each seed's first lifetime, which acts with the same random numbers at every checkpoint.

    Returns:
      Leaves `[S, ...]`.
    """
    state, summaries = run.learner.state, []
    for seed in range(run.learner.num_replicas):
        meta_params, agents = jax.tree.map(lambda x, seed=seed: x[seed], (state.meta_params, state.agents))
        key = jax.random.fold_in(jax.random.key(acting_seed), seed)
        summaries.append(summarise_objective(inspector(meta_params, jax.tree.map(lambda x: x[0], agents), key)))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *summaries)


def distance_rows(findings: Findings, known: Sequence[KnownReturn]) -> Iterator[tables.Row]:
    """A row for each objective, checkpoint, seed and known return."""
    for keys, summary in _by_seed(findings):
        for i, label in enumerate(known):
            figures = {name: _number(getattr(summary, name)[i]) for name in FIGURES}
            parameters = {'discount': _number(label.discount), 'lambda': _number(label.lambda_)}
            yield {**keys, 'known_return': label.name, **parameters, **figures}


def sensitivity_rows(findings: Findings) -> Iterator[tables.Row]:
    """A row for each objective, checkpoint, seed, input and number of steps ahead."""
    for keys, summary in _by_seed(findings):
        for name, means in summary.sensitivity.items():
            for steps_ahead, (mean, count) in enumerate(zip(means, summary.num_pairs[name], strict=True)):
                here = {'input': name, 'steps_ahead': steps_ahead}
                yield {**keys, **here, 'sensitivity': _number(mean), 'num_pairs': int(count)}


def _by_seed(findings: Findings) -> Iterator[tuple[tables.Row, ObjectiveSummary]]:
    for path, checkpoints in findings.items():
        for checkpoint, summary in checkpoints.items():
            for seed in range(len(summary.distance)):
                keys = {'objective': path, 'checkpoint': checkpoint, 'seed': seed}
                yield keys, jax.tree.map(lambda x, seed=seed: x[seed], summary)


def _number(value: float | None) -> str:
    return tables.number(None if value is None else float(value), PRECISION)


def table(findings: Findings, known: Sequence[KnownReturn]) -> rich.table.Table:
    """Means over seeds: the nearest known return, the one that explains most, and the sensitivity to the next step."""
    columns = ['learned objective', 'checkpoint', 'nearest known return', 'distance', 'R^2', 'correlation']
    columns += ['best linear fit', 'R^2', 'to r[t+1]', 'to v[t+1]']
    lines = [
        [path, str(checkpoint), *_cells(_over_seeds(summary), known)]
        for path, checkpoints in findings.items()
        for checkpoint, summary in checkpoints.items()
    ]
    return tables.table(columns, lines)


def _cells(mean: ObjectiveSummary, known: Sequence[KnownReturn]) -> list[str]:
    def figure(x: np.ndarray, i: int | None) -> str:
        return '' if i is None else tables.number(float(x[i]), '.3g')

    near, fit = nearest(mean), best_fit(mean)
    compared = [figure(getattr(mean, name), near) for name in FIGURES]
    labels = ['' if i is None else str(known[i]) for i in (near, fit)]
    next_step = [figure(mean.sensitivity[x], 0) if x in mean.sensitivity else '' for x in ('reward', 'value')]
    return [labels[0], *compared, labels[1], figure(mean.r_squared, fit), *next_step]


def _over_seeds(summary: ObjectiveSummary) -> ObjectiveSummary:
    """Means over the seeds where a figure is known, NaN if it is for none."""

    def mean(x: np.ndarray) -> np.ndarray:
        count = np.sum(~np.isnan(x), 0)
        return np.where(count > 0, np.nansum(x, 0) / np.maximum(count, 1), np.nan)

    return jax.tree.map(mean, summary)


def plot(path: pathlib.Path, findings: Findings, known: Sequence[KnownReturn]) -> None:
    """For each learned objective: its distances from known returns over meta-updates, and a heat map for each input."""
    num_panels = 1 + max(len(next(iter(checkpoints.values())).sensitivity) for checkpoints in findings.values())
    with tables.panels(path, len(findings), num_panels, (4, 3.2)) as axes:
        for row, (name, checkpoints) in zip(axes, findings.items(), strict=True):
            means = {checkpoint: _over_seeds(summary) for checkpoint, summary in checkpoints.items()}
            _plot_distances(row[0], means, known)
            row[0].set_title(name, fontsize=8)
            inputs = next(iter(means.values())).sensitivity
            for panel, kind in zip(row[1:], inputs, strict=False):
                _plot_sensitivity(panel, {checkpoint: mean.sensitivity[kind] for checkpoint, mean in means.items()})
                panel.set_title(f'sensitivity to {INPUTS[kind]}', fontsize=8)
            for panel in row[1 + len(inputs) :]:
                panel.set_axis_off()


def _plot_distances(axes: Any, means: Mapping[int, ObjectiveSummary], known: Sequence[KnownReturn]) -> None:
    """A line for each kind of known return: that of its discounts and lambdas that comes nearest."""
    has_scale = any(not np.isnan(mean.distance).all() for mean in means.values())
    for name in dict.fromkeys(label.name for label in known):
        kind = np.array([label.name == name for label in known])
        figures = [mean.distance[kind].min() if has_scale else mean.correlation[kind].max() for mean in means.values()]
        axes.plot(list(means), figures, marker='.', label=name)
    axes.set_xlabel('meta-updates', fontsize=8)
    axes.set_ylabel(
        'distance from the nearest of the kind' if has_scale else 'highest correlation of the kind', fontsize=8
    )
    axes.tick_params(labelsize=6)
    axes.legend(fontsize=6)


def _plot_sensitivity(axes: Any, by_checkpoint: Mapping[int, np.ndarray]) -> None:
    heat = np.stack(list(by_checkpoint.values()), 1)  # Steps ahead upwards, checkpoints to the right.
    limit = max(np.nanmax(np.abs(heat)), np.finfo(float).tiny) if np.isfinite(heat).any() else 1
    image = axes.imshow(
        heat, cmap='RdBu_r', vmin=-limit, vmax=limit, origin='lower', aspect='auto', interpolation='nearest'
    )
    every = -(-heat.shape[1] // 8)  # As many labels as there is room for.
    axes.set_facecolor('0.85')  # Where there is nothing so far ahead, unlike where it is 0.
    axes.locator_params(axis='y', integer=True)
    axes.set_xticks(range(0, heat.shape[1], every), list(by_checkpoint)[::every], fontsize=6)
    axes.set_xlabel('meta-updates', fontsize=8)
    axes.set_ylabel('steps ahead j', fontsize=8)
    axes.tick_params(labelsize=6)
    axes.figure.colorbar(image, ax=axes).ax.tick_params(labelsize=6)
