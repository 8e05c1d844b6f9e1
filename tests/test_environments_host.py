"""Environments on the host."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import specs

from components.environments.catch import HostCatch
from components.environments.host import HostEnvironment
from tests.environments_for_tests import LAST, NUM_ACTIONS, Probe, check_member, host_probes, scan


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
