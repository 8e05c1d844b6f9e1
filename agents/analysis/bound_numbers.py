"""Numbers that a run's bindings give to paths, as `Experiment.replicas` names them; nothing is built."""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agents.replicas import META_OPTIMISER

_EXPERIMENT = '@agents.experiments.experiment.Experiment()'


class BoundNumber(NamedTuple):
    """A number that is bound.

    Attributes:
      binding: name of the parameter.
      value: the number.
    """

    binding: str
    value: float


def number_at(path: str, bindings: Mapping[str, str]) -> BoundNumber | None:
    """The number at a path; None if nothing is bound there.

    Args:
      path: from the update rule, or from the agent to its meta-optimiser. Where it is a meta-parameter's that has an
        initial value, it is that one.
      bindings: as `gin_config.bindings` returns them.
    """
    from_agent = path.split('.') if path.startswith(f'{META_OPTIMISER}.') else ['update_rule', *path.split('.')]
    starts = _follow(_EXPERIMENT, ['agent', 'meta_parameters', 'parameters', path, 'initial_value'], bindings)
    return starts or _follow(_EXPERIMENT, ['agent', *from_agent], bindings)


def _follow(value: Any, names: Sequence[str], bindings: Mapping[str, str]) -> BoundNumber | None:
    """The number to which names of parameters, and keys of dictionaries, lead from a value."""
    scope, binding = '', ''
    for name in names:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, str) and value.startswith('@'):
            own, _, function = value[1:].removesuffix('()').rpartition('/')
            scope = own or scope  # As in gin: one without a scope is called within that of what refers to it.
            candidates = [f'{prefix}{function}.{name}' for prefix in _prefixes(scope)]
            binding = next((candidate for candidate in candidates if candidate in bindings), '')
            value = _parsed(bindings.get(binding, 'None'))
        else:
            return None
        while isinstance(value, str) and value.startswith('%'):
            value = _parsed(bindings.get(value[1:], 'None'))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return BoundNumber(binding, value) if is_number else None


def _prefixes(scope: str) -> list[str]:
    """Scopes whose bindings are in force within a scope, the most special one first."""
    names = scope.split('/') if scope else []
    return [''.join(f'{name}/' for name in names[:i]) for i in range(len(names), -1, -1)]


def _parsed(text: str) -> Any:
    """A value in which references and macros are strings, `@` or `%` first; None if it cannot be read."""
    try:
        return ast.literal_eval(re.sub(r'[@%][\w./]+(\(\))?', r"'\g<0>'", text))
    except (ValueError, SyntaxError):
        return None
