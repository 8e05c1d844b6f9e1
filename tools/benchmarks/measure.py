"""Taking the time of several sides in turn, and the rows that are reported."""

import time
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]


def alternate(
    sides: Sequence[Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each side in each round, taken in turn, after one call of each that compiles."""
    for side in sides:
        side()
    seconds: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, seconds, strict=True):
            start = clock()
            side()
            taken.append(clock() - start)
    return seconds


def row(name: str, against: str, unit: str, ours: float, theirs: float, ratio: float) -> Row:
    """A row of the table.

    Args:
      name: of the benchmark.
      against: what the project is compared with.
      unit: of both numbers.
      ours: number of the project.
      theirs: number of the other side.
      ratio: how many times the one is the other; each benchmark says which way round.
    """
    return {
        'benchmark': name,
        'against': against,
        'unit': unit,
        'project': f'{ours:.4g}',
        'other': f'{theirs:.4g}',
        'ratio': f'{ratio:.3f}',
    }
