"""Says what a variant is: every value and where it comes from, meta-parameters, heads, weights, bindings without
effect.

    python tools/describe.py --gin_file gin/snake/self_tuning_outer_critic.gin
    python tools/describe.py --gin_file gin/snake/k_step.gin --diff gin/snake/meta_discount_outer_critic.gin
    python tools/describe.py --workdir runs/snake --diff gin/snake/meta_discount_outer_critic.gin --json

Builds the agent, but trains nothing. With --diff only the values that differ are told, in the one and in the other.
--json prints one JSON document instead of tables. Exit status: 0, or 2 when what was asked for cannot be done or a
binding has no effect.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import rich.table

from agents.analysis import tables
from agents.experiments.description import LEARNED_FROM, Description, describe, differences
from agents.experiments.provenance import Setting
from agents.experiments.run_folder import CONFIG
from components.types import ConfigurationError
from tools.command_line import Parser, configuration, run_command

Differences = Mapping[str, tuple[Setting | None, Setting | None]]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _describe, arguments)


def _describe(args: argparse.Namespace) -> int:
    if args.gin_file and args.workdir:
        raise ConfigurationError('--gin_file and --workdir exclude each other; --diff compares with another one')
    description = describe(configuration(args), args.gin_bindings)
    found = differences(description, describe([_gin_file(args.diff)])) if args.diff else None
    names = ' '.join([*(args.gin_file or [str(args.workdir)]), *args.gin_bindings]), str(args.diff)
    if args.json:
        document = dataclasses.asdict(description) if found is None else _difference_document(found, *names)
        print(json.dumps(document, indent=2))
    else:
        tables.show(*(_tables(description) if found is None else [_difference_table(found, *names)]))
    if description.unused_bindings:
        raise ConfigurationError('; '.join(description.unused_bindings))  # As training would.
    return 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_gin_file()
    parser.add_argument('--workdir', type=pathlib.Path, help='a run, which has left its configuration there')
    parser.add_gin_bindings('of what is described alone; repeatable')
    parser.add_argument('--diff', type=pathlib.Path, metavar='OTHER', help='a gin file or a run to compare with')
    parser.add_argument('--json', action='store_true', help='one JSON document')
    return parser


def _gin_file(path: pathlib.Path) -> pathlib.Path:
    """A gin file, or the one that a run has left in its folder."""
    return path / CONFIG if path.is_dir() else path


def _tables(description: Description) -> Iterator[rich.table.Table]:
    learned = {f'{LEARNED_FROM}{path}' for path in description.meta_parameters}
    yield tables.table(['component', 'value', 'macro', 'from'], _component_rows(description.components, learned))
    fields = [
        (path, *('' if x is None else str(x) for x in dataclasses.astuple(field)))
        for path, field in description.meta_parameters.items()
    ]
    yield tables.table(['meta-parameter', 'numbers', 'initial value', 'bijector', 'low', 'high'], fields)
    yield tables.table(['could be learned too', 'value'], [(path, str(x)) for path, x in description.learnable.items()])
    heads = [
        (name, str(head.shape), '\n'.join(head.inner), '\n'.join(head.outer))
        for name, head in description.heads.items()
    ]
    yield tables.table(['head', 'shape', 'asked for by: inner', 'outer'], heads)
    counts = {**description.parameters.modules, 'total': description.parameters.total}
    yield tables.table(
        ['module of the network', 'parameters'], [(name, f'{count:,}') for name, count in counts.items()]
    )
    yield tables.table(['binding without effect'], [(name,) for name in description.unused_bindings])


def _component_rows(
    settings: Mapping[str, Setting], learned: set[str], path: str = '', indent: str = ''
) -> Iterator[tuple[str, ...]]:
    """Rows of settings and their parts, which stand below them as a tree."""
    for name, setting in settings.items():
        here = f'{path}.{name}'.lstrip('.')
        value = f'{setting.value}, learned' if here in learned else setting.value
        last = name == list(settings)[-1]
        branch, below = ('', '') if not path else ('└── ', '    ') if last else ('├── ', '│   ')
        yield f'{indent}{branch}{name}', value, setting.macro, setting.source
        yield from _component_rows(setting.parts, learned, here, f'{indent}{below}')


def _difference_table(found: Differences, first: str, second: str) -> rich.table.Table:
    rows = [(path, *_value_and_source(a), *_value_and_source(b)) for path, (a, b) in found.items()]
    return tables.table(['what differs', first, 'from', second, 'from'], rows)


def _value_and_source(setting: Setting | None) -> tuple[str, str]:
    return (setting.value, f'{setting.macro} {setting.source}'.strip()) if setting else ('', '')


def _difference_document(found: Differences, first: str, second: str) -> dict[str, Any]:
    pairs = {path: {'first': _without_parts(a), 'second': _without_parts(b)} for path, (a, b) in found.items()}
    return {'first': first, 'second': second, 'differences': pairs}


def _without_parts(setting: Setting | None) -> dict[str, str] | None:
    return {name: getattr(setting, name) for name in ('value', 'source', 'macro')} if setting else None


if __name__ == '__main__':
    sys.exit(main())
