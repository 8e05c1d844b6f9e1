"""Lists of results: CSV files of one line per variant and seed, small enough to be kept where runs are not.

A list says itself what its numbers are. It has the columns

    variant      name of a variant
    seed         of the agent
    value        final performance of that seed
    measure      what the value is, in words
    environment  in which it was measured

and may have those of how far the variant was trained: `status` (`complete`, which is the default, or `partial`),
`env_steps` and `total_env_steps`. Lines of one environment and one measure are compared.
"""

import csv
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from agents.analysis import tables
from agents.analysis.run_tables import Run, RunTableError
from agents.analysis.variants import Measure, Variant

NEEDED = ('variant', 'seed', 'value', 'measure', 'environment')
"""Columns that a list has."""

PROGRESS = ('status', 'env_steps', 'total_env_steps')
"""Columns that it may have; they are the same in all lines of a variant."""

_IS_COMPLETE = {'complete': True, 'partial': False}


class Comparison(NamedTuple):
    """Variants that were measured in the same way.

    Attributes:
      environment: in which.
      measure: how.
      variants: at least one, with at least one seed each.
    """

    environment: str
    measure: Measure
    variants: Sequence[Variant]


def differing(comparisons: Sequence[Comparison]) -> list[str]:
    """What tells comparisons apart: `environment`, `measure`, or both."""
    return [name for i, name in enumerate(('environment', 'measure')) if len({each[i] for each in comparisons}) > 1]


def labels(comparisons: Sequence[Comparison]) -> list[str]:
    """A name for each comparison: what it differs by from others."""
    names = differing(comparisons)
    return [': '.join(str(getattr(each, name)) for name in names) for each in comparisons]


def write(path: pathlib.Path, comparison: Comparison) -> None:
    """Writes a list; seeds without a final performance are not in it."""
    beside = path.with_name(f'{path.name}.new')
    tables.write_csv(beside, [row for variant in comparison.variants for row in _rows(variant, comparison)])
    os.replace(beside, path)


def _rows(variant: Variant, comparison: Comparison) -> list[tables.Row]:
    progress = ('complete' if variant.is_complete else 'partial', variant.env_steps, variant.total_env_steps)
    same = {
        'measure': comparison.measure.description, 'environment': comparison.environment,
        **{name: tables.number(each) for name, each in zip(PROGRESS, progress, strict=True)},
    }  # fmt: skip
    results = zip(variant.seeds, variant.final, strict=True)
    return [{'variant': variant.name, 'seed': int(seed), 'value': float(value), **same} for seed, value in results]


def read(paths: Sequence[pathlib.Path]) -> list[Comparison]:
    """Comparisons in lists, in the order in which they first come.

    Args:
      paths: of the lists; variants of several are compared where environment and measure are the same.

    Raises:
      RunTableError: if one is damaged, or two have results of one variant; the message names file and line.
    """
    found: dict[tuple[str, str], dict[str, Variant]] = {}
    for path in paths:
        lines = _lines(path)
        for (environment, measure, name), each in tables.grouped(lines, 'environment', 'measure', 'variant').items():
            before = found.setdefault((environment, measure), {})
            if name in before:
                raise RunTableError(f'{before[name].run.directory} and {path} both have a variant {name}')
            before[name] = _variant(path, name, each)
    return [
        Comparison(environment, Measure('', measure, 1.0), list(each.values()))
        for (environment, measure), each in found.items()
    ]


def _lines(path: pathlib.Path) -> list[dict[str, str]]:
    """Lines of a list by column; `line` says where each stands."""
    if path.is_dir():
        raise RunTableError(f'{path} is no list of results: give lists alone, or folders of runs alone')
    try:
        with path.open(newline='', encoding='utf-8') as file:
            header, *lines = csv.reader(file, strict=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunTableError(f'{path} is not a list of results: {error}') from error
    except ValueError as error:
        raise RunTableError(f'{path} is not a list of results: it is empty') from error
    _check_header(path, header)
    if not lines:
        raise RunTableError(f'{path} has no results, only a header')
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise RunTableError(f'{path} is damaged: line {number} has {len(line)} cells, its header {len(header)}')
    return [{**dict(zip(header, line, strict=True)), 'line': str(number)} for number, line in enumerate(lines, 2)]


def _check_header(path: pathlib.Path, header: Sequence[str]) -> None:
    columns = f'needed are {", ".join(NEEDED)}; {", ".join(PROGRESS)} may be there'
    if missing := [name for name in NEEDED if name not in header]:
        raise RunTableError(f'{path} is not a list of results: it has no column {", ".join(missing)} ({columns})')
    if unknown := [name for name in header if name not in NEEDED + PROGRESS]:
        raise RunTableError(f'{path} is not a list of results: unknown column {", ".join(unknown)} ({columns})')
    if len(set(header)) < len(header):
        raise RunTableError(f'{path} is not a list of results: it has a column twice')


def _variant(path: pathlib.Path, name: str, lines: Sequence[Mapping[str, str]]) -> Variant:
    results: dict[int, float] = {}
    for line in lines:
        seed = _whole(path, line, 'seed')
        if seed is None or seed in results:
            raise _damage(path, line, f'variant {name} has {"no seed" if seed is None else f"seed {seed} twice"}')
        results[seed] = _value(path, line)
        if different := [key for key in PROGRESS if line.get(key) != lines[0].get(key)]:
            raise _damage(path, line, f'{", ".join(different)} of variant {name} is not that of its other lines')
    status = lines[0].get('status') or 'complete'
    if status not in _IS_COMPLETE:
        raise _damage(path, lines[0], f'status must be {" or ".join(_IS_COMPLETE)}, got {status}')
    steps, total = _whole(path, lines[0], 'env_steps'), _whole(path, lines[0], 'total_env_steps')
    seeds, values = np.array(list(results)), np.array(list(results.values()))
    return Variant(name, Run(path, name), '', seeds, values, len(seeds), steps, total, _IS_COMPLETE[status])


def _value(path: pathlib.Path, line: Mapping[str, str]) -> float:
    try:
        value = float(line['value'])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _damage(path, line, f'value must be a number, got {line["value"] or "nothing"}')
    return value


def _whole(path: pathlib.Path, line: Mapping[str, str], key: str) -> int | None:
    """A whole number; None where it is not said."""
    text = line.get(key, '')
    if text and not text.isdecimal():
        raise _damage(path, line, f'{key} must be a whole number, got {text}')
    return int(text) if text else None


def _damage(path: pathlib.Path, line: Mapping[str, str], what: str) -> RunTableError:
    return RunTableError(f'{path} is damaged: line {line["line"]}: {what}')
