import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jumanji.environments import Snake

from components.environments.adapters.jumanji import JumanjiEnvironment
from components.environments.as_dm_env import DmEnvironment
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.environments.delayed_chain import DelayedChain
from components.environments.grid_worlds import GridWorld
from components.environments.random_walk import RandomWalk
from components.environments.task_distribution import TaskDistribution

WALK, CHAIN, GRID = RandomWalk(3, switch_every=4), DelayedChain(2, 4), GridWorld(2, 2, ((1, 1, 0),), max_steps=3)
MEMBERS = (WALK, CHAIN, GRID)
WORLDS = TaskDistribution(MEMBERS)
SIZES, NUM_ACTIONS = (3, 8, 8), (2, 2, 5)
BATCH_SIZE, NUM_STEPS, NUM_LIFETIMES = 2, 30, 12


@pytest.fixture(scope='module')
def lifetimes():
    """Of a batch each: states and timesteps at the start, and after each step. Leaves `[L, T, B, ...]`."""
    actions = np.random.default_rng(0).integers(5, size=(NUM_STEPS, BATCH_SIZE))
    keys = jax.random.split(jax.random.key(1), NUM_STEPS)
    batch = Batch(WORLDS, BATCH_SIZE)

    def run(key):
        def step(state, inputs):
            result = batch.step(state, *inputs)
            return result[0], result

        start = batch.reset(key)
        return start, jax.lax.scan(step, start[0], (actions, keys))[1]

    run = jax.jit(jax.vmap(run))
    return actions, keys, jax.tree.map(np.asarray, run(jax.random.split(jax.random.key(0), NUM_LIFETIMES)))


def test_the_spec_is_large_enough_for_all():
    assert WORLDS.spec().observations.shape == (8,)
    assert WORLDS.spec().observations.dtype == np.float32
    assert WORLDS.spec().actions.num_values == 5


def test_a_lifetime_lives_in_one_environment(lifetimes):
    _, _, ((start, first), (states, timesteps)) = lifetimes
    members = start.environment.member
    assert set(members.flat) == {0, 1, 2}
    np.testing.assert_array_equal(members, members[:, :1].repeat(BATCH_SIZE, 1))
    np.testing.assert_array_equal(states.environment.member, members[:, None].repeat(NUM_STEPS, 1))
    assert (first.observation.shape, timesteps.observation.shape) == ((12, 2, 8), (12, 30, 2, 8))
    assert (timesteps.observation.dtype, timesteps.reward.dtype, timesteps.discount.dtype) == (np.float32,) * 3


@pytest.mark.parametrize('member', range(3))
def test_it_is_what_the_drawn_environment_would_be_alone(lifetimes, member):
    """The environment's own batch, started from the same state and given the same keys and actions, within its
    number."""
    actions, keys, ((start, first), (states, timesteps)) = lifetimes
    alone = Batch(MEMBERS[member], BATCH_SIZE)
    step = jax.jit(lambda state, inputs: alone.step(state, *inputs))
    lifetime = int(np.flatnonzero(start.environment.member[:, 0] == member)[0])
    own = jax.tree.map(lambda leaf: jnp.asarray(leaf[lifetime]), start.environment.states[member])
    state = start._replace(environment=own, truncated=jnp.zeros(BATCH_SIZE, bool))
    assert not first.observation[lifetime, :, SIZES[member] :].any()
    for t in range(NUM_STEPS):
        state, timestep = step(state, (jnp.asarray(actions[t] % NUM_ACTIONS[member]), keys[t]))
        ours = jax.tree.map(lambda leaf, t=t: leaf[lifetime, t], timesteps)
        np.testing.assert_array_equal(ours.observation[:, : SIZES[member]], timestep.observation)
        assert not ours.observation[:, SIZES[member] :].any()
        jax.tree.map(np.testing.assert_array_equal, tuple(ours)[:3], tuple(timestep)[:3])
        theirs = jax.tree.map(lambda leaf, t=t: leaf[lifetime, t], states.environment.states[member])
        jax.tree.map(np.testing.assert_array_equal, theirs, state.environment)


def test_the_drawn_environments_lifetime_outlasts_episodes(lifetimes):
    _, _, ((start, _), (states, timesteps)) = lifetimes
    drawn = start.environment.member[:, 0]
    ages = states.environment.states[0].num_env_steps[drawn == 0]
    np.testing.assert_array_equal(ages, np.broadcast_to(np.arange(1, NUM_STEPS + 1)[:, None], ages.shape))
    assert not states.environment.states[0].num_env_steps[drawn != 0].any(), 'the others stand still'
    for leaf in ('length', 'good_action'):
        values = getattr(states.environment.states[1], leaf)
        np.testing.assert_array_equal(values, np.broadcast_to(values[:, :1, :1], values.shape))
    places = states.environment.states[2].places
    np.testing.assert_array_equal(places, np.broadcast_to(places[:, :1, :1], places.shape))
    for i in range(3):
        assert (timesteps.step_type[drawn == i] != 1).sum() > 10, 'episodes ended'


def test_environments_are_drawn_uniformly_and_twice_as_often_if_listed_twice():
    num_draws = 6_000
    worlds = TaskDistribution((RandomWalk(1), RandomWalk(2), RandomWalk(2)))
    state, timestep = jax.jit(jax.vmap(worlds.reset))(jax.random.split(jax.random.key(0), num_draws))
    counts = np.bincount(state.member, minlength=3)
    assert (abs(counts - num_draws / 3) < 5 * np.sqrt(num_draws * 2 / 9)).all()
    starts = np.asarray(timestep.observation).argmax(-1)
    np.testing.assert_array_equal(starts, np.asarray(state.member) > 0)


def test_environments_without_lifetimes_draw_every_episode_anew():
    environment = DmEnvironment(TaskDistribution((Catch(3, 9), Catch(4, 9))), seed=2)
    shape = (4, 9)
    boards = [environment.reset().observation for _ in range(8)]
    assert all(board.shape == shape for board in boards)
    assert len({int(board[0].argmax()) for board in boards}) > 3
    assert len({int(board.any(1).nonzero()[0][-1]) for board in boards}) == 1, 'the paddle stays in its row'


@pytest.mark.parametrize(
    ('environments', 'message'),
    [
        ((), r'TaskDistribution.environments must be at least one, got none'),
        ((WALK, Catch()), r'as many axes and the same dtype, got float32 \[3\], float32 \[10, 5\]'),
        ((JumanjiEnvironment(Snake(4, 4)),), r'TaskDistribution.environments must each observe one array'),
    ],
)
def test_environments_that_do_not_go_together_are_refused(environments, message):
    with pytest.raises(ValueError, match=message):
        TaskDistribution(environments)
