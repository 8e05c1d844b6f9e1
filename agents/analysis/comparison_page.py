"""The page of a comparison: one HTML file that opens offline, with figures by plotly to zoom, hover and switch.

plotly's JavaScript is put into the page; nothing else of plotly is used.
"""

import html
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.analysis.comparison_figures import Figure, Line, Panel, Row, Style
from agents.analysis.published import Published
from components.types import UserError

TEMPLATE = pathlib.Path(__file__).with_name('comparison_page.html')
"""The page without its contents, which take the places of names in double braces."""

HEIGHTS = {'single': 420, 'stacked': 230, 'row': 34}
"""In pixels: of a single panel, of one among several, of a row."""

_SEED_OFFSET = 0.26


class PlotlyMissingError(UserError, ImportError):
    """The page needs plotly, which is not installed."""


def plotly_javascript() -> str:
    """The text of plotly.js.

    Raises:
      PlotlyMissingError: if plotly is not installed.
    """
    try:
        from plotly import offline  # Imported here as it is optional.
    except ImportError as error:
        raise PlotlyMissingError("report.html needs plotly: python -m pip install -e '.[report]'") from error
    return offline.get_plotlyjs()


def page(
    title: str,
    about: str,
    figures: Sequence[Figure],
    labels: Mapping[str, str],
    styles: Mapping[str, Style],
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]],
    javascript: str,
) -> str:
    """The text of the page.

    Args:
      title: of the page.
      about: a line below it.
      figures: in order.
      labels: of the variants that can be switched, by name.
      styles: of these.
      tables: headers and lines, by title.
      javascript: plotly's.
    """
    data = {
        'figures': [{'name': figure.name, **_plot(figure, styles)} for figure in figures],
        'variants': [{'name': name, 'label': label, **styles[name]._asdict()} for name, label in labels.items()],
    }
    sections = ''.join(
        f'<section class="figure"><h2>{html.escape(figure.title)}</h2><div class="plot" id="{figure.name}"></div>'
        f'<p class="caption">{html.escape(figure.caption)}</p></section>\n'
        for figure in figures
    )
    contents = {
        'title': html.escape(title),
        'about': html.escape(about),
        'sections': sections + ''.join(_table(name, *table) for name, table in tables.items()),
        'data': json.dumps(data, allow_nan=False, separators=(',', ':')).replace('<', r'\u003c'),
        'plotly': javascript,
    }
    parts = TEMPLATE.read_text(encoding='utf-8').split('{{')
    return parts[0] + ''.join(contents[name] + rest for name, _, rest in (part.partition('}}') for part in parts[1:]))


def _table(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def cells(kind: str, texts: Sequence[str]) -> str:
        return ''.join(f'<{kind}>{html.escape(text)}</{kind}>' for text in texts)

    body = ''.join(f'<tr>{cells("td", line)}</tr>' for line in lines)
    return (
        f'<section><h2>{html.escape(title)}</h2><div class="scroll"><table>'
        f'<thead><tr>{cells("th", header)}</tr></thead><tbody>{body}</tbody></table></div></section>\n'
    )


def _plot(figure: Figure, styles: Mapping[str, Style]) -> dict[str, Any]:
    """Traces and layout of a figure, as plotly.js takes them."""
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {'annotations': []}
    count = len(figure.panels)
    height = sum(_height(panel, count) for panel in figure.panels)
    top = 1.0
    for i, panel in enumerate(figure.panels):
        share = _height(panel, count) / height
        axis = '' if i == 0 else str(i + 1)
        gap = 0.0 if count == 1 else 0.16 * share
        domain = [max(0.0, top - share + gap), max(0.0, top - gap)] if count > 1 else [0, 1]
        top -= share
        layout[f'xaxis{axis}'] = _x_axis(panel, f'y{axis}', follows=i > 0)
        layout[f'yaxis{axis}'] = {**_y_axis(panel), 'domain': domain, 'anchor': f'x{axis}'}
        if panel.middle is not None:
            layout['shapes'] = [_middle(panel.middle)]
        if panel.title:
            layout['annotations'].append(_title(panel.title, domain[1]))
        made = [trace for line in panel.lines for trace in _line(line, styles[line.variant])]
        made += [trace for y, row in enumerate(panel.rows) for trace in _row(y, row, styles[row.variant])]
        published = sorted(panel.published, key=lambda each: each.value)
        made += [_published(each, panel, styles, is_above=i % 2 == 1) for i, each in enumerate(published)]
        traces += [{**trace, 'xaxis': f'x{axis}', 'yaxis': f'y{axis}'} for trace in made]
    return {'traces': traces, 'layout': {**layout, 'height': height + 90}}


def _height(panel: Panel, count: int) -> int:
    if panel.rows:
        return 60 + HEIGHTS['row'] * len(panel.rows)
    return HEIGHTS['single' if count == 1 else 'stacked']


def _title(text: str, top: float) -> dict[str, Any]:
    return {
        'text': html.escape(text), 'x': 0, 'y': top, 'xref': 'paper', 'yref': 'paper', 'xanchor': 'left',
        'yanchor': 'bottom', 'showarrow': False, 'font': {'size': 12},
    }  # fmt: skip


def _middle(place: float) -> dict[str, Any]:
    ends = {'x0': place, 'x1': place, 'y0': 0, 'y1': 1, 'yref': 'paper'}
    return {'type': 'line', **ends, 'line': {'color': '#8c8c8c', 'width': 1}}


def _x_axis(panel: Panel, anchor: str, *, follows: bool) -> dict[str, Any]:
    axis: dict[str, Any] = {'title': {'text': html.escape(panel.x_label)}, 'anchor': anchor, 'zeroline': False}
    if follows:
        axis['matches'] = 'x'
    if panel.middle is not None:
        axis |= {'range': [-0.03, 1.03]}
    return axis


def _y_axis(panel: Panel) -> dict[str, Any]:
    if not panel.rows:
        return {'title': {'text': panel.y_label}, 'zeroline': False}
    return {
        'tickvals': list(range(len(panel.rows))), 'ticktext': [html.escape(row.label) for row in panel.rows],
        'range': [len(panel.rows) - 0.4, -0.6], 'showgrid': False, 'zeroline': False, 'automargin': True,
    }  # fmt: skip


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(f'{value:.6g}') if math.isfinite(value) else None for value in np.asarray(values, float)]


