import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from components.environments.as_dm_env import DmEnvironment
from components.environments.batch import Batch
from components.environments.grid_worlds import WORLDS, GridWorld, GridWorldState, published_world

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
UP, DOWN, LEFT, RIGHT, STAY = range(5)
MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)]
KEY = jax.random.key(0)


def at(cell, present=(), places=(), num_steps=0):
    places = np.array(places, np.int32)
    return GridWorldState(
        jnp.int32(cell), jnp.array(present, bool), jnp.int32(num_steps), jnp.int32(cell), jnp.asarray(places)
    )


def play(world, state, actions):
    """States and (step type, reward, discount, index of the one-hot) after each action."""
    step, states, timesteps = jax.jit(world.step), [], []
    for t, action in enumerate(actions):
        state, timestep = step(state, jnp.int32(action), jax.random.key(t))
        states.append(state)
        (index,) = np.flatnonzero(timestep.observation)
        timesteps.append((int(timestep.step_type), float(timestep.reward), float(timestep.discount), int(index)))
    return states, timesteps


def test_moves_stop_at_the_edges():
    step = functools.partial(GridWorld(2, 3, ()).step, key=KEY)
    over_cells = jax.vmap(lambda cell, action: step(at(0)._replace(cell=cell), action)[0].cell, (0, None))
    cells = jax.vmap(over_cells, (None, 0))(jnp.arange(6), jnp.arange(5))
    assert dict(enumerate(cells.tolist())) == {
        UP: [0, 1, 2, 0, 1, 2],
        DOWN: [3, 4, 5, 3, 4, 5],
        LEFT: [0, 0, 1, 3, 3, 4],
        RIGHT: [1, 2, 2, 4, 5, 5],
        STAY: [0, 1, 2, 3, 4, 5],
    }


def test_an_episode_by_hand():
    """Cells 0 1 2 in a row: the first object, in cell 1, comes back at once; the second, in cell 2, ends the
    episode."""
    world = GridWorld(1, 3, ((0.5, 0, 1), (-2, 1, 0)), max_steps=10)
    states, timesteps = play(world, at(0, (True, True), (1, 2)), [STAY, RIGHT, STAY, STAY, LEFT, RIGHT, RIGHT])
    assert timesteps == [
        (MID, 0, 1, 0 + 3 * 3),
        (MID, 0.5, 1, 1 + 3 * 2),  # Collected, and gone for this step.
        (MID, 0, 1, 1 + 3 * 3),  # It comes back too late for this step,
        (MID, 0.5, 1, 1 + 3 * 2),  # in time for the next.
        (MID, 0, 1, 0 + 3 * 3),
        (MID, 0.5, 1, 1 + 3 * 2),
        (LAST, -2, 0, 2 + 3 * 1),
    ]
    assert states[-1].num_steps == 7
    assert states[-1].present.tolist() == [True, False]
    again, timestep = world.restart(states[-1], KEY)
    assert (int(again.cell), again.present.tolist(), int(again.num_steps)) == (0, [True, True], 0)
    assert again.places.tolist() == [1, 2]
    assert timestep.first()
    assert np.flatnonzero(timestep.observation).tolist() == [9]


def test_an_object_that_is_not_there_is_not_collected_and_may_stay_away():
    world = GridWorld(1, 2, ((1, 1, 0),))
    _, timesteps = play(world, at(0, (False,), (1,)), [RIGHT, STAY, LEFT])
    assert timesteps == [(MID, 0, 1, 1), (MID, 0, 1, 1), (MID, 0, 1, 0)]


def test_time_truncates_and_termination_comes_before_it():
    world = GridWorld(1, 2, ((1, 1, 0),), max_steps=2)
    start = at(0, (True,), (1,))
    assert [timestep[:3] for timestep in play(world, start, [STAY, STAY])[1]] == [(MID, 0, 1), (LAST, 0, 1)]
    assert [timestep[:3] for timestep in play(world, start, [STAY, RIGHT])[1]] == [(MID, 0, 1), (LAST, 1, 0)]


