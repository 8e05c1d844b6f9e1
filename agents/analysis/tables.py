"""How results are written: CSV files, numbers, tables for people, and plots."""

import contextlib
import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.table

Row = Mapping[str, Any]
"""Values by column."""


def write_csv(path: str | os.PathLike, rows: Sequence[Row]) -> None:
    """Writes rows to a CSV file.

    Args:
      path: of the file, in a folder that exists.
      rows: their columns are written in the order in which they first come; a row's cell is empty where it has none.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, columns, restval='', lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def grouped(rows: Iterable[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their values in some columns, groups and rows in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in columns), []).append(row)
    return groups


def number(value: object, precision: str = '.4g') -> str:
    """A number as it is written, `precision` being of floats; empty for None and NaN, which are not known."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ''
    return format(value, precision) if isinstance(value, float | np.floating) else str(value)


def mean_and_range(values: Sequence[float]) -> str:
    """The mean of some numbers with the lowest and the highest; a single number by itself."""
    if len(values) == 1:
        return f'{values[0]:.3f}'
    return f'{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]'


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, caption: str | None = None
) -> rich.table.Table:
    """A table for people; where it has no rows it says so.

    Args:
      columns: their headers.
      rows: a text for each column.
      title: line above it.
      caption: line below it.
    """
    made = rich.table.Table(*columns, box=rich.box.SIMPLE, title=title, caption=caption)
    for row in rows:
        made.add_row(*row)
    if not made.rows:
        made.add_row('none')
    return made


def show(*tables: rich.table.Table) -> None:
    """Prints tables, as wide as they are: a path that is cut short would be of no use. Brackets are no markup."""
    console = rich.console.Console(width=1_000, markup=False)
    for each in tables:
        console.print(each)


@contextlib.contextmanager
def panels(
    path: str | os.PathLike, num_rows: int, num_columns: int, size: tuple[float, float], *, share_y: bool = False
) -> Iterator[np.ndarray]:
    """A plot of several panels, which is written to a file at the end.

    Args:
      path: of the image.
      num_rows: of panels.
      num_columns: likewise.
      size: width and height of a panel in inches.
      share_y: whether all have the same vertical axis.

    Yields:
      matplotlib's axes, `[num_rows, num_columns]`.
    """
    import matplotlib  # Imported here as only a plot should wait for it.

    matplotlib.use('agg')
    from matplotlib import pyplot

    figsize = size[0] * num_columns, size[1] * num_rows
    figure, axes = pyplot.subplots(num_rows, num_columns, figsize=figsize, squeeze=False, sharey=share_y)
    try:
        yield axes
        figure.tight_layout()
        figure.savefig(path, dpi=150)
    finally:
        pyplot.close(figure)
