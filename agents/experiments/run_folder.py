"""The run directory: its lock and its saved configuration."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
from collections.abc import Callable, Iterator

from agents.experiments import gin_config
from components.types import ConfigurationError

CONFIG = gin_config.SAVED
"""What was asked for."""

OPERATIVE_CONFIG = 'operative_config.gin'
"""Every value that was used, defaults included."""

LOCK = '.lock'
"""File that is locked while a process trains."""


def check(workdir: str | os.PathLike) -> pathlib.Path:
    """The folder's absolute path; nothing is written yet, so that a mistake elsewhere leaves no trace.

    Raises:
      ConfigurationError: if it cannot be written, or holds something that is no run.
    """
    path = check_writable(workdir)
    unfinished = {LOCK, f'{CONFIG}.new'}  # Of a run that was killed before it began.
    if path.exists() and not has_run(path) and any(child.name not in unfinished for child in path.iterdir()):
        raise ConfigurationError(f'{path} is not empty and holds no run; choose another --workdir')
    return path


def check_writable(workdir: str | os.PathLike) -> pathlib.Path:
    """The folder's absolute path, whatever it holds; nothing is written yet.

    Raises:
      ConfigurationError: if it cannot be written.
    """
    path = pathlib.Path(workdir).absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigurationError(f'cannot write to {existing}; choose another --workdir')
    return path


def has_run(workdir: pathlib.Path) -> bool:
    """Whether a run was started there."""
    return (workdir / CONFIG).is_file()


def has_progress(workdir: pathlib.Path) -> bool:
    """Whether a run has left a checkpoint or a row there, which another configuration must not touch."""
    checkpoints = workdir / 'checkpoints'
    if checkpoints.is_dir() and any(re.fullmatch(r'\d+(\.damaged)?', child.name) for child in checkpoints.iterdir()):
        return True
    return has_run(workdir) and any(_has_rows(workdir / table) for table in ('train.csv', 'eval.csv'))


def _has_rows(table: pathlib.Path) -> bool:
    return table.is_file() and table.read_bytes().count(b'\n') > 1  # The header is one.


@contextlib.contextmanager
def locked(workdir: pathlib.Path, notify: Callable[[str], None] = print) -> Iterator[None]:
    """Makes the folder and holds it for this process; whatever ends the process lets it go.

    Args:
      workdir: the folder.
      notify: called with a line if the folder's file system has no locks.

    Raises:
      ConfigurationError: if another process holds it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / LOCK).open('a+')
    except OSError as error:
        raise ConfigurationError(f'cannot write to {workdir}: {error.strerror}; choose another --workdir') from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                notify(
                    f'{workdir} lies on a file system without locks: no other process may train there at the same time'
                )
                yield
                return
            if not isinstance(error, BlockingIOError):
                raise
            file.seek(0)
            raise ConfigurationError(
                f'another process ({file.read().strip()}) is training in {workdir}; wait for it, or choose another '
                '--workdir'
            ) from error
        file.truncate(0)
        file.write(f'process {os.getpid()}')
        file.flush()
        yield


def write_configuration(workdir: pathlib.Path) -> None:
    """Writes what was asked for, and what has been used of it so far."""
    for name, text in {
        CONFIG: gin_config.config_str(),  # First: it is what makes the folder a run's.
        OPERATIVE_CONFIG: gin_config.operative_config_str(),
    }.items():
        (workdir / f'{name}.new').write_text(text)
        os.replace(workdir / f'{name}.new', workdir / name)  # A crash leaves the one or the other whole.


def check_same_run(before: dict[str, str], asked: dict[str, str], workdir: pathlib.Path, extend: bool) -> None:
    """Checks that a configuration may go on with the run in a folder.

    Args:
      before: `gin_config.bindings()` of the run.
      asked: of what is asked for now.
      workdir: named in the error.
      extend: whether the run may become longer.

    Raises:
      ConfigurationError: if anything differs but the devices; the message lists what.
    """
    differing = {name: (before.get(name), asked.get(name)) for name in sorted(before | asked)}
    differing = {
        name: pair for name, pair in differing.items() if pair[0] != pair[1] and not re.fullmatch(PLACEMENT, name)
    }
    length = differing.get(LENGTH)
    if set(differing) == {LENGTH} and length is not None and None not in length:
        if extend and int(str(length[1])) > int(str(length[0])):
            return
        way_out = 'a larger one needs --extend' if not extend else 'it can only become larger'
        raise ConfigurationError(f'{LENGTH} is {length[0]} in {workdir} and {length[1]} here: {way_out}')
    if differing:
        changes = '; '.join(f'{name} = {old} there, {new} here' for name, (old, new) in differing.items())
        raise ConfigurationError(
            f'{workdir} holds a run with another configuration: {changes}; choose another --workdir'.replace(
                'None', 'not set'
            )
        )


LENGTH = 'TOTAL_ENV_STEPS'
"""The macro that may grow."""

PLACEMENT = r'(.*\.)?Experiment\.placement|(.*\.)?Placement\.\w+'
"""Pattern of what may change from start to start, as numbers do not depend on devices."""
