"""The loops that are compared do the same."""

import numpy as np
import pytest

from components.acting.actor import Actor
from components.environments.adapters.ale import Atari
from tools.benchmarks import atari


@pytest.mark.parametrize('act', [atari._steps, atari._unrolls])
def test_a_compiled_loop_takes_as_many_steps_as_the_one_in_python(act):
    environment = Atari('breakout', 2, height=12, width=12)
    compiled = atari._Compiled(Actor(environment, atari._null_network(4)), act, num_steps=40)
    compiled()
    np.testing.assert_array_equal(compiled._state.episode_length, [40, 40])
    emulators = environment.make(2)
    emulators.reset(seed=0)
    before = emulators.step(np.zeros(2, np.int32))[-1]['frame_number']
    atari._step(emulators, np.zeros((40, 2), np.int32))
    np.testing.assert_array_equal(emulators.step(np.zeros(2, np.int32))[-1]['frame_number'] - before, [4 * 41] * 2)
