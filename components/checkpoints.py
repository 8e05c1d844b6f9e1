"""Checkpoints of a learner's whole state, with orbax."""

import os
import pathlib
from typing import Any

import jax


class Checkpointer:
    """Keeps the newest checkpoints under a folder. Writing goes on in the background, one at a time.

    Args:
      directory: where they are; made if it is not there.
      max_to_keep: how many.
    """

    def __init__(self, directory: str | os.PathLike, max_to_keep: int = 3):
        import orbax.checkpoint as ocp  # Imported here as only runs with checkpoints should wait for it.

        self._args = ocp.args
        self._manager = ocp.CheckpointManager(
            pathlib.Path(directory).absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=max_to_keep, create=True),
        )

    def save(self, step: int, state: Any) -> None:
        """Starts to write a checkpoint.

        Args:
          step: its number, larger than any before.
          state: pytree of arrays and numbers.

        Raises:
          RuntimeError: if there is a checkpoint of that number, or a later one.
        """
        if not self._manager.save(step, args=self._args.StandardSave(_without_keys(state))):
            raise RuntimeError(f'checkpoint {step} was not written: there is one as new')

    def latest(self) -> int | None:
        """Number of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def restore(self, template: Any, step: int | None = None) -> Any:
        """Reads a checkpoint.

        Args:
          template: a state of the same structure, which tells shapes and types.
          step: which one; the newest if None.

        Raises:
          FileNotFoundError: if there is none.
        """
        self._manager.wait_until_finished()
        step = self.latest() if step is None else step
        if step is None:
            raise FileNotFoundError(f'no checkpoint in {self._manager.directory}')
        data = self._manager.restore(step, args=self._args.StandardRestore(_without_keys(template)))
        return jax.tree.map(_with_key, template, data)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    """Random keys as the numbers behind them, which files can hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _with_key(like: Any, data: Any) -> Any:
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like)) if _is_key(like) else data
