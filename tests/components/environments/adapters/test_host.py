"""Environments on the host."""

import collections
import functools
import gc
import types
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import specs

from components.environments.adapters.host import HostEnvironment
from components.environments.base import named_failures
from components.environments.catch import HostCatch
from components.types import EnvironmentFailedError
from tests.helpers.environments_for_tests import LAST, NUM_ACTIONS, Probe, check_member, host_probes, scan


def test_rows_of_a_vmap_have_environments_of_their_own():
    probe = Probe((2, 3, 5), (0.0, 1.0))
    environment, made = host_probes(probe, batch_size=2)
    actions = np.random.default_rng(0).integers(NUM_ACTIONS, size=(2, 60, 2))

    run = jax.jit(jax.vmap(functools.partial(scan, environment)))
    timesteps, state = run(jax.random.split(jax.random.key(0), 2), actions)
    timesteps = jax.tree.map(np.asarray, timesteps)
    assert state.batch_id.shape == (2,)
    assert len(set(np.asarray(state.batch_id).tolist())) == 2
    assert len(made) == 4
    probe_of = {member.numbers[0]: member for member in made}
    assert len(probe_of) == 4
    for row in range(2):
        for i in range(2):
            leaves = [leaf[row, :, i] for leaf in timesteps]
            check_member(probe, actions[row, :, i], *leaves)
            # A member is told the actions of its own row, in order, but for those of masked steps.
            after_truncation = leaves[0][:-1] == LAST
            assert after_truncation.any()
            told = actions[row, ~after_truncation, i].tolist()
            assert probe_of[int(leaves[3][0, 0])].actions == told

    environment.close(state)
    assert all(member.closed for member in made)


def test_steps_of_batches_in_turn_do_not_mix():
    """Two batches of one environment, stepped alternately."""
    probe = Probe((4,), (0.0,))
    environment, _ = host_probes(probe, batch_size=2)
    states, timesteps = zip(*(environment.reset(jax.random.key(seed)) for seed in range(2)), strict=True)
    states, numbers = list(states), [np.asarray(timestep.observation[:, 0]) for timestep in timesteps]
    for t in range(1, 4):
        for i in range(2):
            states[i], timestep = environment.step(states[i], jnp.full(2, i), jax.random.key(0))
            np.testing.assert_array_equal(timestep.observation, np.stack([numbers[i], [t, t]], -1))
            np.testing.assert_array_equal(timestep.reward, [10 * t + i] * 2)


def test_close_frees_one_batch():
    environment, made = host_probes(Probe((4,), (0.0,)), batch_size=3)
    state, _ = environment.reset(jax.random.key(0))
    other_state, _ = environment.reset(jax.random.key(1))
    closed, kept = made[:3], made[3:]
    references = [weakref.ref(member) for member in closed]
    environment.close(state)
    assert [member.closed for member in closed] == [True] * 3
    assert [member.closed for member in kept] == [False] * 3
    made.clear()
    del closed
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    _, timestep = environment.step(other_state, jnp.zeros(3, jnp.int32), jax.random.key(0))
    assert timestep.observation[:, 1].tolist() == [1] * 3


def test_seeds_come_from_the_key():
    environment, made = host_probes(Probe((4,), (0.0,)), batch_size=3)
    for seed in (0, 1, 0):
        environment.reset(jax.random.key(seed))
    seeds = [member.seed for member in made]
    assert seeds[:3] == seeds[6:]
    assert len(set(seeds[:6])) == 6


def test_without_seed_argument_the_factory_takes_none():
    calls = []

    def make(*args, **kwargs):
        calls.append((args, kwargs))
        return HostCatch(3, 3)

    environment = HostEnvironment(make, 2)
    environment.reset(jax.random.key(0))
    assert calls == [((), {})] * 3


def test_host_rewards_are_scalars():
    class TwoRewards(HostCatch):
        def reward_spec(self):
            return specs.Array((2,), np.float32)

    with pytest.raises(ValueError, match=r'scalar rewards, got rewards of shape \(2,\)'):
        HostEnvironment(TwoRewards, 2)


class Simulator(HostCatch):
    """Catch whose timesteps, or methods, are changed by `change` from the third step on."""

    change = staticmethod(lambda timestep: timestep)

    def __init__(self, seed=None):
        super().__init__(4, 3, seed=seed)
        self._steps = 0

    def step(self, action):
        self._steps += 1
        timestep = super().step(action)
        return timestep if self._steps < 3 else type(self).change(timestep)


def simulator(**members):
    return type('Simulator', (Simulator,), members)


def raises(error):
    def raise_error(*args, **kwargs):
        raise error

    return staticmethod(raise_error)


