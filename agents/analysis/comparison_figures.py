"""What the figures of a comparison of variants show, as data; `comparison_plots` and `comparison_page` draw them."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from agents.analysis import comparison, published
from agents.analysis.comparison import Estimate
from agents.analysis.published import Published
from agents.analysis.run_tables import TRAIN
from agents.analysis.variants import MEASURES, Curves, Measure, Variant

MAX_PAIRS = 21
"""In the figure of probabilities; of more pairs, it shows those of the best variant."""

NUM_THRESHOLDS = 101

_SIGNAL_TO_NOISE = 'meta_gradient_signal_to_noise'

_BANDS = f'interquartile mean over seeds, bands: {comparison.LEVEL:.0%} bootstrap intervals at each point'


class Line(NamedTuple):
    """A curve of a variant with its band: NaN where there is none."""

    variant: str
    x: np.ndarray
    estimate: Estimate


class Row(NamedTuple):
    """A row of a figure: a number of a variant with its interval, and those of its seeds."""

    variant: str
    label: str
    estimate: Estimate
    seeds: Mapping[int, float]


class Panel(NamedTuple):
    """A pair of axes with lines, or with rows from top to bottom.

    Attributes:
      title: above it.
      x_label: below it.
      y_label: beside it.
      lines: curves.
      rows: in the place of lines.
      published: lines across: at a height beside curves, at a place on the horizontal axis beside rows.
      middle: place on the horizontal axis of a thin line.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    rows: Sequence[Row] = ()
    published: Sequence[Published] = ()
    middle: float | None = None


class Figure(NamedTuple):
    """Panels that stand on top of one another.

    Attributes:
      name: of its files.
      title: of the whole.
      caption: how to read it, and what it leaves out.
      panels: at least one.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]


class Compared(NamedTuple):
    """What figures show.

    Attributes:
      measure: what the variants are compared by.
      variants: those that are shown and have a final performance, in the order of their colours.
      curves: of each, by table, by the variant's name.
      published: values to compare with.
    """

    measure: Measure
    variants: Sequence[Variant]
    curves: Mapping[str, Mapping[str, Curves]]
    published: Sequence[Published] = ()


def figures(compared: Compared) -> list[Figure]:
    """All figures that there is something to show in."""
    made = [learning_curves(compared), final_performance(compared), performance_profiles(compared)]
    if len(compared.variants) > 1:
        made.append(probabilities_of_improvement(compared))
    made += [meta_parameters(compared), signal_to_noise(compared)]
    return [figure for figure in made if any(panel.lines or panel.rows for panel in figure.panels)]


def few_seeds(variants: Iterable[Variant]) -> str:
    """Which variants have no intervals, and why; '' if all have them."""
    names = [variant.name for variant in variants if len(variant.seeds) < comparison.MIN_SEEDS]
    return f' No interval for {few(names)}: fewer than {comparison.MIN_SEEDS} seeds.' if names else ''


def partial(variants: Iterable[Variant]) -> str:
    """Which variants are judged by a part of their training; '' if none is."""
    names = [f'{variant.name} ({variant.status})' for variant in variants if not variant.is_complete]
    if not names:
        return ''
    return f' Not complete, judged by the rows that there are: {few(names)}.'


def few(names: Sequence[str]) -> str:
    """The first names of several."""
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')


def learning_curves(compared: Compared) -> Figure:
    """Curves of the measure over environment steps."""
    measure = compared.measure
    panel = Panel(
        '', 'environment steps', measure.column, _lines(compared, measure.table, measure.column),
        published=compared.published,
    )  # fmt: skip
    notes = few_seeds(compared.variants) + _sources(compared.published)
    caption = f'{measure} by environment steps: {_BANDS}.{_thinned(compared)}{notes}'
    return Figure('learning_curves', 'Learning curves', caption, [panel])


def _sources(values: Sequence[Published]) -> str:
    return f' Dotted: {published.sources(values)}.' if values else ''


def _thinned(compared: Compared) -> str:
    most = max((curves.rows_per_point for each in compared.curves.values() for curves in each.values()), default=1)
    return f' Points are means of up to {most} successive rows.' if most > 1 else ''


def _lines(compared: Compared, table: str, column: str) -> list[Line]:
    lines = []
    for variant in compared.variants:
        curves = compared.curves.get(variant.name, {}).get(table)
        if curves and column in curves.values:
            values = curves.values[column]
            values = values[np.isfinite(values).any(1)]
            is_known = np.isfinite(values).all(0)  # From where on every seed has a value.
            if is_known.any():
                estimate = comparison.interquartile_mean_interval(values[:, is_known], comparison.NUM_DRAWS_OF_CURVES)
                lines.append(Line(variant.name, curves.env_steps[is_known], estimate))
    return lines


def final_performance(compared: Compared) -> Figure:
    """Each seed's final performance, and the interquartile mean with its interval."""
    rows = [
        Row(
            variant.name,
            label(variant),
            comparison.interquartile_mean_interval(variant.final),
            dict(zip(map(int, variant.seeds), variant.final, strict=True)),
        )
        for variant in compared.variants
    ]
    notes = partial(compared.variants) + few_seeds(compared.variants) + _sources(compared.published)
    caption = (
        f'Final performance: {compared.measure.description}. Small dots: seeds. Large: interquartile mean with '
        f'{comparison.LEVEL:.0%} bootstrap interval.{notes}'
    )
    panel = Panel('', compared.measure.label, '', rows=rows, published=compared.published)
    return Figure('final_performance', 'Final performance', caption, [panel])