def test_chances_are_those_of_each_object_and_independent():
    """The first object is collected; whether that terminates, and which of the others come back, are four tosses."""
    world = GridWorld(1, 5, ((1, 0.3, 1), (1, 1, 0.2), (1, 1, 0.6), (1, 1, 0.5)))
    state = at(0, (True, False, False, True), (1, 2, 3, 4))
    num_draws = 20_000
    step = jax.jit(jax.vmap(functools.partial(world.step, state, jnp.int32(RIGHT))))
    state, timestep = step(jax.random.split(KEY, num_draws))
    terminated = np.asarray(timestep.discount) == 0
    np.testing.assert_array_equal(terminated, np.asarray(timestep.step_type) == LAST)
    present = np.asarray(state.present)
    assert not present[:, 0].any()
    assert present[:, 3].all()
    tosses = np.stack([terminated, present[:, 1], present[:, 2]], -1)
    for outcome in np.ndindex(2, 2, 2):
        probability = np.prod([p if side else 1 - p for p, side in zip((0.3, 0.2, 0.6), outcome, strict=True)])
        count = (tosses == outcome).all(-1).sum()
        assert abs(count - num_draws * probability) < 5 * np.sqrt(num_draws * probability * (1 - probability)), outcome


def test_start_and_places_are_any_cells_but_the_same():
    num_draws = 12_000
    state, _ = jax.jit(jax.vmap(GridWorld(2, 2, ((1, 0, 0),)).reset))(jax.random.split(KEY, num_draws))
    pairs = np.asarray(state.start) * 4 + np.asarray(state.places)[:, 0]
    counts = np.bincount(pairs, minlength=16).reshape(4, 4)
    assert (np.diag(counts) == 0).all()
    assert (abs(counts[~np.eye(4, dtype=bool)] - 1000) < 5 * np.sqrt(1000 * 11 / 12)).all()
    state, _ = GridWorld(2, 2, ((1, 0, 0),) * 3).reset(KEY)
    assert sorted([int(state.start), *state.places.tolist()]) == [0, 1, 2, 3]


def test_a_seed_holds_a_world_fixed():
    def drawn(seed, key):
        state, _ = GridWorld(seed=seed).reset(jax.random.key(key))
        return int(state.start), *state.places.tolist()

    assert drawn(3, 0) == drawn(3, 1) != drawn(4, 0)
    assert drawn(None, 0) != drawn(None, 1)


def reference(world, start, places, actions):
    """A world whose chances are all 0 or 1, in plain Python, as a batch's member: rows like those of `member_rows`."""
    cell, present, num_steps, over, rows = start, [True] * len(places), 0, False, []
    for action in actions:
        if over:
            cell, present, num_steps, over = start, [True] * len(places), 0, False
            row = FIRST, 0.0, 0.0
        else:
            i, j = divmod(cell, world.width)
            i, j = (
                min(max(i + MOVES[action][0], 0), world.height - 1),
                min(max(j + MOVES[action][1], 0), world.width - 1),
            )
            cell, num_steps, reward, terminated, before = i * world.width + j, num_steps + 1, 0.0, False, list(present)
            for n, (place, (value, terminates, returns)) in enumerate(zip(places, world.objects, strict=True)):
                if before[n] and place == cell:
                    reward, terminated, present[n] = value, bool(terminates), False
                elif returns:
                    present[n] = True
            if terminated:
                cell, present, num_steps = start, [True] * len(places), 0
                row = FIRST, reward, 0.0
            else:
                over = num_steps == world.max_steps
                row = (LAST if over else MID), reward, 1.0
        subset = sum(2**n for n, there in enumerate(present) if there)
        rows.append((*row, cell + world.height * world.width * subset))
    return rows


