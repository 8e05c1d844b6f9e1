"""Several processes that train one agent: they find each other, agree on what they do, and end together.

    processes.connect('10.0.0.1:1234', num_processes=2, process_id=0)  # before anything touches JAX
    program = processes.together(jax.jit(...))                         # called by all of them at once
    sys.exit(processes.leave(status))

Each runs the same program on the same configuration and holds a part of the state. The first one alone has a folder:
rows, checkpoints and what a person sees are its own. In a single process all of this is the identity.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # The coordination service's barriers have no public name.
from jax.experimental import multihost_utils

from components.types import ConfigurationError

T = TypeVar('T')

LOST = 75
"""Exit status when another process is lost, after which the same command resumes: EX_TEMPFAIL of sysexits.h."""

PATIENCE = 45.0
"""Seconds for which another process may give no sign of life."""

TO_CONNECT = 6
"""Times that patience is how long processes wait for each other to start."""

LONGEST_WAIT = 3_600
"""Seconds in which a living process is waited for between calls: while one writes or compiles."""


class _Peers:
    """The group that this process is in, its heartbeat and its watch over the others.

    JAX's own service ends a process by SIGABRT when another one is lost, and never when one hangs.
    """

    def __init__(self, patience: float):
        state = distributed.global_state
        self.index, self.size, self.patience = state.process_id, state.num_processes, patience
        self._client: Any = state.client
        self._round = 0
        self.deadline: float | None = None
        now = time.monotonic()
        self._beat, self._heard = now, {peer: ('', now) for peer in range(self.size) if peer != self.index}
        self._over = threading.Event()
        for loop in (self._send_and_listen, self._watch):
            threading.Thread(target=loop, daemon=True).start()

    def wait(self) -> None:
        """Returns when all processes are here."""
        self._round += 1
        self._coordinated(lambda: self._client.wait_at_barrier(f'wait/{self._round}', 1_000 * LONGEST_WAIT))

    def all_say(self, text: str) -> list[str]:
        """What each process says, by its number."""
        self._round += 1
        key = f'say/{self._round}/'
        self._coordinated(lambda: self._client.key_value_set(f'{key}{self.index}', text))
        self.wait()
        said = [self._client.blocking_key_value_get(f'{key}{i}', 1_000 * LONGEST_WAIT) for i in range(self.size)]
        self.wait()
        if self.index == 0:
            self._coordinated(lambda: self._client.key_value_delete(key))
        return said

    def leave(self, status: int) -> int:
        """Leaves with the others, or tells them that this process ends alone, with an error, and ends it."""
        if status in (0, *range(128, 256)):
            self.wait()
            self._over.set()
            self.wait()  # No process still polls the service when it ends.
            jax.distributed.shutdown()
            return status
        self._over.set()  # What others say now is no news.
        self._coordinated(lambda: self._client.key_value_set(f'ended/{self.index}', str(status)))
        time.sleep(min(self.patience, 5.0))  # If it coordinates, the others cannot read it later.
        _end(status)

    def explain(self, error: Exception) -> NoReturn:
        """Ends this process if a lost one explains an error in what all did together; raises it otherwise."""
        time.sleep(self.patience + 2 * self._period)  # Time for the threads to find out.
        raise error

    @property
    def _period(self) -> float:
        return min(self.patience / 10, 2.0)

    def _coordinated(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except jax.errors.JaxRuntimeError as error:
            self._lose(f'processes no longer reach each other: {str(error).splitlines()[0]}')

    def _send_and_listen(self) -> None:
        number = 0
        while not self._over.wait(self._period):
            number += 1
            try:
                self._client.key_value_set(f'alive/{self.index}', str(number), allow_overwrite=True)
                alive, ended = (self._client.key_value_dir_get(name) for name in ('alive/', 'ended/'))
            except jax.errors.JaxRuntimeError as error:
                if not self._over.is_set():
                    self._lose(f'process 0, which coordinates, is lost: {str(error).splitlines()[0]}')
                return
            self._beat = time.monotonic()
            for key, text in alive:
                peer = int(key.rsplit('/', 1)[1])
                if peer in self._heard and self._heard[peer][0] != text:
                    self._heard[peer] = text, self._beat
            for key, status in ended:
                peer = int(key.rsplit('/', 1)[1])
                if peer != self.index:
                    _end(int(status), f'process {peer} has ended with an error')

    def _watch(self) -> None:
        while not self._over.wait(self._period):
            now = time.monotonic()
            if now - self._beat > self.patience:
                self._lose(f'process 0, which coordinates, has been silent for {self.patience:g} s')
            for peer, (_, heard) in self._heard.items():
                if now - heard > self.patience:
                    self._lose(f'process {peer} has been silent for {self.patience:g} s')
            if self.deadline is not None and now > self.deadline:
                self._lose('a process hangs: a call has taken ten times as long as the longest before')

    def _lose(self, message: str) -> NoReturn:
        _end(LOST, f'{message}; give the same commands again to resume')


_peers: _Peers | None = None


def connect(
    coordinator: str | None, num_processes: int | None, process_id: int | None, patience: float = PATIENCE
) -> None:
    """Joins the other processes; before anything touches JAX.

    Args:
      coordinator: `HOST:PORT` of process 0; None for what a cluster says of itself, SLURM or TPUs, with the next two.
      num_processes: in all.
      process_id: of this one, from 0.
      patience: seconds for which another process may give no sign of life; all wait for six times as long for the
        others to start. A call that all make together may take so long and ten times the longest before.
    """
    global _peers
    jax.config.update('jax_enable_preemption_service', False)  # It would swallow SIGTERM.
    jax.config.update('jax_enable_recoverability', True)  # What is lost is said here, and with another status.
    seconds = TO_CONNECT * patience
    missing = 'not all processes have come to' if process_id == 0 else 'no coordinator (--process_id 0) answers at'
    message = f'{missing} {coordinator or "the address that the cluster names"} within {seconds:g} s'
    timer = threading.Timer(seconds, lambda: _end(LOST, message))
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=int(seconds) + 60,
            coordinator_bind_address=coordinator,
            heartbeat_timeout_seconds=int(10 * patience),
        )
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigurationError(f'--coordinator {coordinator or "auto"}: {reason}') from error
    finally:
        timer.cancel()
    if distributed.global_state.num_processes > 1:
        # JAX aborts the process, from a thread of its own, when its service is gone. Python's handlers would not be
        # called any more.
        ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
        _peers = _Peers(patience)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(signum: int) -> None:
    _end(LOST, 'process 0, which coordinates, is lost, or JAX has failed; give the same commands again to resume')


def count() -> int:
    """How many there are."""
    return 1 if _peers is None else _peers.size


def is_first() -> bool:
    """Whether this is the one that writes."""
    return _peers is None or _peers.index == 0


def largest(number: int) -> int:
    """The largest of the numbers that the processes give; all have to ask."""
    return number if _peers is None else max(map(int, _peers.all_say(str(number))))


def from_first(value: Any) -> Any:
    """What the first process gives, as JSON can hold it; all have to ask."""
    return value if _peers is None else json.loads(_peers.all_say(json.dumps(value if is_first() else None))[0])


def check_equal(values: Mapping[str, str]) -> None:
    """Checks that all processes were given the same; all have to ask.

    Raises:
      ConfigurationError: if not; the message says what differs.
    """
    if _peers is None:
        return
    first, *others = map(json.loads, _peers.all_say(json.dumps(dict(values))))
    for number, other in enumerate(others, 1):
        names = [name for name in sorted(first | other) if first.get(name) != other.get(name)]
        if names:
            differing = '; '.join(f'{name} = {first.get(name)} and {other.get(name)}' for name in names)
            raise ConfigurationError(
                f'processes 0 and {number} were given different configurations: '
                f'{differing.replace("None", "not set")}; give all the same'
            )


def leave(status: int) -> int:
    """Ends the process with the others; one that has failed tells them, and they end with its status.

    Returns:
      The exit status.
    """
    return status if _peers is None else _peers.leave(status)


def together(program: Callable[..., T]) -> Callable[..., T]:
    """A jitted function that all processes call at the same time; it returns when its results are there."""
    return program if _peers is None else _Together(program, _peers)


class _Together:
    """Compiles ahead and waits for the others: collectives that meet for the first time do so for 30 seconds only."""

    def __init__(self, program: Any, peers: _Peers):
        self._program, self._peers = program, peers
        self._compiled: Callable[..., Any] | None = None
        self._num_calls, self._longest = 0, 0.0

    def __call__(self, *args: Any) -> Any:
        if self._compiled is None:
            self._compiled = self._program.lower(*args).compile()
        self._peers.wait()
        start = time.monotonic()
        if self._num_calls > 1:  # The first may be one of no steps, and tell nothing of how long the next ones take.
            self._peers.deadline = start + 10 * self._longest + self._peers.patience
        try:
            return jax.block_until_ready(self._compiled(*args))
        except jax.errors.JaxRuntimeError as error:
            self._peers.explain(error)
        finally:
            self._peers.deadline = None
            self._num_calls, self._longest = self._num_calls + 1, max(self._longest, time.monotonic() - start)


def share(tree: T, like: T) -> T:
    """The first process's tree, in each of them; all have to ask.

    Args:
      tree: which counts in the first process alone.
      like: a tree of the same structure, shapes and types.
    """
    if _peers is None:
        return tree
    leaves, structure = jax.tree.flatten(tree if is_first() else like)
    arrays = [np.ascontiguousarray(jax.random.key_data(x) if is_key(x) else x) for x in leaves]
    mine = np.frombuffer(b''.join(x.tobytes() for x in arrays), np.uint8)
    _peers.wait()
    received, position, shared = np.asarray(multihost_utils.broadcast_one_to_all(mine)).tobytes(), 0, []
    for x, array in zip(leaves, arrays, strict=True):
        part = np.frombuffer(received, array.dtype, array.size, position).reshape(array.shape).copy()
        position += array.nbytes
        if is_key(x):
            shared.append(jax.random.wrap_key_data(jnp.asarray(part), impl=jax.random.key_impl(x)))
        else:
            shared.append(part if hasattr(x, 'dtype') else part.item())
    return jax.tree.unflatten(structure, shared)


def is_key(x: object) -> bool:
    """Whether this is an array of random keys."""
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _end(status: int, message: str = '') -> NoReturn:
    """Ends the process at once: Python's own end would wait for the others."""
    try:
        if message:
            print(f'error: {message}', file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)
