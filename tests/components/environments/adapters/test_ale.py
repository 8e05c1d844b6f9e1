"""Atari games, stepped by ale-py. Few and small emulators: each takes a tenth of a second to make and to seed."""

import dataclasses
import functools
import importlib.metadata
import subprocess
import sys

import ale_py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from components.environments.adapters import ale
from components.environments.adapters.ale import Atari
from components.environments.atari_scores import SCORES
from components.environments.base import ReferenceScores, animator_of
from components.types import CompositionError, FieldError
from tests.helpers.environments_for_tests import FIRST, LAST, MID, scan

SMALL = {'height': 21, 'width': 21}


@pytest.fixture(scope='module')
def atari():
    """Two emulators of a game with lives, of which episodes of random play end, and others are truncated."""
    return Atari('breakout', 2, max_frames=800, **SMALL)


@pytest.fixture(scope='module')
def actions(atari):
    """Of 400 steps, `[T, B]`."""
    return np.random.default_rng(0).integers(atari.spec().actions.num_values, size=(400, 2))


@pytest.fixture(scope='module')
def played(atari, actions):
    """Timesteps of an episode's start and 400 steps, leaves `[T+1, B]`, by one compiled program."""
    timesteps, state = jax.jit(functools.partial(scan, atari))(jax.random.key(0), actions)
    assert (np.asarray(state.lives) <= 5).all()
    atari.close(state)
    return jax.device_get(timesteps)


def by_hand(atari, key, actions):
    """The same from ale-py's own class: timesteps by `base`'s rules, and the lives, as lists over time."""
    emulators = ale_py.AtariVectorEnv(
        atari.game,
        atari.batch_size,
        repeat_action_probability=0.25,
        max_num_frames_per_episode=800,
        img_height=21,
        img_width=21,
        reward_clipping=False,
    )
    seed = int(jax.random.randint(jax.random.split(key)[0], (), 0, 2**31 - 1))
    seeds = np.random.SeedSequence(seed).generate_state(atari.batch_size) % 2**31
    frames, info = emulators.reset(seed=seeds.astype(np.int32))
    num = atari.batch_size
    over, lives = np.zeros(num, bool), [info['lives'].copy()]
    steps = [([FIRST] * num, [0] * num, [1] * num, np.moveaxis(frames, 1, -1).copy())]
    for action in actions:
        frames, reward, terminated, truncated, info = emulators.step(action)
        kinds = [FIRST if o else LAST if a or b else MID for o, a, b in zip(over, terminated, truncated, strict=True)]
        discount = [0 if o or a else 1 for o, a in zip(over, terminated, strict=True)]
        steps.append((kinds, reward.copy(), discount, np.moveaxis(frames, 1, -1).copy()))
        over = terminated | truncated
        lives.append(info['lives'].copy())
    return tuple(map(np.array, zip(*steps, strict=True))), np.array(lives)


def test_timesteps_are_those_of_ale_py_stepped_by_hand(atari, actions, played):
    expected, lives = by_hand(atari, jax.random.key(0), actions)
    for leaf, theirs in zip(played, expected, strict=True):
        np.testing.assert_array_equal(leaf, theirs)
    kinds, reward, discount, observation = played
    assert ((kinds == LAST) & (discount == 0)).any()  # Terminated.
    assert ((kinds == LAST) & (discount == 1)).any()  # Truncated.
    assert ((lives[1:] < lives[:-1]) & (kinds[1:] == MID)).any()
    assert reward.any()
    assert observation.dtype == np.uint8
    assert observation.max() > 100


def test_lost_lives_have_a_discount_of_zero_if_asked_for_and_the_episode_goes_on(atari, actions, played):
    cautious = dataclasses.replace(atari, discount_lost_lives=True)
    timesteps, _ = jax.device_get(jax.jit(functools.partial(scan, cautious))(jax.random.key(0), actions))
    _, lives = by_hand(atari, jax.random.key(0), actions)
    for name in ('step_type', 'reward', 'observation'):
        np.testing.assert_array_equal(getattr(timesteps, name), getattr(played, name))
    lost = np.concatenate([[[False] * 2], lives[1:] < lives[:-1]]) & (played.step_type != FIRST)
    np.testing.assert_array_equal(timesteps.discount, np.where(lost, 0, played.discount))
    assert (timesteps.discount != played.discount).sum() > 3


