"""Commands on a Ray cluster, each a task with its resources."""

import os
import pathlib
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from agents.experiments import supervised
from agents.experiments.executors import Process, errors_beside
from components.types import ConfigurationError

_OBJECT_STORE_BYTES = 100_000_000
"""Of a cluster that is started here: Ray would take a third of the memory, and results are one number each."""

_SECONDS = 10
"""Until a cluster must have answered: Ray would try for minutes."""

_GREETING = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + b'\0\0\0\4\0\0\0\0\0'
"""What a client of HTTP/2, which Ray speaks, says first: its preface and an empty frame of settings (RFC 9113, 3.4)."""

_PASSED_ON = ('JAX_', 'XLA_', 'XDG_CACHE_HOME')


class RayExecutor:
    """Tasks on the nodes of a Ray cluster, which share the folders of sweep and checkout.

    A task whose node is lost has the exit status `supervised.LOST`: submitted again, it resumes elsewhere.
    Commands end with their tasks, and these with this process.

    Args:
      address: of the cluster, `host:port` or `auto`; None for RAY_ADDRESS, or else a new cluster on this machine.
      jobs: how many are submitted at once; None for no limit but the cluster's resources.
      cpus: cores of each, which it is bound to.
      gpus: GPUs of each.

    Raises:
      ConfigurationError: if Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str | None = None, jobs: int | None = None, cpus: int = 1, gpus: int = 0):
        self._ray = _connected(address)
        self._jobs = jobs
        self._running: list[_RayProcess] = []
        # No retries of Ray's own: who submits counts them.
        self._task = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_task(cpus))

    def submit(self, command: Sequence[str], output: pathlib.Path) -> Process | None:
        self._running = [process for process in self._running if process.poll() is None]
        if self._jobs and len(self._running) >= self._jobs:
            return None
        watched = [sys.executable, '-I', '-S', supervised.__file__]
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
        stop = output.with_suffix('.stop')
        stop.unlink(missing_ok=True)
        files = [str(output), str(errors_beside(output)), str(stop)]
        reference = self._task.remote(watched, list(command), files, os.getcwd(), environment)
        self._running.append(_RayProcess(self._ray, reference, errors_beside(output), stop))
        return self._running[-1]


class _RayProcess:
    """A task, as a `Process`.

    Args:
      ray: the module.
      reference: to the task's exit status.
      errors: file for why its command could not be started.
      stop: file that asks the task to end its command.
    """

    def __init__(self, ray: Any, reference: Any, errors: pathlib.Path, stop: pathlib.Path):
        self._ray, self._reference, self._errors, self._stop = ray, reference, errors, stop
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and self._ray.wait([self._reference], timeout=0)[0]:
            self._status = self._get()
        return self._status

    def terminate(self) -> None:
        self._stop.touch()  # Ray's interrupt does not always reach a task that runs, and is for those that wait.
        self._ray.cancel(self._reference)

    def _get(self) -> int:
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.TaskCancelledError:
            return -signal.SIGTERM
        except self._ray.exceptions.RayTaskError as error:  # The command could not be started there.
            self._errors.write_text(f'{type(error).__name__}: {error.cause}\n')
            return 1
        except self._ray.exceptions.RayError:
            return supervised.LOST


def _task(cpus: int) -> Callable[..., int]:
    """The function that a node calls. It is sent as it stands, so that nodes import nothing of this project."""

    def run(watched: list[str], command: list[str], files: list[str], folder: str, environment: dict[str, str]) -> int:
        import fcntl
        import os
        import subprocess
        import tempfile
        import time

        claims: dict[int, Any] = {}
        for core in sorted(os.sched_getaffinity(0)):
            claim = open(os.path.join(tempfile.gettempdir(), f'sweep-{os.getuid()}-core-{core}'), 'w')  # noqa: SIM115
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                claim.close()
                continue
            claims[core] = claim  # Until this function returns.
            if len(claims) == cpus:
                break
        cores = ','.join(map(str, claims)) if len(claims) == cpus else ''
        with open(files[0], 'wb') as out, open(files[1], 'wb') as err:
            process = subprocess.Popen(
                [*watched, str(os.getpid()), cores, *command],
                cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        is_asked = False
        try:
            while True:
                try:
                    if process.poll() is not None:
                        return process.returncode
                    if not is_asked and os.path.exists(files[2]):
                        is_asked = True
                        process.terminate()  # Once: asked twice, a run ends without a checkpoint.
                    time.sleep(0.1)
                except KeyboardInterrupt:
                    continue  # It was cancelled, which the file says, too.
        finally:
            for claim in claims.values():
                claim.close()

    return run


def _connected(address: str | None) -> Any:
    """Ray, connected to a cluster."""
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')
    os.environ.setdefault('RAY_worker_niceness', '0')  # Of nodes that are started here: runs are not in the background.
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigurationError(
            f"--executor ray needs Ray, which cannot be imported ({error}): python -m pip install -e '.[distributed]'"
        ) from error
    # Ray starts its own processes with a fork, of which JAX warns.
    warnings.filterwarnings('ignore', 'os.fork', RuntimeWarning)
    quiet: dict[str, Any] = {'logging_level': 'ERROR', 'log_to_driver': False}
    address = address or os.environ.get('RAY_ADDRESS')
    if not address:
        # Ray's own choice of an address would be the machine's outward one.
        quiet |= {
            'include_dashboard': False,
            'object_store_memory': _OBJECT_STORE_BYTES,
            '_node_ip_address': '127.0.0.1',
        }
    try:
        _check_answer(address or '')
        ray.init(address=address or 'local', **quiet)  # Without one it would join a cluster that runs here already.
    except (OSError, RuntimeError, ValueError) as error:
        why = ' '.join(str(error).split()).rstrip('.')
        place = f'reached at {address}' if address else 'started on this machine'
        way_out = 'or leave --address out' if address else 'and give --address auto'
        raise ConfigurationError(
            f'no Ray cluster can be {place}: {why}; start one with `ray start --head`, {way_out}'
        ) from error
    return ray


def _check_answer(address: str) -> None:
    """Checks that a cluster answers at an address, if that is of the form `host:port`.

    Raises:
      OSError: if nothing answers there, or something else.
    """
    host, _, port = address.rpartition(':')
    if not host or not port.isdecimal() or '/' in host:
        return
    with socket.create_connection((host, int(port)), timeout=_SECONDS) as connection:
        if os.environ.get('RAY_USE_TLS', '0') != '0':
            return  # It would answer to its own only.
        connection.sendall(_GREETING)
        answer = connection.recv(4)
    if answer[3:] != b'\4':  # The type of a frame of settings.
        raise ConnectionError('what answers there is no Ray cluster')