FAILURES = [
    ({'change': raises(RuntimeError('it\ncrashed'))}, r'number 0 of 2, step 3: RuntimeError: it crashed'),
    ({'change': raises(SystemExit(5))}, r'step 3: SystemExit: 5'),
    ({'change': staticmethod(lambda t: None)}, r'returned None instead of a dm_env.TimeStep'),
    ({'change': staticmethod(lambda t: t._replace(reward=None))}, r'reward is None instead of numbers'),
    ({'change': staticmethod(lambda t: t._replace(reward='many'))}, r"reward is 'many' instead of numbers"),
    ({'change': staticmethod(lambda t: t._replace(discount=2.0))}, r'discount is .*2.*, outside of \[0, 1\]'),
    (
        {'change': staticmethod(lambda t: t._replace(discount=float('nan')))},
        r'discount is .*nan.*, outside of \[0, 1\]',
    ),
    ({'change': staticmethod(lambda t: t._replace(step_type=7))}, r'step_type is 7'),
    (
        {'change': staticmethod(lambda t: t._replace(observation=np.zeros((5, 3))))},
        r'observation has shape \(5, 3\) instead of \(4, 3\)',
    ),
    (
        {'change': staticmethod(lambda t: t._replace(observation=np.full((4, 3), 1e300)))},
        r'1e\+300.*which is no float32',
    ),
    ({'change': staticmethod(lambda t: t._replace(observation={'a': 1}))}, r'observation is .* instead of numbers'),
]


@pytest.mark.parametrize(('members', 'message'), FAILURES)
def test_a_simulator_that_fails_is_named_with_its_number_and_step(members, message):
    environment = HostEnvironment(simulator(**members), 2, seed_argument='seed')
    state, _ = environment.reset(jax.random.key(0))
    step = jax.jit(environment.step)

    def run():
        with named_failures(environment):
            jax.block_until_ready(step(state, jnp.zeros(2, int), jax.random.key(0)))

    for _ in range(2):
        run()
    with pytest.raises(EnvironmentFailedError, match=f'^environment Simulator, .*{message}') as error:
        run()
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('error', [RuntimeError('no licence'), KeyError('x'), OSError(2, 'no rom'), SystemExit(1)])
@pytest.mark.parametrize('method', ['__init__', 'observation_spec'])
def test_an_environment_that_cannot_be_made_is_told(error, method):
    with pytest.raises(EnvironmentFailedError, match=f'^environment Simulator, .*: {type(error).__name__}'):
        HostEnvironment(simulator(**{method: raises(error)}), 2)


class Pair(NamedTuple):
    board: Any
    count: Any


def shows(spec, observation, **fields):
    """Catch that shows its board in a structure, and changes other fields of its timesteps."""

    class Shows(HostCatch):
        def observation_spec(self):
            return spec(super().observation_spec())

        def _observe(self):
            return observation(super()._observe())

        def step(self, action):
            timestep = super().step(action)
            changes = {name: change(timestep) for name, change in fields.items()}
            return timestep if timestep.first() else timestep._replace(**changes)

    return Shows


COUNT = specs.Array((), np.int32)


@pytest.mark.parametrize(
    'make',
    [
        shows(lambda s: {'board': s}, lambda x: collections.OrderedDict(board=x)),
        shows(lambda s: collections.OrderedDict(board=s), lambda x: {'board': x}),
        shows(lambda s: {'board': s}, lambda x: types.MappingProxyType({'board': x})),
        shows(lambda s: s, lambda x: x.tolist()),
        shows(lambda s: [s, COUNT], lambda x: (x, 3)),
        shows(lambda s: (s, COUNT), lambda x: [x, np.int64(3)]),
        shows(lambda s: Pair(s, COUNT), lambda x: Pair(x, 3)),
        shows(lambda s: Pair(s, COUNT), lambda x: {'count': 3, 'board': x}),
        shows(lambda s: {'inner': {'board': s}}, lambda x: {'inner': collections.OrderedDict(board=x.astype(float))}),
        shows(lambda s: s, lambda x: x, discount=lambda t: None),
        shows(lambda s: s, lambda x: x, reward=lambda t: np.array([t.reward])),
        shows(lambda s: s, lambda x: x, reward=lambda t: np.float64(t.reward), discount=lambda t: int(t.discount)),
    ],
)
def test_what_a_simulator_returns_is_made_to_fit_its_specs(make):
    plain = HostEnvironment(HostCatch, 3, seed_argument='seed')
    other = HostEnvironment(functools.partial(make), 3, seed_argument='seed')
    assert other._name == 'partial'
    states, steps = [], []
    for environment in (plain, other):
        state, timestep = environment.reset(jax.random.key(0))
        states.append(state)
        steps.append([timestep])
        for t in range(12):
            state, timestep = environment.step(state, jnp.full(3, t % 3), jax.random.key(0))
            steps[-1].append(timestep)
    for ours, theirs in zip(*steps, strict=True):
        np.testing.assert_array_equal(ours.step_type, theirs.step_type)
        np.testing.assert_array_equal(ours.reward, theirs.reward)
        np.testing.assert_array_equal(ours.discount, theirs.discount)
        np.testing.assert_array_equal(ours.observation, jax.tree.leaves(theirs.observation)[0])


def test_seeds_fit_into_a_signed_integer_of_32_bits():
    seeds = []

    class Seeded(HostCatch):
        def __init__(self, seed):
            seeds.append(seed)
            assert isinstance(seed, int)
            super().__init__(seed=seed)

    environment = HostEnvironment(Seeded, 50, seed_argument='seed')
    for key in range(3):
        environment.reset(jax.random.key(key))
    environment.as_dm_env(2**32 - 1)
    assert len(set(seeds)) > 150
    assert all(0 <= seed < 2**31 for seed in seeds)
