"""Published values that results are compared with: which, whose, where published."""

import csv
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agents.analysis.run_tables import RunTableError
from agents.analysis.variants import Measure

NEEDED = ('variant', 'what', 'value', 'source')
"""Columns that a list of published values has."""

OPTIONAL = ('environment', 'measure')
"""Columns that it may have, where it serves several comparisons."""


class Published(NamedTuple):
    """A published value.

    Attributes:
      variant: whose it is; in figures, one of the name of a variant has its colour.
      what: which number it is.
      value: the number.
      source: where it was published.
      environment: that it was measured in, as a report names it; '' if it is for any.
      measure: column, or words of a list of results, that it is to be compared with; '' if it is for any.
    """

    variant: str
    what: str
    value: float
    source: str
    environment: str = ''
    measure: str = ''

    def is_of(self, environment: str, measure: Measure) -> bool:
        """Whether it is to be compared with what was measured so."""
        return self.environment in ('', environment) and self.measure in ('', measure.column)


def read(path: pathlib.Path) -> list[Published]:
    """Published values: a CSV file of the columns variant, what, value and source.

    It may have the columns environment and measure.

    Raises:
      RunTableError: if it is no such file, or a value has no source.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            header, *lines = csv.reader(file, strict=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_list(path, str(error)) from error
    except ValueError as error:
        raise _no_list(path, 'it is empty') from error
    if missing := [name for name in NEEDED if name not in header]:
        raise _no_list(path, f'it has no column {", ".join(missing)}')
    if unknown := [name for name in header if name not in NEEDED + OPTIONAL]:
        raise _no_list(path, f'unknown column {", ".join(unknown)}')
    return [_published(path, number, header, line) for number, line in enumerate(lines, 2)]


def _published(path: pathlib.Path, number: int, header: Sequence[str], line: Sequence[str]) -> Published:
    if len(line) != len(header):
        raise _no_list(path, f'line {number} has {len(line)} cells, its header {len(header)}')
    cells = dict(zip(header, line, strict=True))
    try:
        value = float(cells.pop('value'))
    except ValueError as error:
        raise _no_list(path, f'line {number}: {error}') from error
    if not math.isfinite(value) or not cells['source']:
        raise _no_list(path, f'line {number} has no {"source" if math.isfinite(value) else "number"}')
    return Published(value=value, **cells)


def _no_list(path: pathlib.Path, what: str) -> RunTableError:
    columns = f'columns {", ".join(NEEDED)}; {" and ".join(OPTIONAL)} may be there'
    return RunTableError(f'{path} is not a list of published values ({columns}): {what}')


def sources(values: Iterable[Published]) -> str:
    """Which values there are, each source once."""
    by_source: dict[str, list[str]] = {}
    for each in values:
        by_source.setdefault(each.source, []).append(f'{each.variant} {each.value:g} ({each.what})')
    return '; '.join(f'{", ".join(texts)}, published: {source}' for source, texts in by_source.items())
