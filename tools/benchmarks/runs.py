"""What a whole run costs beside training: logs, evaluations and checkpoints, and its start."""

import dataclasses
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile

import numpy as np
from acme.utils import loggers as acme_loggers

from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.loggers import CSVLogger, TensorBoardLogger
from tools.benchmarks.measure import Row, row


def extras(rounds: int) -> list[Row]:
    """Environment steps per second of the clock, with logs and with everything, against those of the time spent
    training.

    Both are of the same run: between two runs the speed of a shared machine differs by more than what is asked for.
    """
    gin_config.load(['gin/catch/meta_discount.gin'])
    experiment = dataclasses.replace(gin_config.build(Experiment), loggers=(CSVLogger, TensorBoardLogger))
    logs = dataclasses.replace(experiment, evaluate_every=0, checkpoint_every=0)
    rows = []
    for name, chosen in (('logs', logs), ('logs, evaluations and checkpoints', experiment)):
        # From the first evaluation on, so that compiling it does not count.
        speeds = np.array([_steps_per_second(chosen, experiment.evaluate_every) for _ in range(rounds)]).T
        rows.append(row(name, 'training alone', 'environment steps/s', speeds[0], speeds[1], speeds[0] / speeds[1]))
    return rows


def _steps_per_second(experiment: Experiment, after: int) -> tuple[float, float]:
    """By the clock and of training alone, from the first row after so many environment steps to the last one."""
    probe = _Probe()
    loggers = [*experiment.loggers, lambda label, run: probe if label == 'train' else acme_loggers.NoOpLogger()]
    with tempfile.TemporaryDirectory() as workdir:
        dataclasses.replace(experiment, loggers=loggers).run(workdir)
    # The row in which that many were exceeded comes before what was due then.
    env_steps, clock, speeds = np.array([row for row in probe.rows if row[0] > after][1:]).T
    taken = np.diff(env_steps)
    return taken.sum() / (clock[-1] - clock[0]), taken.sum() / (taken / speeds[1:]).sum()


class _Probe(acme_loggers.Logger):
    """Keeps environment steps, the clock, and the speed of training alone."""

    def __init__(self):
        self.rows: list[tuple[float, float, float]] = []

    def write(self, data):
        self.rows.append((float(data['env_steps'].sum()), data['wall_time'], data['steps_per_second']))

    def close(self):
        pass


STARTS = {
    'gin/catch/meta_discount.gin': 640,
    'gin/snake/meta_discount_outer_critic.gin': 2_560,
    'gin/catch/frodo.gin': 640,
    'gin/grid_worlds/lpg.gin': 51_200,
}
"""Environment steps of a meta-step, by variant."""


def start(rounds: int) -> list[Row]:
    """Time from the command to the first update, from the cache of compiled programs and with an empty one; CPU time
    is of a run that takes one meta-step.
    """
    rows = []
    for variant in STARTS:
        pairs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as cache:
                first = _seconds_to_first_update(variant, cache)
                pairs.append((_seconds_to_first_update(variant, cache), first))
        for unit, (again, first_time) in zip(('s', 'CPU s'), np.array(pairs).T, strict=True):
            rows.append(row(f'start of {variant}', 'an empty cache', unit, again, first_time, again / first_time))
    return rows


def _seconds_to_first_update(variant: str, cache: str) -> tuple[float, float]:
    """By the clock, and of CPU time."""
    bindings = ['LOG_EVERY = 1', f'TOTAL_ENV_STEPS = {STARTS[variant]}', 'EVALUATE_EVERY = 0', 'CHECKPOINT_EVERY = 0']
    options = [part for binding in bindings for part in ('--gin_bindings', binding)]
    tool = str(pathlib.Path(__file__).parents[1] / 'run.py')
    before = _cpu_seconds_of_children()
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, tool, '--gin_file', variant, '--workdir', workdir, *options]
        environment = {**os.environ, 'XDG_CACHE_HOME': cache}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(re.findall(r'first row ([\d.]+) s', done.stdout)[0]), _cpu_seconds_of_children() - before


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