def _line(line: Line, style: Style) -> list[dict[str, Any]]:
    x = _numbers(line.x)
    mode = 'lines' if len(line.x) > 1 else 'markers'  # A line of one point is not seen.
    common = {'type': 'scatter', 'mode': mode, 'meta': line.variant, 'showlegend': False}
    curve = {
        **common, 'name': html.escape(line.variant), 'x': x, 'y': _numbers(line.estimate.value),
        'line': {'color': style.colour, 'dash': style.dash, 'width': 2},
    }  # fmt: skip
    if not np.isfinite(line.estimate.low).any():
        return [curve]
    band = {
        **common, 'x': x + x[::-1], 'y': _numbers(line.estimate.high) + _numbers(line.estimate.low)[::-1],
        'fill': 'toself', 'fillcolor': f'{style.colour}2e', 'line': {'width': 0}, 'hoverinfo': 'skip',
    }  # fmt: skip
    return [band, curve]


def _row(y: int, row: Row, style: Style) -> list[dict[str, Any]]:
    value, low, high = (float(x) for x in row.estimate)
    common = {'type': 'scatter', 'mode': 'markers', 'meta': row.variant, 'showlegend': False}
    text = f'{html.escape(row.label)}: {value:.4g}'
    estimate: dict[str, Any] = {
        **common, 'x': [value], 'y': [y], 'marker': {'color': style.colour, 'size': 11}, 'hoverinfo': 'text',
        'text': [text],
    }  # fmt: skip
    if math.isfinite(low):
        estimate['text'] = [f'{text} [{low:.4g}, {high:.4g}]']
        estimate['error_x'] = {
            'type': 'data', 'symmetric': False, 'array': [high - value], 'arrayminus': [value - low],
            'color': style.colour, 'thickness': 2.5, 'width': 5,
        }  # fmt: skip
    seeds = {
        **common, 'x': _numbers(np.array(list(row.seeds.values()))), 'y': [y + _SEED_OFFSET] * len(row.seeds),
        'marker': {'color': style.colour, 'size': 6, 'opacity': 0.6}, 'hoverinfo': 'text',
        'text': [f'{html.escape(row.variant)}, seed {seed}: {value:.4g}' for seed, value in row.seeds.items()],
    }  # fmt: skip
    return [estimate, seeds] if row.seeds else [estimate]


def _published(published: Published, panel: Panel, styles: Mapping[str, Style], *, is_above: bool) -> dict[str, Any]:
    name = html.escape(f'published: {published.variant} {published.value:.3g}')
    colour = styles[published.variant].colour if published.variant in styles else '#8c8c8c'
    trace = {
        'type': 'scatter', 'mode': 'lines', 'showlegend': False, 'line': {'color': colour, 'dash': 'dot', 'width': 1.5},
        'hoverinfo': 'text', 'hovertext': html.escape(f'{published.variant}, {published.what}: {published.value:g}'),
    }  # fmt: skip
    if panel.rows:
        return {**trace, 'x': [published.value] * 2, 'y': [-0.6, len(panel.rows) - 0.4]}
    ends = [float(min(line.x[0] for line in panel.lines)), float(max(line.x[-1] for line in panel.lines))]
    texts = {  # Names in turn above and below, as values can be close.
        'mode': 'lines+text', 'text': [name, ''], 'textfont': {'size': 11, 'color': colour},
        'textposition': 'top right' if is_above else 'bottom right',
    }  # fmt: skip
    return {**trace, **texts, 'x': ends, 'y': [published.value] * 2}
