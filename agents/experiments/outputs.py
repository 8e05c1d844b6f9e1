"""Standard output and standard error, which can close while a process trains: its files are what counts."""

import os
import sys
from typing import TextIO


def use_open_outputs() -> None:
    """Puts the null device in the place of outputs that were closed before the process started."""
    for name, descriptor in (('stdout', 1), ('stderr', 2)):
        if getattr(sys, name) is None:
            _discard(descriptor)
            setattr(sys, name, os.fdopen(descriptor, 'w', closefd=False))


def say(line: str, to: TextIO) -> None:
    """Prints a line; once the reader has gone or the device is full, the stream is discarded."""
    try:
        print(line, file=to, flush=True)
    except (OSError, ValueError):  # Of a stream that was closed, ValueError.
        lose(to)


def lose(stream: TextIO) -> None:
    """Discards what is printed to a stream from now on, and what it still holds."""
    try:
        _discard(stream.fileno())
        stream.flush()
    except (OSError, ValueError):
        pass  # It has no descriptor, or is closed.


def is_lost(stream: TextIO) -> bool:
    """Whether the reader of a stream has gone; if so, its buffer is discarded."""
    try:
        stream.flush()
    except (OSError, ValueError):
        lose(stream)
        return True
    return False


def _discard(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