def single_steps(environment, key, actions):
    """As `scan`, from Python."""
    state, first = environment.reset(jax.random.split(key)[0])
    timesteps, step = [first], jax.jit(environment.step)
    for action in actions:
        state, timestep = step(state, jnp.asarray(action), key)
        timesteps.append(timestep)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *timesteps), state


def counted_loop(environment, key, actions):
    """As `scan`, as a loop whose length is an argument."""
    state, first = environment.reset(jax.random.split(key)[0])
    timesteps = jax.tree.map(lambda x: jnp.zeros((len(actions) + 1, *x.shape), x.dtype).at[0].set(x), first)

    @jax.jit
    def loop(num_steps, carry):
        def body(t, carry):
            state, timesteps = carry
            state, timestep = environment.step(state, jnp.asarray(actions)[t], key)
            return state, jax.tree.map(lambda xs, x: xs.at[t + 1].set(x), timesteps, timestep)

        return jax.lax.fori_loop(0, num_steps, body, carry)

    state, timesteps = loop(len(actions), (state, timesteps))
    return timesteps, state


def assert_same(timesteps, others):
    jax.tree.map(np.testing.assert_array_equal, timesteps, others)


@pytest.mark.parametrize('play', [single_steps, counted_loop, scan])
def test_every_way_to_step_gives_the_same_and_repeats_with_its_key(atari, actions, played, play):
    timesteps, state = play(atari, jax.random.key(0), actions[:60])
    assert_same(timesteps, jax.tree.map(lambda x: x[:61], played))
    atari.close(state)
    other, state = play(atari, jax.random.key(1), actions[:60])
    assert (np.asarray(other.observation) != played.observation[:61]).any()
    atari.close(state)


def test_the_number_of_threads_changes_nothing(atari, actions, played):
    alone = dataclasses.replace(atari, num_threads=1)
    timesteps, _ = jax.jit(functools.partial(scan, alone))(jax.random.key(0), actions[:60])
    assert_same(timesteps, jax.tree.map(lambda x: x[:61], played))


@pytest.mark.parametrize('shape', [(2,), (1, 2)])
def test_rows_of_a_vmap_are_those_of_the_same_keys_alone(atari, actions, shape):
    keys = jax.random.split(jax.random.key(3), shape)
    rows = np.stack([actions[:30], actions[30:60]]).reshape(*shape, 30, 2)
    run = functools.partial(scan, atari)
    for _ in shape:
        run = jax.vmap(run)
    timesteps, state = jax.jit(run)(keys, rows)
    assert state.handle.shape == (*shape, 8)
    atari.close(state)
    alone = jax.jit(functools.partial(scan, atari))
    for row in np.ndindex(*shape):
        expected, state = alone(keys[row], rows[row])
        assert_same(jax.tree.map(lambda x, row=row: x[row], timesteps), expected)
        atari.close(state)
    assert len(atari._pool) <= 4


def test_copies_of_one_state_are_not_stepped(atari):
    state, _ = atari.reset(jax.random.key(0))
    with pytest.raises(CompositionError, match='each row has emulators of its own'):
        jax.vmap(atari.step, (None, 0, None))(state, jnp.zeros((3, 2), int), jax.random.key(0))
    atari.close(state)


def num_frames(environment, handle):
    """Frames that each emulator has shown, which only ale-py itself tells."""
    frames = environment._pool._in_use[np.asarray(handle).tobytes()].ale
    frames.send(np.zeros(environment.batch_size, np.int32), np.ones(environment.batch_size, np.float32))
    return frames.recv()[-1]['frame_number'] - environment.frame_skip


def test_a_step_whose_result_nobody_uses_is_taken(atari):
    state, _ = atari.reset(jax.random.key(0))
    before = num_frames(atari, state.handle)

    @jax.jit
    def twice(state):
        state, _ = atari.step(state, jnp.zeros(2, int), jax.random.key(0))
        return atari.step(state, jnp.zeros(2, int), jax.random.key(0))[0].handle

    handle = twice(state)
    np.testing.assert_array_equal(handle, state.handle)
    np.testing.assert_array_equal(num_frames(atari, handle) - before, [(2 + 1) * 4] * 2)
    atari.close(state)


