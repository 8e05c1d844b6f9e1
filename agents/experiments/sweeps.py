"""Sweeps: variants of a run and a grid of values, as runs with names and bindings.

A key of the grid that is a path from the update rule, or from the agent to its meta-optimiser, is a number that every
seed can have another value of: all its values are replicas along the seeds' axis of one run. Any other key is bound in
separate runs.
"""

import ast
import dataclasses
import hashlib
import io
import itertools
import os
import pathlib
import re
import tokenize
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from agents import replicas
from agents.agent import Agent
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from components.component import NonNegativeInt, PositiveInt, component
from components.types import CompositionError, ConfigurationError, UserError

REPLICAS = 'experiment.Experiment.replicas'
"""What holds the values of numbers that differ along the seeds' axis, by path."""

RESERVED = ('logs',)
"""Names in a sweep's folder that no run can have."""

_MAX_NAME = 100
_REFERENCE = re.compile(r'[\s\[({]*[@%]')


@component
class Variant:
    """What a run is made of, as on the command line of tools/run.py.

    Args:
      gin_files: read in order.
      bindings: lines as in a gin file, read last.
    """

    gin_files: Sequence[str]
    bindings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.gin_files:
            raise CompositionError('Variant.gin_files is empty: name at least one gin file')


@component
class Sweep:
    """Every variant with every combination of the grid's values.

    Args:
      variants: by name.
      grid: values by what is bound to them: a path from the update rule to a number (`optimiser.learning_rate`) or
        from `meta_optimiser`, a macro, or a parameter as a gin file names it. A string that begins with `@` or `%` is a
        reference or a macro.
      zipped: whether the first values of all keys belong together, the second ones, and so on; else all combinations.
      num_seeds: of each run, trained as one batch; None for what the variant says.
      retries: how often a run is started again that was killed, or lost with its machine.

    Raises:
      CompositionError: if there is no variant, a key has no values or one of them twice, or zipped keys have different
        numbers of values.
    """

    variants: Mapping[str, Variant]
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    zipped: bool = False
    num_seeds: PositiveInt | None = None
    retries: NonNegativeInt = 1

    def __post_init__(self) -> None:
        if not self.variants:
            raise CompositionError('Sweep.variants is empty: name at least one variant')
        for key, values in self.grid.items():
            if not values:
                raise CompositionError(f'Sweep.grid: {key} has no values: give at least one, or leave it out')
            for i, value in enumerate(values):
                if value in values[:i]:
                    raise CompositionError(f'Sweep.grid: {key} has the value {value!r} twice')
        lengths = {key: len(values) for key, values in self.grid.items()}
        if self.zipped and len(set(lengths.values())) > 1:
            counts = ', '.join(f'{key} has {length}' for key, length in lengths.items())
            raise CompositionError(f'Sweep.zipped needs as many values for every key of the grid, but {counts}')


class SweepRun(NamedTuple):
    """One run of a sweep.

    Attributes:
      name: of its folder.
      variant: name of its variant.
      gin_files: as for tools/run.py.
      bindings: likewise, without that of the replicas.
      replicas: values along the seeds' axis, by path.
      num_meta_steps: of the whole training.
    """

    name: str
    variant: str
    gin_files: list[str]
    bindings: list[str]
    replicas: dict[str, list[float]]
    num_meta_steps: int = 0

    @property
    def lines(self) -> list[str]:
        """All bindings."""
        return [*self.bindings, *([f'{REPLICAS} = {self.replicas}'] if self.replicas else [])]


def load_sweep(gin_files: Sequence[str | os.PathLike]) -> Sweep | None:
    """Reads gin files as a sweep; None if they describe a run instead.

    Raises:
      ConfigurationError: if they cannot be read, or the sweep cannot be built.
    """
    gin_config.load(gin_files)
    if not any(name.startswith(f'{Sweep.__module__}.Sweep.') for name in gin_config.bindings()):
        return None
    gin_config.check_effects(Sweep)
    return gin_config.build(Sweep)


