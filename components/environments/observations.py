"""Entries of structured observations by path."""

import jax
from jaxtyping import PyTree


def entries_of(observation: PyTree) -> dict[str, PyTree]:
    """Entries of an observation of any structure by path, `agent_position` and `agent_position/row` say."""
    entries: dict[str, PyTree] = {}
    leaves, _ = jax.tree_util.tree_flatten_with_path(observation, is_leaf=lambda x: x is not observation)
    for path, child in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        if not name:
            return {}  # One array.
        entries |= {name: child, **{f'{name}/{inner}': entry for inner, entry in entries_of(child).items()}}
    return entries


def entry_at(observation: PyTree, path: str, name: str) -> PyTree:
    """The entry of an observation at a path.

    Raises:
      ValueError: if there is none; `name` says whose path it is.
    """
    entries = entries_of(observation)
    if path not in entries:
        raise ValueError(f'{name}: no entry {path!r}, there are {", ".join(entries) or "none"}')
    return entries[path]