def test_a_batch_is_many_copies_of_one_world_over_episodes_of_both_ends():
    world, num_steps, batch_size = GridWorld(2, 3, ((1, 0, 1), (2, 0, 0), (-3, 1, 1)), max_steps=7), 120, 3
    batch = Batch(world, batch_size)
    actions = np.random.default_rng(0).integers(5, size=(num_steps, batch_size))
    keys = jax.random.split(jax.random.key(1), num_steps)

    @jax.jit
    def run(key):
        state, timestep = batch.reset(key)
        return state, timestep, jax.lax.scan(lambda s, inputs: batch.step(s, *inputs), state, (actions, keys))

    state, first, (last_state, timesteps) = run(KEY)
    start, places = int(state.environment.start[0]), state.environment.places[0].tolist()
    for one in (state.environment, last_state.environment):
        assert one.start.tolist() == [start] * batch_size
        assert one.places.tolist() == [places] * batch_size
    spec = world.spec()
    assert timesteps.observation.shape == (num_steps, batch_size, *spec.observations.shape) == (120, 3, 48)
    assert (timesteps.observation.dtype, timesteps.reward.dtype, timesteps.discount.dtype) == (np.float32,) * 3
    assert first.first().all()
    assert np.argmax(first.observation, -1).tolist() == [start + 6 * 7] * batch_size
    np.testing.assert_array_equal(timesteps.observation.sum(-1), 1)
    indices = np.argmax(timesteps.observation, -1)
    rewards = set()
    for i in range(batch_size):
        leaves = (timesteps.step_type, timesteps.reward, timesteps.discount, indices)
        rows = list(zip(*(np.asarray(leaf)[:, i].tolist() for leaf in leaves), strict=True))
        assert rows == reference(world, start, places, actions[:, i])
        endings = {row[:3:2] for row in rows}
        assert {(FIRST, 0), (LAST, 1)} <= endings
        rewards |= {row[1] for row in rows}
    assert rewards == {0, 1, 2, -3}


def test_a_dm_environment_stays_in_its_world():
    environment = DmEnvironment(GridWorld(3, 3, ((1, 0, 0),), max_steps=2))
    worlds = set()
    for _ in range(4):
        start = int(np.argmax(environment.reset().observation))
        worlds.add((start, int(environment.state.places[0])))
        assert not environment.step(STAY).last()
        assert environment.step(STAY).last()
    assert len(worlds) == 1


def test_the_published_worlds():
    sizes = {name: world.spec().observations.shape[0] for name, world in WORLDS.items()}
    assert sizes == {'dense': 1936, 'sparse': 676, 'long': 1936, 'longer': 8064, 'long_dense': 1936}
    assert [world.max_steps for world in WORLDS.values()] == [500, 50, 1000, 2000, 2000]
    assert [sum(item[0] for item in world.objects) for world in WORLDS.values()] == [0, 0, 0, -3, 4]
    assert GridWorld() == WORLDS['dense']
    assert published_world('sparse', seed=2) == GridWorld(13, 13, ((1, 1, 0), (-1, 1, 0)), 50, 2)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'height': 0}, r'GridWorld.height must be at least 1, got 0'),
        ({'width': -1}, r'GridWorld.width must be at least 1, got -1'),
        ({'max_steps': 0}, r'GridWorld.max_steps must be at least 1, got 0'),
        ({'height': 2, 'width': 2}, r'GridWorld.objects must be fewer than the cells, got 4 for 2 x 2'),
        ({'objects': ((1, 0),)}, r'GridWorld.objects .* a tuple of 3, got \(\(1, 0\),\)'),
        ({'objects': ((1, 0, 1.5),)}, r'GridWorld.objects .* in \[0, 1\], got \(\(1, 0, 1.5\),\)'),
        ({'objects': ((1, -0.1, 1),)}, r'GridWorld.objects .* in \[0, 1\], got \(\(1, -0.1, 1\),\)'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridWorld(**arguments)


def test_a_world_that_is_not_published_is_refused():
    with pytest.raises(ValueError, match=r'published_world.name must be one of dense, sparse, .* got .denser.'):
        published_world('denser')