def sweep_of_options(
    gin_files: Sequence[str],
    variants: Sequence[str],
    vary: Sequence[str],
    bindings: Sequence[str],
    **fields: Any,
) -> Sweep:
    """The sweep that a command line asks for.

    Args:
      gin_files: of a sweep, or of one variant.
      variants: more variants, each a gin file or `name=file`.
      vary: keys of the grid, as for `parse_values`; they replace those of a sweep's file.
      bindings: of every run, read after those of its variant.
      **fields: of the sweep, in the place of what its file says; those that are None are not given.

    Raises:
      ConfigurationError: if something cannot be read, or two variants have one name.
    """
    sweep = load_sweep(gin_files) if gin_files else None
    own = [(pathlib.Path(gin_files[-1]).stem, Variant(gin_files))] if gin_files and not sweep else []
    named = [*(sweep.variants.items() if sweep else own), *map(_named_variant, variants)]
    _check_once([name for name, _ in named], 'two variants are named {}; give one of them another name: --variant N=F')
    grid = [parse_values(text) for text in vary]
    _check_once([key for key, _ in grid], '--vary {} is given twice; give its values in one list')
    return Sweep(
        **{
            **(_fields(sweep) if sweep else {}),
            **{name: value for name, value in fields.items() if value is not None},
            'variants': {name: Variant(variant.gin_files, [*variant.bindings, *bindings]) for name, variant in named},
            'grid': {**(sweep.grid if sweep else {}), **dict(grid)},
        }
    )


def _fields(sweep: Sweep) -> dict[str, Any]:
    return {field.name: getattr(sweep, field.name) for field in dataclasses.fields(sweep)}


def _named_variant(text: str) -> tuple[str, Variant]:
    name, equals, file = text.rpartition('=')
    return name if equals else pathlib.Path(file).stem, Variant([file])


def _check_once(names: Sequence[str], message: str) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigurationError(message.format(name))


def parse_values(text: str) -> tuple[str, list[Any]]:
    """Key and values of `key=value,value`, values of the grid as they are written in a gin file.

    Raises:
      ConfigurationError: if it is not of that form; the message says what is wrong.
    """
    key, equals, listed = (part.strip() for part in text.partition('='))
    if not equals or not key:
        raise ConfigurationError(f"--vary must be of the form 'key=value,value', got {text!r}")
    try:
        parts = list(_split(listed))
    except (tokenize.TokenError, SyntaxError) as error:
        raise ConfigurationError(f'--vary {key}: {error.args[0]} in {listed!r}') from error
    return key, [_value(key, part) for part in parts]


def planned_runs(sweep: Sweep) -> list[SweepRun]:
    """The runs of a sweep, each with a name of its own.

    Raises:
      ConfigurationError: if a path has a value that is no number.
    """
    runs: list[SweepRun] = []
    for name, variant in sweep.variants.items():
        for bound, rows in _grouped(sweep):
            lines = [f'{key} = {text}' for key, text in bound.items()]
            seeds = [] if sweep.num_seeds is None else [f'NUM_SEEDS = {sweep.num_seeds}']
            varied = {path: [row[path] for row in rows] for path in _paths(sweep.grid)}
            folder = _unique(_name(name, bound), [run.name for run in runs])
            runs.append(SweepRun(folder, name, [*variant.gin_files], [*variant.bindings, *lines, *seeds], varied))
    return runs


def describe(sweep: Sweep, runs: Collection[SweepRun]) -> str:
    """One line: how many runs, and which keys are one program and which are separate runs."""
    paths = _paths(sweep.grid)
    others = [*(['variants'] * (len(sweep.variants) > 1)), *(key for key in sweep.grid if key not in paths)]
    line = f'{len(runs)} run{"s" * (len(runs) > 1)}'
    if others:
        line += f', separate for {", ".join(others)}'
    if paths:
        rows = max(len(values) for run in runs for values in run.replicas.values())
        line += f'; {"each is " * (len(runs) > 1)}one program for {rows} values of {", ".join(paths)}'
    return line