def label(variant: Variant) -> str:
    """A variant's name, marked if its run is not complete."""
    return variant.name if variant.is_complete else f'{variant.name} ({variant.status})'


def performance_profiles(compared: Compared) -> Figure:
    """Share of seeds above each threshold of final performance."""
    final = np.concatenate([variant.final for variant in compared.variants])
    margin = 0.02 * max(np.ptp(final), 1e-9)
    thresholds = np.linspace(final.min() - margin, final.max() + margin, NUM_THRESHOLDS)
    lines = [
        Line(variant.name, thresholds, comparison.performance_profile(variant.final, thresholds))
        for variant in compared.variants
    ]
    caption = (
        f'Share of seeds whose final performance is above a threshold; bands: {comparison.LEVEL:.0%} bootstrap '
        f'intervals at each threshold.{partial(compared.variants)}{few_seeds(compared.variants)}'
    )
    panel = Panel('', f'threshold of {compared.measure.label}', 'share of seeds above', lines)
    return Figure('performance_profiles', 'Performance profiles', caption, [panel])


def pairs(variants: Sequence[Variant]) -> Iterator[tuple[Variant, Variant, Estimate]]:
    """Pairs of variants with the probability that the first improves on the second, the best variants first."""
    best_first = sorted(variants, key=lambda variant: -float(comparison.interquartile_mean(variant.final)))
    for first, second in itertools.combinations(best_first, 2):
        yield first, second, comparison.probability_of_improvement(first.final, second.final)


def probabilities_of_improvement(compared: Compared) -> Figure:
    """Probability that a seed of one variant ends above one of another, for pairs of variants."""
    shown, rest = list(pairs(compared.variants)), ''
    if len(shown) > MAX_PAIRS:
        shown = shown[: len(compared.variants) - 1]
        rest = ' Only pairs with the best variant are drawn; probability_of_improvement.csv has all.'
    notes = rest + partial(compared.variants) + few_seeds(compared.variants)
    rows = [Row(first.name, f'{first.name} > {second.name}', estimate, {}) for first, second, estimate in shown]
    caption = (
        'Probability that a seed of the first variant has a higher final performance than one of the second, with '
        f'{comparison.LEVEL:.0%} bootstrap interval; 0.5: no difference.{notes}'
    )
    panel = Panel('', 'probability of improvement', '', rows=rows, middle=0.5)
    return Figure('probability_of_improvement', 'Probability of improvement', caption, [panel])


def meta_parameters(compared: Compared) -> Figure:
    """The trajectory of every meta-parameter under the return of training."""
    panels = [
        Panel(path, '', path.rpartition('.')[2], lines)
        for path, lines in _by_path(compared, 'meta/')
    ]  # fmt: skip
    if panels:
        returns = MEASURES[TRAIN]
        panels.insert(0, Panel('', '', returns, _lines(compared, TRAIN, returns)))
        panels[-1] = panels[-1]._replace(x_label='environment steps')
    caption = f'Meta-parameters in the units of their fields, under the returns of training: {_BANDS}.'
    return Figure('meta_parameters', 'Meta-parameters', caption + few_seeds(compared.variants), panels)


def signal_to_noise(compared: Compared) -> Figure:
    """Signal-to-noise of meta-gradients as the runs have logged it."""
    kinds = {f'{_SIGNAL_TO_NOISE}/': 'over lifetimes', f'{_SIGNAL_TO_NOISE}_over_seeds/': 'over seeds'}
    panels = [
        Panel(f'{path}, {kind}', '', 'signal-to-noise', lines)
        for prefix, kind in kinds.items()
        for path, lines in _by_path(compared, prefix)
    ]
    if panels:
        panels[-1] = panels[-1]._replace(x_label='environment steps')
    caption = (
        f'Length of the mean meta-gradient over its standard deviation, as logged: {_BANDS}. A plug-in ratio: '
        'pure noise has about 1 / sqrt(number of lifetimes or seeds). Over seeds it is one number for all seeds of a '
        'run, without a band.'
    )
    return Figure('signal_to_noise', 'Signal-to-noise of meta-gradients', caption, panels)


def _by_path(compared: Compared, prefix: str) -> Iterator[tuple[str, list[Line]]]:
    """Lines of each meta-parameter, by its path."""
    columns = dict.fromkeys(
        name
        for variant in compared.variants
        if (curves := compared.curves.get(variant.name, {}).get(TRAIN))
        for name in curves.values
        if name.startswith(prefix)
    )
    for column in columns:
        lines = _lines(compared, TRAIN, column)
        if lines:
            yield column.removeprefix(prefix), lines


class Style(NamedTuple):
    """How a variant is drawn in every figure.

    Attributes:
      colour: as `#rrggbb`.
      dash: of its lines: `solid`, `dash` or `dot`.
    """

    colour: str
    dash: str


COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c8c8c')
"""Okabe and Ito's, which every form of colour blindness can tell apart; those that are seen on white and on black."""

DASHES = ('solid', 'dash', 'dot')

MAX_SHOWN = len(COLOURS) * len(DASHES) - 1
"""Variants that a figure can tell apart."""


def styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each variant: colours first, then dashes."""
    return {
        name: Style(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i, name in enumerate(names)
    }
