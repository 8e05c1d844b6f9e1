"""A pure-JAX environment as a `dm_env.Environment`."""

import acme
import dm_env
import numpy as np
import pytest
from acme import core as acme_core
from acme.utils import loggers

from components.environments.as_dm_env import DmEnvironment
from components.environments.catch import Catch
from tests.helpers.environments_for_tests import LifelongProbe, Point, Probe


def summary(timestep: dm_env.TimeStep):
    return timestep.step_type, timestep.reward, timestep.discount, int(timestep.observation[1])


@pytest.mark.parametrize('last_discount', [0.0, 1.0])
def test_dm_environment_follows_dm_env(last_discount):
    environment = DmEnvironment(Probe((2,), (last_discount,)))
    first = dm_env.StepType.FIRST, None, None, 0
    assert summary(environment.step(1)) == first  # A step before any reset is one.
    for _ in range(2):
        assert summary(environment.step(2)) == (dm_env.StepType.MID, 12, 1, 1)
        assert summary(environment.step(1)) == (dm_env.StepType.LAST, 21, last_discount, 2)
        assert summary(environment.step(2)) == first
    assert summary(environment.step(0)) == (dm_env.StepType.MID, 10, 1, 1)
    assert summary(environment.reset()) == first
    assert summary(environment.step(0)) == (dm_env.StepType.MID, 10, 1, 1)


def test_dm_environment_hands_out_numpy_of_the_spec():
    environment = DmEnvironment(Catch())
    timestep = environment.reset()
    while not timestep.last():
        assert isinstance(timestep.step_type, dm_env.StepType)
        environment.observation_spec().validate(timestep.observation)
        timestep = environment.step(environment.action_spec().generate_value())
    environment.observation_spec().validate(timestep.observation)
    environment.discount_spec().validate(timestep.discount)


@pytest.mark.parametrize('last_discount', [0.0, 1.0])
def test_dm_environment_lives_one_lifetime(last_discount):
    environment = DmEnvironment(LifelongProbe(Probe((2,), (last_discount,))))
    observations = [environment.reset().observation]
    observations += [environment.step(0).observation for _ in range(5)]
    observations += [environment.reset().observation, environment.reset().observation]
    tasks, ages, numbers, counts = zip(*observations, strict=True)
    assert len(set(tasks)) == 1
    assert ages == (0, 1, 2, 2, 3, 4, 4, 4)
    assert counts == (0, 1, 2, 0, 1, 2, 0, 0)
    assert len(set(numbers)) == 4


def test_dm_environment_draws_episodes_from_its_seed():
    def numbers(seed):
        environment = DmEnvironment(Probe((2,), (0.0,)), seed)
        return [int(environment.reset().observation[0]) for _ in range(5)]

    assert numbers(0) == numbers(0)
    assert len({*numbers(0), *numbers(1)}) == 10


class RandomActor(acme_core.Actor):
    """Counts what it is told."""

    def __init__(self):
        self.num_first, self.rewards = 0, []
        self._random = np.random.default_rng(0)

    def observe_first(self, timestep):
        assert timestep.first()
        self.num_first += 1

    def select_action(self, observation):
        assert observation.shape == (10, 5)
        return self._random.integers(3, dtype=np.int32)

    def observe(self, action, next_timestep):
        self.rewards.append(float(next_timestep.reward))

    def update(self, wait=False):
        pass


def test_dm_environment_runs_in_acmes_loop():
    actor = RandomActor()
    loop = acme.EnvironmentLoop(DmEnvironment(Catch()), actor, logger=loggers.NoOpLogger())
    for episode in range(1, 4):
        result = loop.run_episode()
        assert result['episode_length'] == 9
        assert actor.num_first == episode
        assert actor.rewards[-9:-1] == [0] * 8
        assert result['episode_return'] == actor.rewards[-1]
        assert abs(actor.rewards[-1]) == 1
    assert len(actor.rewards) == 27


def test_actions_of_several_numbers_stay_what_they_are():
    environment = DmEnvironment(Point())
    environment.reset()
    np.testing.assert_allclose(environment.step(np.array([0.5, -0.25])).observation, [0.5, -0.25])
    np.testing.assert_allclose(environment.step([0.25, -0.25]).observation, [0.75, -0.5])