def check_runs(runs: Sequence[SweepRun]) -> list[SweepRun]:
    """Builds what each run describes, and returns the runs with their lengths.

    Raises:
      ConfigurationError: if one cannot be built, or a path leads to no number; the message names the variant.
    """
    jax.config.update('jax_platforms', 'cpu')  # Memory of an accelerator is for the runs.
    checked = []
    for run in runs:
        try:
            experiment = _build(run.gin_files, run.bindings)
            _check_paths(run.replicas, experiment.agent)
            if run.replicas:
                experiment = _build(run.gin_files, run.lines)
        except UserError as error:
            place = f'variant {run.variant}' + (f', run {run.name}' if run.name != run.variant else '')
            raise ConfigurationError(f'{place}: {error}') from error
        checked.append(run._replace(num_meta_steps=experiment.num_meta_steps))
    return checked


def _build(gin_files: Sequence[str], bindings: Sequence[str]) -> Experiment:
    gin_config.load(gin_files, bindings)
    gin_config.check_effects(Experiment)
    return gin_config.build(Experiment)


def _check_paths(paths: Collection[str], agent: Agent) -> None:
    for path in paths:
        if path not in replicas.numbers(agent):
            raise ConfigurationError(
                f'grid: {path} leads to no number: {replicas.why_no_number(agent, path)}; or name the field as a gin '
                'file does, for separate runs'
            )


def _grouped(sweep: Sweep) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    """Combinations of the grid: what separate runs bind, as text, with the rows of each that are its replicas."""
    combine = zip if sweep.zipped and sweep.grid else itertools.product
    rows = [dict(zip(sweep.grid, values, strict=True)) for values in combine(*sweep.grid.values())]
    paths = _paths(sweep.grid)
    for path, value in itertools.chain.from_iterable(row.items() for row in rows):
        if path in paths and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigurationError(f'grid: {path} is a path to a number, got {value!r}')
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    others = [key for key in sweep.grid if key not in paths]
    for row in rows:
        groups.setdefault(tuple(_text(row[key]) for key in others), []).append(row)
    return [(dict(zip(others, texts, strict=True)), group) for texts, group in groups.items()]


def _paths(grid: Mapping[str, Sequence[Any]]) -> list[str]:
    """Keys that are paths to numbers of every seed."""
    return [key for key in grid if replicas.is_path(key)]


def _split(text: str) -> Iterator[str]:
    """Parts between the commas that no bracket or string encloses."""
    depth, start = 0, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.string in ('(', '[', '{'):
            depth += 1
        elif token.string in (')', ']', '}'):
            depth -= 1
        elif token.string == ',' and not depth:
            yield text[start : token.start[1]].strip()
            start = token.end[1]
    yield text[start:].strip()


def _value(key: str, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        if _REFERENCE.match(text):
            return text
        if not text:
            raise ConfigurationError(f"--vary {key}: a value is missing; the form is 'key=value,value'") from error
        way_out = 'is not a Python literal; strings need quotes, references an @ and macros a %'
        raise ConfigurationError(f'--vary {key}: {text} {way_out}') from error


def _text(value: Any) -> str:
    """A value as a gin file has it."""
    return value if isinstance(value, str) and _REFERENCE.match(value) else repr(value)


def _name(variant: str, bound: Mapping[str, str]) -> str:
    """Variant and values, in characters that every file system takes."""
    short = [re.split('[./]', key)[-1] for key in bound]
    keys = short if len(set(short)) == len(short) else bound
    parts = [variant, *(f'{key}={text}' for key, text in zip(keys, bound.values(), strict=True))]
    name = '-'.join(re.sub(r'[^\w.=+-]+', '_', part, flags=re.ASCII).strip('_.') or '_' for part in parts)
    if len(name) > _MAX_NAME:
        name = f'{name[: _MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'
    return name


def _unique(name: str, others: Collection[str]) -> str:
    """The name, with a number if it is taken, in another case too."""
    taken = {other.lower() for other in (*others, *RESERVED)}
    names = itertools.chain([name], (f'{name}-{i}' for i in itertools.count(2)))
    return next(candidate for candidate in names if candidate.lower() not in taken)
