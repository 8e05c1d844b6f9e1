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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# A checkout can be run whether or not it is installed, from any folder, and gin files can import what lies in that one.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]
sys.path.append(str(pathlib.Path.cwd()))

import rich.box
import rich.console
import rich.table

from agents.experiments.description import LEARNED_FROM, Description, describe, differences
from agents.experiments.launch import argument_parser, run_command
from agents.experiments.provenance import Setting
from components.types import ConfigurationError

Differences = Mapping[str, tuple[Setting | None, Setting | None]]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    args = _parse(arguments)
    return run_command(lambda: _describe(args), args.traceback)


def _describe(args: argparse.Namespace) -> int:
    description = describe(args.gin_file or [args.workdir / 'config.gin'], args.gin_bindings)
    found = differences(description, describe([_gin_file(args.diff)])) if args.diff else None
    names = ' '.join([*(args.gin_file or [str(args.workdir)]), *args.gin_bindings]), str(args.diff)
    if args.json:
        document = dataclasses.asdict(description) if found is None else _difference_document(found, *names)
        print(json.dumps(document, indent=2))
    else:
        # Wider than any terminal: a path that is cut short would be of no use. What gin writes may look like markup.
        console = rich.console.Console(width=1_000, markup=False)
        for table in _tables(description) if found is None else [_difference_table(found, *names)]:
            console.print(table)
    if description.unused_bindings:
        raise ConfigurationError('; '.join(description.unused_bindings))  # As training would.
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    described = parser.add_mutually_exclusive_group(required=True)
    described.add_argument('--gin_file', action='append', metavar='FILE', help='read in order; repeatable')
    described.add_argument('--workdir', type=pathlib.Path, help='a run, which has left its configuration there')
    parser.add_argument(
        '--gin_bindings', action='append', default=[], metavar='LINE', help='of what is described alone; repeatable'
    )
    parser.add_argument('--diff', type=pathlib.Path, metavar='OTHER', help='a gin file or a run to compare with')
    parser.add_argument('--json', action='store_true', help='one JSON document')
    return parser.parse_args(arguments)


def _gin_file(path: pathlib.Path) -> pathlib.Path:
    """A gin file, or the one that a run has left in its folder."""
    return path / 'config.gin' if path.is_dir() else path


def _tables(description: Description) -> Iterator[rich.table.Table]:
    learned = {f'{LEARNED_FROM}{path}' for path in description.meta_parameters}
    yield _table(['component', 'value', 'macro', 'from'], _component_rows(description.components, learned))
    fields = [
        (path, *('' if x is None else str(x) for x in dataclasses.astuple(field)))
        for path, field in description.meta_parameters.items()
    ]
    yield _table(['meta-parameter', 'numbers', 'initial value', 'bijector', 'low', 'high'], fields)
    yield _table(['could be learned too', 'value'], [(path, str(x)) for path, x in description.learnable.items()])
    heads = [
        (name, str(head.shape), '\n'.join(head.inner), '\n'.join(head.outer))
        for name, head in description.heads.items()
    ]
    yield _table(['head', 'shape', 'asked for by: inner', 'outer'], heads)
    counts = {**description.parameters.modules, 'total': description.parameters.total}
    yield _table(['module of the network', 'parameters'], [(name, f'{count:,}') for name, count in counts.items()])
    yield _table(['binding without effect'], [(name,) for name in description.unused_bindings])


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
    return _table(['what differs', first, 'from', second, 'from'], rows)


def _value_and_source(setting: Setting | None) -> tuple[str, str]:
    return (setting.value, f'{setting.macro} {setting.source}'.strip()) if setting else ('', '')


def _difference_document(found: Differences, first: str, second: str) -> dict[str, Any]:
    pairs = {path: {'first': _without_parts(a), 'second': _without_parts(b)} for path, (a, b) in found.items()}
    return {'first': first, 'second': second, 'differences': pairs}


def _without_parts(setting: Setting | None) -> dict[str, str] | None:
    return {name: getattr(setting, name) for name in ('value', 'source', 'macro')} if setting else None


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> rich.table.Table:
    table = rich.table.Table(*columns, box=rich.box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    if not table.rows:
        table.add_row('none')
    return table


if __name__ == '__main__':
    sys.exit(main())
