"""A small draw of what `python tests/fuzz.py` tries whole, as far as training: reading, checking and building."""

import argparse
import itertools
import random

import pytest

from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from components.types import ConfigurationError
from tests import fuzz
from tests.helpers.gin_text import respelled


def outcome(file, bindings):
    """The line that refuses a configuration, None if it is built."""
    try:
        gin_config.load([file], bindings)
        gin_config.check_effects(Experiment)
        gin_config.build(Experiment)
    except ConfigurationError as error:
        return str(error)
    return None


def bindings_of(command):
    return [line for option, line in itertools.pairwise(command) if option == '--gin_bindings']


@pytest.mark.parametrize('file', ['gin/catch/self_tuning.gin', 'gin/random_walk/frodo.gin'])
def test_whatever_is_bound_is_accepted_or_refused_in_one_line(file, tmp_path):
    args = argparse.Namespace(gin_file=[file], name='', tries=100, seed=3)
    outcomes = [outcome(file, bindings_of(command)) for _, command in fuzz.binding_tries(args, tmp_path)]
    assert len(outcomes) == 100
    assert all(message is None or (message and '\n' not in message) for message in outcomes)
    assert 0 < sum(message is None for message in outcomes) < 50
    assert sum('must be' in str(message) for message in outcomes) > 40


@pytest.mark.parametrize('spelling', ['lines', 'blocks'])
@pytest.mark.parametrize('damage', fuzz.DAMAGES, ids=lambda damage: damage.__name__.strip('_'))
def test_a_damaged_file_is_accepted_or_refused_in_one_line(damage, spelling, tmp_path):
    random_ = random.Random(0)
    text = respelled((gin_config.ROOT / 'gin/catch/meta_discount.gin').read_text(), spelling)
    for i in range(4):
        path = tmp_path / f'{i}.gin'
        damaged = damage(text, random_, path)
        path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
        message = outcome(path, fuzz.SMALL)
        assert message is None or (message and '\n' not in message)
        if damage.__name__.startswith('_circle'):
            assert 'itself' in message


@pytest.mark.parametrize(
    ('status', 'output', 'problem'),
    [
        (0, 'results are in x', None),
        (2, 'compiling\nerror: a line', None),
        (3, 'error: diverged', None),
        (None, '', 'did not end'),
        (-9, '', 'status -9'),
        (1, 'error: x', 'status 1'),
        (2, 'Traceback (most recent call last):\nerror: x', 'traceback'),
        (2, 'something', 'status 2 without a line'),
        (2, '', 'status 2 without a line'),
    ],
)
def test_how_a_run_ended_is_judged(status, output, problem):
    assert fuzz.judge(status, output) == problem
