"""Runs a command that ends when the process that started it does, however that ends.

    python -I -S supervised.py PARENT CORES COMMAND...

This file is a script, started by its path: it imports nothing but the standard library, and becomes the command.
PARENT is the number of the process that starts it, CORES those that the command may use, `0,1`, empty for all.
"""

import ctypes
import os
import signal
import sys

LOST = 75
"""Exit status of a command that could not be run where it was, but may be elsewhere or later (EX_TEMPFAIL)."""

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Becomes the command.

    Args:
      arguments: PARENT, CORES and the command.
    """
    parent, cores, *command = arguments
    if cores and hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, [int(core) for core in cores.split(',')])
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # It ended before it could be watched.
        sys.exit(LOST)
    os.execv(command[0], command)


if __name__ == '__main__':
    main(sys.argv[1:])
