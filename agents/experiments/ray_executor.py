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
        files = [str(output), str(errors_beside(output))]
        reference = self._task.remote(watched, list(command), files, os.getcwd(), environment)
        self._running.append(_RayProcess(self._ray, reference, errors_beside(output)))
        return self._running[-1]


class _RayProcess:
    """A task, as a `Process`."""

    def __init__(self, ray: Any, reference: Any, errors: pathlib.Path):
        self._ray, self._reference, self._errors = ray, reference, errors
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and self._ray.wait([self._reference], timeout=0)[0]:
            self._status = self._get()
        return self._status

    def terminate(self) -> None:
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
        try:
            return process.wait()
        except KeyboardInterrupt:  # It was cancelled.
            process.terminate()
            return process.wait()
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
    host, _, port = (address or '').rpartition(':')
    if address is None:
        # Ray's own choice of an address would be the machine's outward one.
        quiet |= {
            'include_dashboard': False,
            'object_store_memory': _OBJECT_STORE_BYTES,
            '_node_ip_address': '127.0.0.1',
        }
    try:
        if host and port.isdecimal() and '/' not in host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray would try for minutes.
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().split('\n')[0]
        raise ConfigurationError(
            f'no Ray cluster can be reached at {address or "this machine"}: {first}; start one with '
            '`ray start --head`, or leave --address out'
        ) from error
    return ray