def test_no_reverse_pass_can_repeat_a_step(atari):
    state, _ = atari.reset(jax.random.key(0))

    def loss(weight, state):
        state, timestep = atari.step(state, jnp.zeros(2, int), jax.random.key(0))
        return weight * (1 + timestep.reward.sum()), state

    before = num_frames(atari, state.handle)
    assert jax.jit(jax.grad(loss, has_aux=True))(2.0, state)[0] == 1
    np.testing.assert_array_equal(num_frames(atari, state.handle) - before, [(1 + 1) * 4] * 2)
    with pytest.raises(NotImplementedError, match='Effects not supported'):
        jax.jit(jax.grad(jax.checkpoint(loss), has_aux=True))(2.0, state)
    atari.close(state)


OUT_OF_RANGE = """
import jax
from components.acting.action_distributions import Categorical, select_action
from components.environments.adapters import ale
from components.environments.adapters.ale import Atari

atari = Atari('breakout', 2, height=21, width=21)
state, _ = atari.reset(jax.random.key(0))
for action in (-1, 4, 2**31 - 1):
    state, timestep = jax.jit(atari.step)(state, jax.numpy.full(2, action), jax.random.key(0))
    print(timestep.step_type.tolist())
nothing = jax.numpy.full((2, 4), jax.numpy.nan)
actions = select_action(Categorical(nothing), jax.random.key(0))
state, timestep = jax.jit(atari.step)(state, actions, jax.random.key(0))
print(timestep.step_type.tolist())
environment = atari.as_dm_env(0)
environment.reset()
print(int(environment.step(99).step_type))
"""


def test_actions_out_of_range_or_of_a_policy_of_nans_do_not_hang():
    done = subprocess.run([sys.executable, '-c', OUT_OF_RANGE], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ['[1,', '1]'] * 4 + ['1']


def test_actions_out_of_range_are_the_nearest_there_are(atari):
    rows = {name: np.full((3, 2), action) for name, action in {'high': 99, 'last': 3, 'low': -5, 'zero': 0}.items()}
    found = {}
    for name, row in rows.items():
        found[name], state = scan(atari, jax.random.key(2), row)
        atari.close(state)
    assert_same(found['high'], found['last'])
    assert_same(found['low'], found['zero'])


def test_emulators_that_are_closed_are_used_again(atari, actions):
    small = dataclasses.replace(atari, batch_size=1)
    states = [small.reset(jax.random.key(i))[0] for i in range(2)]
    assert len(small._pool) == 2
    for state in states:
        small.close(jax.device_get(state))
    state, again = small.reset(jax.random.key(0))
    assert len(small._pool) == 2
    small.close(state)
    with pytest.raises(KeyError):
        small.close(state)
    other, timestep = small.reset(jax.random.key(0))
    assert_same(timestep, again)
    small.close(other)


@pytest.mark.parametrize('full', [False, True])
def test_specs_are_those_of_what_is_returned(atari, full):
    environment = dataclasses.replace(atari, full_action_set=full, stack=3, height=20, width=24)
    spec = environment.spec()
    assert spec.actions.num_values == (18 if full else 4)
    assert spec.observations.shape == (20, 24, 3)
    for timestep in jax.eval_shape(functools.partial(scan, environment), jax.random.key(0), jnp.zeros((1, 2), int))[
        0:1
    ]:
        assert timestep.observation.shape == (2, 2, 20, 24, 3)
        assert timestep.observation.dtype == spec.observations.dtype
        assert timestep.reward.dtype == spec.rewards.dtype


def test_double_precision_changes_no_game(atari, actions, played):
    with jax.enable_x64(True):
        timesteps, state = jax.jit(functools.partial(scan, atari))(jax.random.key(0), actions[:20])
        assert timesteps.reward.dtype == np.float64
        assert state.lives.dtype == np.int32
    np.testing.assert_array_equal(timesteps.step_type, played.step_type[:21])
    atari.close(state)


def test_one_copy_by_the_rules_of_dm_env(atari, actions):
    environment = atari.as_dm_env(seed=5)
    timesteps = [environment.reset()]
    timesteps += [environment.step(action) for action in actions[:, 0]]
    assert timesteps[0].reward is None
    environment.observation_spec().validate(timesteps[0].observation)
    ended = [i for i, timestep in enumerate(timesteps) if timestep.last()]
    assert ended
    assert all(timesteps[i + 1].first() for i in ended)
    assert [i for i, timestep in enumerate(timesteps) if timestep.first()] == [0, *(i + 1 for i in ended)]
    for timestep in timesteps[1:]:
        environment.observation_spec().validate(timestep.observation)
        if not timestep.first():
            environment.reward_spec().validate(timestep.reward)
            environment.discount_spec().validate(timestep.discount)
    again = atari.as_dm_env(seed=5)
    assert_same(timesteps[0].observation, again.reset().observation)
    assert_same(timesteps[1].observation, again.step(actions[0, 0]).observation)
    starts = [timesteps[i].observation for i in (0, ended[0] + 1)]
    assert (starts[0] != starts[1]).any()


def test_an_episode_is_drawn_in_colours(tmp_path, atari, actions):
    environment, plain = atari.as_dm_env(seed=5), atari.as_dm_env(seed=5)
    animate = animator_of(environment)
    plain.reset()
    environment.reset()
    states = [environment.state]
    for action in actions[:30, 0]:
        assert_same(environment.step(action).observation, plain.step(action).observation)
        states.append(environment.state)
    assert plain.state is None
    assert states[-1].shape == (210, 160, 3)
    assert (states[-1][..., 0] != states[-1][..., 2]).any()
    # The two emulators show the same, but for the size.
    gray = np.asarray(Image.fromarray(states[-1]).convert('L').resize((21, 21), Image.Resampling.BOX), float)
    assert np.corrcoef(gray.ravel(), plain.step(0).observation[..., -1].astype(float).ravel())[0, 1] > 0.9
    animate(states, tmp_path / 'episode.gif')
    with Image.open(tmp_path / 'episode.gif') as image:
        assert image.size == (160, 210)
        assert 2 <= image.n_frames <= 31


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'game': 'Breakout'}, r"got 'Breakout'; did you mean breakout"),
        ({'game': 'MsPacman'}, r'did you mean .*ms_pacman'),
        ({'game': 'warlords'}, r"must be a game of ale-py, got 'warlords'"),
        ({'game': ''}, r'Atari.game must be a string that is not empty'),
        ({'batch_size': 0}, r'Atari.batch_size must be at least 1, got 0'),
        ({'stack': 0}, r'Atari.stack must be at least 1, got 0'),
        ({'frame_skip': 0}, r'Atari.frame_skip must be at least 1, got 0'),
        ({'sticky': 2.0}, r'Atari.sticky must be in \[0, 1\], got 2'),
        ({'num_threads': 10**6}, r'Atari.num_threads must be at most \d+, which is what this machine has'),
    ],
)
def test_a_field_that_ale_py_would_not_take_is_one_line(arguments, message):
    with pytest.raises(FieldError, match=message) as error:
        Atari(**{'game': 'pong', 'batch_size': 1, **arguments})
    assert '\n' not in str(error.value)


