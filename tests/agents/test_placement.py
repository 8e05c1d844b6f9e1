"""Learners whose seeds, lifetimes and environments are divided among devices, against the same on one device."""

import json
import subprocess
import sys

import pytest

from agents.experiments.experiment import Experiment
from agents.placement import Placement
from components.environments.adapters.host import HostEnvironment
from components.environments.catch import HostCatch
from components.types import CompositionError
from tests.helpers.agents_for_tests import make_agent


def check(case, *meshes):
    command = [sys.executable, '-m', 'tests.helpers.divided_learners', case, '1x1x1', *meshes]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for mesh, found in json.loads(output.splitlines()[-1]).items():
        assert found['difference'] < 1e-9, (mesh, found)
        assert found['same_integers'], (mesh, found)  # Actions, observations, keys and counts.
        assert not {'all-gather', 'all-to-all'} & set(found['collectives']), (mesh, found)
        assert found['share'] == pytest.approx(1, abs=0.1), (mesh, found)
        if mesh.endswith('1x1'):
            assert not found['collectives'], (mesh, found)


def test_a_mesh_over_seeds_and_environments_trains_and_resumes_as_one_device():
    check('mixed', '2x1x2')


@pytest.mark.slow
@pytest.mark.parametrize('case', ['mixed', 'reverse', 'frodo', 'lpg'])
def test_every_axis_trains_as_one_device(case):
    lifetimes = ['1x2x1', '1x2x2'] if case in ('reverse', 'frodo') else []
    check(case, '2x1x1', '1x1x4', '2x1x2', *lifetimes)


@pytest.mark.parametrize(
    ('placement', 'message'),
    [
        (Placement(seeds=4), r'Placement.seeds \(4\) must divide the 6 replicas .*, as 1, 2, 3, 6 do'),
        (Placement(lifetimes=3), r'Placement.lifetimes \(3\) must divide the 2 lifetimes, as 1, 2 do'),
        (Placement(environments=2), r'Placement.environments \(2\) must divide the 5 environments, as 1, 5 do'),
    ],
)
def test_a_number_that_devices_do_not_divide_is_an_error(placement, message):
    with pytest.raises(CompositionError, match=message):
        Experiment(make_agent(num_lifetimes=2), total_env_steps=1_000, num_seeds=6, placement=placement)


def test_environments_outside_of_the_program_are_not_divided():
    agent = make_agent(environment=HostEnvironment(HostCatch, 4))
    with pytest.raises(CompositionError, match=r'Placement.environments \(2\) must be 1 with HostEnvironment'):
        Placement(environments=2).check(agent, 1)


def test_more_devices_than_there_are_is_an_error():
    with pytest.raises(
        CompositionError, match=r'asks for 5 devices \(seeds 1 x .* environments 5\), where there are 1'
    ):
        Placement(environments=5).mesh(make_agent(), 1)
