"""Draws the figures of a comparison by matplotlib, as PNG and PDF."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.analysis.comparison_figures import Figure, Panel, Style
from agents.analysis.published import Published

WIDTH = 7.0
"""Of a figure in inches."""

_DASHES = {'solid': '-', 'dash': '--', 'dot': ':'}

_SETTINGS: Any = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.alpha': 0.25,
    'legend.frameon': False,
    'pdf.fonttype': 42,
}


def draw(figure: Figure, labels: Mapping[str, str], styles: Mapping[str, Style]) -> dict[str, bytes]:
    """A figure as files.

    Args:
      figure: what it shows.
      labels: of the variants in legends, by name.
      styles: of the variants.

    Returns:
      The contents of the files, by the ending of their names.
    """
    import matplotlib  # Imported here as only a plot should wait for it.

    matplotlib.use('agg')
    from matplotlib import pyplot

    has_rows = bool(figure.panels[0].rows)
    height = sum(_height(panel, len(figure.panels)) for panel in figure.panels)
    names = list(dict.fromkeys(line.variant for panel in figure.panels for line in panel.lines))
    num_columns = _legend_columns([labels[name] for name in names])
    height += 0 if has_rows else 0.2 + 0.19 * -(-len(names) // num_columns)
    with pyplot.rc_context(_SETTINGS):
        drawn, axes = pyplot.subplots(
            len(figure.panels), 1, figsize=(WIDTH, height), squeeze=False, sharex=not has_rows, layout='constrained'
        )
        try:
            for axis, panel in zip(axes.flat, figure.panels, strict=True):
                _draw_panel(axis, panel, styles)
            if not has_rows:
                handles = [
                    axes.flat[0].plot([], [], **_line_style(styles[name]), label=labels[name])[0] for name in names
                ]
                drawn.legend(handles=handles, loc='outside lower center', ncols=num_columns, fontsize=8)
            return {ending: _file(drawn, ending) for ending in ('png', 'pdf')}
        finally:
            pyplot.close(drawn)


def _height(panel: Panel, num_panels: int) -> float:
    """Of a pair of axes, in inches."""
    if not panel.rows:
        return 2.6 if num_panels == 1 else 1.6
    num_lines = max(_wrapped(row.label).count('\n') + 1 for row in panel.rows)
    return 0.9 + (0.18 + 0.14 * num_lines) * len(panel.rows)


def _wrapped(label: str) -> str:
    """A row's label in lines of a width that leaves room for the row."""
    first, *second = label.split(' > ')  # Of a pair, each on lines of its own.
    return '\n> '.join('\n'.join(textwrap.wrap(part, 44)) for part in (first, *second))


def _file(drawn: Any, ending: str) -> bytes:
    file = io.BytesIO()
    drawn.savefig(file, format=ending, dpi=200)
    return file.getvalue()


def _legend_columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels), default=1)
    return max(1, min(len(labels), int(110 / (longest + 8))))


def _line_style(style: Style) -> dict[str, Any]:
    return {'color': style.colour, 'linestyle': _DASHES[style.dash], 'linewidth': 1.5}


def _draw_panel(axis: Any, panel: Panel, styles: Mapping[str, Style]) -> None:
    for line in panel.lines:
        marker = 'o' if len(line.x) == 1 else None  # A line of one point is not seen.
        axis.plot(line.x, line.estimate.value, **_line_style(styles[line.variant]), marker=marker, markersize=4)
        axis.fill_between(
            line.x, line.estimate.low, line.estimate.high, color=styles[line.variant].colour, alpha=0.18, linewidth=0
        )
    if panel.rows:
        _draw_rows(axis, panel, styles)
    else:
        axis.xaxis.set_major_formatter(_steps) if 'steps' in panel.x_label else None
    for i, published in enumerate(sorted(panel.published, key=lambda each: each.value)):
        _draw_published(axis, published, styles, is_vertical=bool(panel.rows), is_above=i % 2 == 1)
    if panel.middle is not None:
        axis.axvline(panel.middle, color='0.5', linewidth=0.8)
        axis.set_xlim(-0.03, 1.03)
    axis.set_title(panel.title, fontsize=8, loc='left')
    axis.set_xlabel('\n'.join(textwrap.wrap(panel.x_label, 90)))
    axis.set_ylabel(panel.y_label)


def _steps(value: float, _: int) -> str:
    """A number of environment steps."""
    for size, unit in ((1e9, 'B'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:g}{unit}'
    return f'{value:g}'


def _draw_rows(axis: Any, panel: Panel, styles: Mapping[str, Style]) -> None:
    for y, row in enumerate(panel.rows):
        colour, seeds = styles[row.variant].colour, list(row.seeds.values())
        if np.isfinite(row.estimate.low):
            axis.hlines(y, row.estimate.low, row.estimate.high, color=colour, linewidth=2)
        axis.plot(row.estimate.value, y, 'o', color=colour, markersize=6)
        axis.plot(seeds, np.full(len(seeds), y + 0.24), 'o', color=colour, markersize=3, alpha=0.6)
    axis.set_yticks(range(len(panel.rows)), [_wrapped(row.label) for row in panel.rows], fontsize=8)
    axis.set_ylim(len(panel.rows) - 0.4, -0.6)
    axis.grid(visible=False, axis='y')


def _draw_published(
    axis: Any, published: Published, styles: Mapping[str, Style], *, is_vertical: bool, is_above: bool
) -> None:
    colour = styles[published.variant].colour if published.variant in styles else '0.45'
    draw_line = axis.axvline if is_vertical else axis.axhline
    draw_line(published.value, color=colour, linewidth=1, linestyle=(0, (1, 2)))
    if not is_vertical:  # Names in turn above and below, as values can be close.
        place: dict[str, Any] = {'xycoords': ('axes fraction', 'data'), 'va': 'bottom' if is_above else 'top'}
        text = f'published: {published.variant} {published.value:.3g}'
        axis.annotate(text, (0.01, published.value), **place, fontsize=7, color=colour)
