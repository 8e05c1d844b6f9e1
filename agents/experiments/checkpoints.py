"""Checkpoints of a run's whole state, with orbax, which know when they are damaged."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from agents import processes
from components.types import UserError

JSONObject = dict[str, Any]
"""As a file holds it."""

FORMAT = 1
"""Of what is written; files of a later one are refused."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be written or used; the message is one line that says which and why."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is incomplete, or whose bytes are not those that were written."""


class Checkpoint(NamedTuple):
    """What was saved: its number, the state, and the notes."""

    step: int
    state: PyTree
    notes: JSONObject


class Checkpointer:
    """Keeps the newest checkpoints under a folder, and the best. Writing goes on in the background, one at a time.

    checkpointer.save(step, state, notes, score)
    checkpoint = checkpointer.restore_newest(template)

    A checkpoint appears under its final name once it is complete. Beside the arrays stand their structure and a digest
    of every byte, so that what is read is either what was written or refused.

    Args:
      directory: where they are; made if it is not there.
      max_to_keep: how many of the newest.
      read_only: whether another process may be writing there, which is then left alone.
    """

    def __init__(self, directory: str | os.PathLike, max_to_keep: int = 3, read_only: bool = False):
        import orbax.checkpoint as ocp  # Imported here as only runs with checkpoints should wait for it.

        _silence_orbax()
        self._ocp, self._args = ocp, ocp.args
        self._directory = pathlib.Path(directory).absolute()
        self._max_to_keep, self._read_only = max_to_keep, read_only
        self._best: list[Any] | None = None  # Number and score; a list, as JSON has no tuples.
        self._is_readable = read_only
        with self._writing('the first one') if not read_only else self._reading(None):
            self._open()

    def _open(self) -> None:
        if not self._read_only:
            self._directory.mkdir(parents=True, exist_ok=True)
        self._manager = self._ocp.CheckpointManager(
            _without_patterns(self._directory),
            options=self._ocp.CheckpointManagerOptions(
                create=not self._read_only and processes.count() == 1,  # orbax would wait for all processes.
                cleanup_tmp_directories=not self._read_only,
                read_only=self._read_only,
                multiprocessing_options=self._alone(),
                preservation_policy=_NewestAndBest(self._max_to_keep, lambda: self._best[0] if self._best else None),
            ),
        )

    def _alone(self) -> Any:
        """Keeps orbax from waiting for other processes, which have no part in files."""
        options = self._ocp.options.MultiprocessingOptions
        if processes.count() == 1:
            return options()
        return options(primary_host=0, active_processes={0}, barrier_sync_key_prefix='first')

    def save(
        self, step: int, state: PyTree, notes: Mapping[str, object] | None = None, score: float = math.nan
    ) -> None:
        """Starts to write a checkpoint.

        Args:
          step: its number, larger than any before.
          state: pytree of arrays and numbers, not changed before the next call.
          notes: whatever else, as JSON can hold it.
          score: by which one checkpoint is kept as the best; NaN if it is not known.

        Raises:
          CheckpointError: if this one, or the one before it, could not be written.
        """
        data = jax.device_get(_to_files(state))
        if not math.isnan(score) and (self._best is None or score > self._best[1]):
            self._best = [step, score]
        ours = {
            'step': step,
            'structure': _structure(state),
            'arrays': _digest(data),
            'best': self._best,
            'notes': dict(notes or {}),
        }
        record = {'format': FORMAT, 'record': ours, 'digest': _digest_of_json(ours)}
        items = self._args.Composite(state=self._args.StandardSave(data), record=self._args.JsonSave(record))
        with self._writing(step):
            if not self._manager.save(step, args=items):
                raise CheckpointError(f'checkpoint {step} was not written: there is one as new in {self._directory}')
        if not self._is_readable:
            self._read_back(step)
            self._is_readable = True

    def make_directory(self) -> bool:
        """Makes the folder again if it was removed; returns whether it was.

        Raises:
          CheckpointError: if it cannot be made.
        """
        if self._directory.is_dir():
            return False
        with self._writing('the next one'):
            self._manager.close()
            self._open()
        return True

    def latest(self) -> int | None:
        """Number of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """Number of the checkpoint with the highest score so far, None if none had one."""
        newest = self.latest()
        best = None if newest is None else self._record(newest)['best']
        return best[0] if best else None

    def steps(self) -> list[int]:
        """Numbers of all checkpoints, from the oldest.

        Raises:
          FileNotFoundError: if there is none.
        """
        self.wait()
        steps = sorted(self._manager.all_steps())
        if not steps:
            raise FileNotFoundError(f'there are no checkpoints in {self._directory}')
        return steps

    def find(self, step: int | None = None) -> int:
        """Number of a checkpoint that is there: this one, or the newest if None.

        Raises:
          FileNotFoundError: if there is none.
        """
        steps = self.steps()
        if step is not None and step not in steps:
            raise FileNotFoundError(f'there is no checkpoint {step} in {self._directory}, only {steps}')
        return steps[-1] if step is None else step

    def restore(self, template: PyTree, step: int | None = None) -> Checkpoint:
        """Reads a checkpoint.

        Args:
          template: a state of the same structure, which tells shapes and types.
          step: which one; the newest if None.

        Raises:
          FileNotFoundError: if there is none.
          CheckpointError: if it holds another structure, or is of a later format.
          DamagedCheckpointError: if it is damaged.
        """
        step = self.find(step)
        record = self._record(step)
        written = record['structure']
        _check_structure({_today(name): kind for name, kind in written.items()}, _structure(template), step)
        if all(name == _today(name) for name in written):
            data = self._data(step, record, _to_files(template))
        else:
            leaves = {_today(name): x for name, x in _leaves(self._data(step, record)).items()}
            structure = jax.tree.structure(template)
            data = jax.tree.unflatten(structure, [leaves.get(name) for name in _leaves(template)])
        self._best = record['best']
        return Checkpoint(step, jax.tree.map(_from_file, template, data), record['notes'])

    def read(self, step: int | None = None) -> PyTree:
        """Reads a checkpoint without a template: dictionaries and lists in place of other containers.

        Args:
          step: which one; the newest if None.

        Raises:
          FileNotFoundError: if there is none.
          CheckpointError: if it is of a later format.
          DamagedCheckpointError: if it is damaged.
        """
        step = self.find(step)
        return self._data(step, self._record(step))

    def restore_newest(self, template: PyTree, warn: Callable[[str], None]) -> Checkpoint | None:
        """Reads the newest checkpoint that is whole, None if there is none; renames newer ones to `<step>.damaged`.

        Args:
          template: as for `restore`.
          warn: called with a line for each damaged one.

        Raises:
          CheckpointError: if it holds another structure, or is of a later format.
          DamagedCheckpointError: if there are some, but none is whole; they are left as they are.
        """
        self.wait()
        damaged: list[int] = []
        for step in sorted((int(path.name) for path in self._directory.iterdir() if path.name.isdigit()), reverse=True):
            try:
                checkpoint = self.restore(template, step)
            except (DamagedCheckpointError, FileNotFoundError):
                damaged.append(step)
            else:
                self._set_aside(damaged, warn)
                return checkpoint
        if damaged:
            raise DamagedCheckpointError(
                f'no checkpoint in {self._directory} is whole: start another run, in another folder'
            )
        return None

    def _set_aside(self, steps: Sequence[int], warn: Callable[[str], None]) -> None:
        for step in steps:
            warn(
                f'checkpoint {step} is damaged or incomplete, so the one before it is taken; it is kept as {step}.damaged'
            )
            shutil.rmtree(self._directory / f'{step}.damaged', ignore_errors=True)
            os.replace(self._directory / f'{step}', self._directory / f'{step}.damaged')
        if steps:
            self._manager.reload()

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          CheckpointError: if something could not be.
        """
        with self._writing('the last one'):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
          CheckpointError: if something could not be.
        """
        self.wait()
        self._manager.close()

    def _data(self, step: int, record: Mapping[str, object], template: PyTree | None = None) -> PyTree:
        with self._reading(step):
            args = self._args.Composite(state=self._args.StandardRestore(template))
            # As NumPy arrays: JAX would compile again for arrays that are committed to a device.
            data = jax.device_get(self._manager.restore(step, args=args)['state'])
            if _digest(data) != record['arrays']:
                raise ValueError('what was read is not what was written')
        return data

    def _read_back(self, step: int) -> None:
        """Reads back what was just written, so that an unreadable folder shows before training continues."""
        self.wait()
        try:
            self._data(step, self._record(step))
        except DamagedCheckpointError as error:
            raise CheckpointError(
                f'checkpoint {step} was written to {self._directory} but cannot be read back: {error}; choose another '
                'folder'
            ) from error

    def _record(self, step: int) -> JSONObject:
        with self._reading(step):
            args = self._args.Composite(record=self._args.JsonRestore())
            record = self._manager.restore(step, args=args)['record']
            written, ours = int(record['format']), dict(record['record'])
        if written > FORMAT:
            raise CheckpointError(
                f'checkpoint {step} in {self._directory} is of format {written}, and this software reads formats up to '
                f'{FORMAT}: use the version that wrote it, or a later one'
            )
        if _digest_of_json(ours) != record['digest']:
            raise DamagedCheckpointError(f'checkpoint {step} in {self._directory} is damaged: its record was changed')
        if ours.get('step', step) != step:
            raise DamagedCheckpointError(
                f'checkpoint {step} in {self._directory} is damaged: it was written as number {ours["step"]}'
            )
        return ours

    def _writing(self, step: int | str) -> contextlib.AbstractContextManager[None]:
        return _one_line_errors(CheckpointError, f'checkpoint {step} could not be written to {self._directory}')

    def _reading(self, step: int | None) -> contextlib.AbstractContextManager[None]:
        which = 'the folder of checkpoints' if step is None else f'checkpoint {step} in'
        return _one_line_errors(DamagedCheckpointError, f'{which} {self._directory} is damaged')