def test_an_old_or_missing_ale_py_is_one_line(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, 'version', lambda name: '0.12.0')
        with pytest.raises(
            CompositionError, match=r'ale-py 0\.12\.1 or newer, and 0\.12\.0 is installed: python -m pip'
        ):
            Atari('pong', 1)
    monkeypatch.setitem(sys.modules, 'ale_py', None)
    with pytest.raises(CompositionError, match=r'^Atari needs ale-py 0\.12\.1 or newer: python -m pip install'):
        Atari('pong', 1)


@pytest.mark.parametrize(('game', 'num_actions'), [('pong', 6), ('montezuma_revenge', 18), ('kung_fu_master', 14)])
def test_action_sets_of_games(game, num_actions):
    assert Atari(game, 1, **SMALL).spec().actions.num_values == num_actions


def test_rewards_are_raw_scores():
    environment = Atari('ms_pacman', 1, **SMALL)
    actions = np.random.default_rng(0).integers(9, size=(150, 1))
    timesteps, _ = jax.jit(functools.partial(scan, environment))(jax.random.key(0), actions)
    assert set(np.asarray(timesteps.reward).ravel().tolist()) >= {0.0, 10.0}


@pytest.mark.slow
@pytest.mark.parametrize('game', sorted(set(ale_py.roms.get_all_rom_ids()) - ale.NOT_PLAYED))
def test_every_game_has_a_spec(game):
    assert 1 <= Atari(game, 1, **SMALL).spec().actions.num_values <= 18


def test_the_57_games_have_reference_scores(atari):
    assert atari.reference_scores == SCORES['breakout'] == ReferenceScores(1.7, 30.5)
    assert Atari('tetris', 1, **SMALL).reference_scores is None