@dataclasses.dataclass(frozen=True)
class _NewestAndBest:
    """Which checkpoints stay, in the form that orbax asks for."""

    num_newest: int
    best: Callable[[], int | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        del context
        newest = {checkpoint.step for checkpoint in checkpoints[-self.num_newest :]}
        return [checkpoint.step in newest | {self.best()} for checkpoint in checkpoints]


def _without_patterns(directory: pathlib.Path) -> pathlib.Path:
    """A path to a folder without characters that orbax would take for a pattern of names, `[` and `]` say.

    It goes through a descriptor of the folder, which this process keeps open.
    """
    if re.fullmatch(r'[\w/.,=+@%: -]*', str(directory), re.ASCII):
        return directory
    return pathlib.Path('/proc/self/fd', str(os.open(directory, os.O_RDONLY | os.O_DIRECTORY)))


@functools.cache
def _silence_orbax() -> None:
    """Keeps from standard error what orbax says there in many lines, of damaged files above all: we say it in one.

    The first read that fails ends orbax's event loop. Pending reads then fail as unraisable exceptions, at any time.
    """
    for name in ('asyncio', 'absl'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    tell = sys.unraisablehook

    def tell_others(unraisable: Any) -> None:
        of_closed_loop = str(unraisable.exc_value) == 'Event loop is closed'
        code = getattr(unraisable.object, 'cr_code', None)
        if not of_closed_loop and not (code and '/orbax/' in code.co_filename):
            tell(unraisable)

    sys.unraisablehook = tell_others


@contextlib.contextmanager
def _one_line_errors(cls: type[CheckpointError], message: str) -> Iterator[None]:
    """Turns whatever orbax and what is below it raise into an error of ours."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        if isinstance(error, PermissionError | MemoryError):  # Nothing that the file could help.
            cls = CheckpointError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise cls(f'{message}: {reason}') from error


def _check_structure(written: Mapping[str, str], expected: Mapping[str, str], step: int) -> None:
    """Raises CheckpointError that names the first leaf in which two structures differ."""
    for path in [*expected, *written]:
        if written.get(path) != expected.get(path):
            raise CheckpointError(
                f'checkpoint {step} is of another structure: {path} is {written.get(path, "missing")} in it and '
                f'{expected.get(path, "missing")} here; use the configuration that it was written with'
            )


RENAMED_FIELDS = (
    ('/agents/age$', '/agents/num_updates'),
    ('/age$', '/num_env_steps'),
    ('/meta_opt_state/memory/(updates|num_missing)(?=/|$)', r'/meta_opt_state/lifetime_state/window/\1'),
    ('/meta_opt_state/memory(?=/|$)', '/meta_opt_state/lifetime_state/opt_state'),
    ('/owed$', '/pending_reward'),
    ('/agents/(params|opt_state)(?=/|$)', r'/agents/learning/\1'),
    ('/behaviour_logits$', '/behaviour_policy/logits'),
    ('/window/updates/0(?=/)', '/window/updates/learning/params'),
    ('/window/updates/1(?=/)', '/window/updates/learning/opt_state'),
    ('/window/updates/2(?=/)', '/window/updates/trajectory'),
)
"""Patterns of what leaves were called until version 0.1, and their names of today."""


def _today(name: str) -> str:
    """What a leaf is called today."""
    for pattern, today in RENAMED_FIELDS:
        name = re.sub(pattern, today, name)
    return name


def _structure(tree: PyTree) -> dict[str, str]:
    """Type and shape of each leaf, by its name."""
    return {name: f'{getattr(x, "dtype", type(x).__name__)}{list(np.shape(x))}' for name, x in _leaves(tree).items()}


def _leaves(tree: PyTree) -> dict[str, ArrayLike]:
    """Leaves by name, which is the same whatever the containers are."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in leaves}


def _digest(data: PyTree) -> str:
    """Of every byte of the leaves."""
    digest = hashlib.sha256()
    for _, x in sorted(_leaves(data).items()):
        digest.update(np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()


def _digest_of_json(record: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _is_key(x: object) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_files(tree: PyTree) -> PyTree:
    """The leaves as files can hold them: the numbers behind random keys, and nothing for arrays without entries."""

    def to_file(x: ArrayLike) -> ArrayLike | None:
        return jax.random.key_data(x) if _is_key(x) else None if np.size(x) == 0 else x

    return jax.tree.map(to_file, tree)


def _from_file(like: Any, data: Any) -> ArrayLike:
    """A leaf as it was before `_to_files`."""
    if _is_key(like):
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
    return np.zeros(like.shape, like.dtype) if np.size(like) == 0 else data
