import functools
from collections import deque

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.meta_rl.i_maze import GoalLatencies, goal_latencies
from components.environments.as_dm_env import DmEnvironment
from components.environments.batch import Batch
from components.environments.i_maze.pixels import IMaze, IMazeState, cast_rays
from components.environments.i_maze.symbolic import SymbolicIMaze, SymbolicIMazeState

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
KEY = jax.random.key(0)
UP, DOWN, LEFT, RIGHT = range(4)
MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1)]
FORWARD, BACK, STEP_LEFT, STEP_RIGHT, TURN_LEFT, TURN_RIGHT, FORWARD_LEFT, FORWARD_RIGHT = range(8)

START = (5, 5)
ALCOVES = [(1, 1), (1, 9), (9, 1), (9, 9)]
ENDS = [(2, 1), (2, 9), (8, 1), (8, 9)]  # In front of the alcoves.
CORRIDORS = {(2, x) for x in range(1, 10)} | {(8, x) for x in range(1, 10)} | {(y, 5) for y in range(3, 8)}
CELLS = CORRIDORS | set(ALCOVES)
EAST, SOUTH, WEST = np.pi / 2, np.pi, 3 * np.pi / 2


def path(start, end):
    """Moves of a shortest path, by breadth-first search."""
    paths, queue = {start: []}, deque([start])
    while end not in paths:
        cell = queue.popleft()
        for move, (y, x) in enumerate(MOVES):
            beside = cell[0] + y, cell[1] + x
            if beside in CELLS and beside not in paths:
                paths[beside] = [*paths[cell], move]
                queue.append(beside)
    return paths[end]


def test_the_maze_is_the_one_that_distances_are_known_of():
    assert len(CELLS) == 27
    assert [len(path(START, alcove)) for alcove in ALCOVES] == [8] * 4


def in_cell(cell=START, goal=0, apples=(True,) * 4, num_steps=0):
    zero = jnp.int32(0)
    return SymbolicIMazeState(
        jnp.int32(cell), jnp.int32(goal), jnp.array(apples), jnp.int32(num_steps), zero, zero, jnp.zeros((), bool)
    )


@functools.cache
def compiled(environment):
    return jax.jit(environment.step)


def walk(environment, state, actions):
    rows = []
    for t, action in enumerate(actions):
        state, timestep = compiled(environment)(state, jnp.int32(action), jax.random.key(t))
        rows.append((state, timestep))
    return rows


def test_moves_stop_at_walls_everywhere():
    environment, cells = SymbolicIMaze(), sorted(CELLS)

    def moved(cell, action):
        # Without a goal in reach, of which a step tells by being at the start.
        goal = jnp.where(cell[0] < 5, 3, 0)
        return environment.step(in_cell()._replace(cell=cell, goal=goal), action, KEY)[0].cell

    result = jax.jit(jax.vmap(jax.vmap(moved, (None, 0)), (0, None)))(jnp.array(cells), jnp.arange(4))
    for cell, row in zip(cells, result.tolist(), strict=True):
        for (y, x), after in zip(MOVES, row, strict=True):
            expected = (cell[0] + y, cell[1] + x)
            assert tuple(after) == (expected if expected in CELLS else cell), cell


@pytest.mark.parametrize('goal', range(4))
def test_who_remembers_comes_back_in_eight_steps(goal):
    """Up to the goal there are two apples; they are back for the next time."""
    environment = SymbolicIMaze(num_steps=20)
    rows = walk(environment, in_cell(goal=goal), 3 * path(START, ALCOVES[goal]))[:20]
    rewards = [float(timestep.reward) for _, timestep in rows]
    once = [1, 1, 0, 0, 0, 0, 0, 10]
    assert rewards == [*once, *once, 1, 1, 0, 0]
    assert [bool(state.reached_goal) for state, _ in rows] == [reward == 10 for reward in rewards]
    assert [int(state.steps_since_respawn) for state, _ in rows] == [*range(1, 8), *range(8), *range(5)]
    assert [int(state.num_goals) for state, _ in rows] == [0] * 7 + [1] * 8 + [2] * 5
    assert rows[7][0].cell.tolist() == list(START)
    assert rows[7][0].apples.all()
    np.testing.assert_array_equal(rows[7][1].observation, jax.jit(environment._observe)(in_cell(goal=goal)))
    ends = [(int(timestep.step_type), float(timestep.discount)) for _, timestep in rows]
    assert ends == [(MID, 1)] * 19 + [(LAST, 0)]


def test_search_and_return_take_what_the_module_says():
    """Looking into the alcoves one after the other, from the cell in front of each: 23 steps on average, and then 8."""
    environment, latencies = SymbolicIMaze(num_steps=60), []
    for goal in range(4):
        state, seen, reached = in_cell(goal=goal), False, []
        for end in ENDS:
            for action in path(tuple(state.cell.tolist()), end):
                ((state, timestep),) = walk(environment, state, [action])
                reached.append(bool(state.reached_goal))
            seen = bool(timestep.observation[..., 2].any())
            if seen:
                break
        assert seen
        moves = path(tuple(state.cell.tolist()), ALCOVES[goal]) + 2 * path(START, ALCOVES[goal])
        reached += [bool(state.reached_goal) for state, _ in walk(environment, state, moves)]
        reached += [False] * (60 - len(reached))
        latencies.append(reached)
    assert goal_latencies(np.array(latencies).T) == GoalLatencies(23, 8, 1)


def test_apples_are_collected_once_and_can_be_left_out():
    moves = [UP, DOWN, UP, UP, DOWN, DOWN, DOWN]
    assert [float(t.reward) for _, t in walk(SymbolicIMaze(), in_cell(), moves)] == [1, 0, 0, 1, 0, 0, 1]
    state, timestep = SymbolicIMaze(apples=False).reset(KEY)
    assert not state.apples.any()
    assert not timestep.observation[..., 1].any()
    moves = path(START, ALCOVES[0])
    rows = walk(SymbolicIMaze(apples=False), state._replace(goal=jnp.int32(0)), moves)
    assert [float(t.reward) for _, t in rows] == [0] * 7 + [10]
    assert not rows[-1][0].apples.any()


def test_a_symbolic_observation_by_hand():
    observe = SymbolicIMaze()._observe
    corner = np.asarray(observe(in_cell((2, 1), goal=0)))
    walls = ['#####', '##.##', '##...', '#####', '#####']
    np.testing.assert_array_equal(corner[..., 0], [[tile == '#' for tile in row] for row in walls])
    assert np.argwhere(corner[..., 2]).tolist() == [[1, 2]]
    corridor = np.asarray(observe(in_cell((4, 5), apples=(True, False, True, True))))
    assert np.argwhere(corridor[..., 1]).tolist() == [[1, 2], [4, 2]]
    assert corridor[..., 0].sum() == 25 - 5 - 4
    SymbolicIMaze().spec().observations.validate(corner)


def views(observe, states):
    return np.asarray(jax.jit(jax.vmap(observe))(states))


def test_the_symbolic_goal_is_seen_from_the_cell_in_front_of_its_alcove_alone():
    cells = sorted(CELLS)
    for goal, alcove in enumerate(ALCOVES):
        state = in_cell(goal=goal)
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (27, *x.shape)), state)._replace(cell=jnp.array(cells))
        seen = views(SymbolicIMaze()._observe, state)[..., 2].any((1, 2))
        assert {cell for cell, sees in zip(cells, seen, strict=True) if sees} == {alcove, ENDS[goal]}


@pytest.mark.parametrize(('view_size', 'tells_all'), [(3, False), (5, True), (7, True)])
def test_walls_tell_where_one_is(view_size, tells_all):
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (27, *x.shape)), in_cell())._replace(
        cell=jnp.array(sorted(CELLS))
    )
    walls = views(SymbolicIMaze(view_size=view_size)._observe, state)[..., 0]
    assert (len(np.unique(walls.reshape(27, -1), axis=0)) == 27) == tells_all


@pytest.mark.parametrize('form', [SymbolicIMaze(), IMaze(num_rays=1)])
def test_goals_are_uniform_and_every_episode_starts_alike(form):
    num_draws = 4000
    state, timestep = jax.jit(jax.vmap(form.reset))(jax.random.split(KEY, num_draws))
    counts = np.bincount(state.goal, minlength=5)
    assert counts[4] == 0
    assert (abs(counts[:4] - 1000) < 5 * np.sqrt(1000 * 3 / 4)).all()
    assert timestep.first().all()
    if isinstance(form, SymbolicIMaze):
        assert (state.cell == jnp.array(START)).all()
        assert (timestep.observation == timestep.observation[0]).all()
    else:
        assert (state.position == 5.5).all()
        quarters = np.bincount(np.int32(4 * state.heading / (2 * np.pi)), minlength=4)
        assert (abs(quarters - 1000) < 5 * np.sqrt(1000 * 3 / 4)).all()
        # The heading tells nothing about the goal.
        assert abs(np.corrcoef(state.heading, state.goal)[0, 1]) < 5 / np.sqrt(num_draws)


@pytest.mark.parametrize('form', [SymbolicIMaze(num_steps=2), IMaze(num_steps=2, num_rays=3)])
def test_a_batch_draws_a_new_goal_for_every_episode_and_copy(form):
    batch = Batch(form, 64)
    step = jax.jit(lambda *arguments: (lambda s, t: (s, t._replace(observation=())))(*batch.step(*arguments)))
    state = jax.jit(lambda key: batch.reset(key)[0])(KEY)
    goals = [np.asarray(state.environment.goal)]
    for t in range(4):
        state, timestep = step(state, jnp.zeros(64, jnp.int32), jax.random.key(t))
        assert timestep.step_type.tolist() == [FIRST if t % 2 else MID] * 64
        assert timestep.discount.tolist() == [0 if t % 2 else 1] * 64
        goals.append(np.asarray(state.environment.goal))
    np.testing.assert_array_equal(goals[0], goals[1])
    np.testing.assert_array_equal(goals[2], goals[3])
    for goal in goals[::2]:
        assert set(goal) == set(range(4))
    assert 0 < (goals[0] == goals[2]).mean() < 0.6  # A quarter by chance.


def standing(row, column, heading=0.0, goal=0, apples=(True,) * 4):
    zero = jnp.int32(0)
    return IMazeState(
        *(jnp.float32([row, column]), jnp.float32(heading), jnp.int32(goal), jnp.array(apples)),
        *(zero, zero, zero, jnp.zeros((), bool)),
    )


MAZE = IMaze(num_rays=1)  # Motion is the same, and there is little to be seen.


@pytest.mark.parametrize(
    ('action', 'north', 'east'),
    [
        (FORWARD, (-0.2, 0, 0), (0, 0.2, 0)),
        (BACK, (0.2, 0, 0), (0, -0.2, 0)),
        (STEP_LEFT, (0, -0.2, 0), (-0.2, 0, 0)),
        (STEP_RIGHT, (0, 0.2, 0), (0.2, 0, 0)),
        (TURN_LEFT, (0, 0, -12), (0, 0, -12)),
        (TURN_RIGHT, (0, 0, 12), (0, 0, 12)),
        (FORWARD_LEFT, (-0.19563, -0.04158, -12), (-0.04158, 0.19563, -12)),
        (FORWARD_RIGHT, (-0.19563, 0.04158, 12), (0.04158, 0.19563, 12)),
    ],
)
def test_motion_by_hand(action, north, east):
    for heading, (row, column, degrees) in (2 * np.pi, north), (EAST, east):
        ((state, _),) = walk(MAZE, standing(2.5, 5.5, heading), [action])
        np.testing.assert_allclose(state.position, [2.5 + row, 5.5 + column], atol=1e-5)
        turned = (float(state.heading) - heading - np.deg2rad(degrees) + 1) % (2 * np.pi) - 1
        assert abs(turned) < 1e-5
        assert 0 <= float(state.heading) < 2 * np.pi


def test_walls_stop_one_axis_and_not_the_other():
    # In the corridor, whose walls are at columns 5 and 6: the agent's centre stays between 5.2 and 5.8.
    rows = walk(MAZE, standing(5.5, 5.5, EAST), [FORWARD, FORWARD])
    np.testing.assert_allclose([state.position for state, _ in rows], [[5.5, 5.7], [5.5, 5.7]], rtol=1e-6)
    ((state, _),) = walk(MAZE, standing(5.5, 5.7, EAST / 2), [FORWARD])
    np.testing.assert_allclose(state.position, [5.5 - 0.2 * np.sqrt(0.5), 5.7], rtol=1e-6)
    # Past a corner: the way into the corridor is free only for who is in front of it.
    ((state, _),) = walk(MAZE, standing(2.7, 5.1, SOUTH), [FORWARD])
    np.testing.assert_allclose(state.position, [2.7, 5.1], rtol=1e-6)
    ((state, _),) = walk(MAZE, standing(2.7, 5.25, SOUTH), [FORWARD])
    np.testing.assert_allclose(state.position, [2.9, 5.25], rtol=1e-6)


def test_what_is_near_is_collected():
    # The apple of row 4 is at (4.5, 5.5): .6 and .4 cells away.
    rows = walk(MAZE, standing(5.25, 5.5), [FORWARD, FORWARD, FORWARD])
    assert [float(timestep.reward) for _, timestep in rows] == [0, 1, 0]
    assert rows[-1][0].apples.tolist() == [True, False, True, True]
    # So is the goal at (1.5, 1.5), which brings the apples back.
    start = standing(2.25, 1.5, goal=0, apples=(False,) * 4)
    rows = walk(MAZE, start, [FORWARD, FORWARD])
    assert [float(timestep.reward) for _, timestep in rows] == [0, 10]
    (before, _), (state, _) = rows
    assert [bool(before.reached_goal), bool(state.reached_goal)] == [False, True]
    assert (int(state.num_goals), int(state.steps_since_respawn), int(state.num_steps)) == (1, 0, 2)
    np.testing.assert_array_equal(state.position, [5.5, 5.5])
    assert state.apples.all()
    # In another episode's alcove there is nothing.
    rows = walk(MAZE, start._replace(goal=jnp.int32(1)), [FORWARD] * 3)
    assert [float(timestep.reward) for _, timestep in rows] == [0, 0, 0]
    # The heading at the start is drawn anew.
    goal = jax.jit(jax.vmap(functools.partial(MAZE.step, before, jnp.int32(FORWARD))))
    headings = np.asarray(goal(jax.random.split(KEY, 500))[0].heading)
    assert len(np.unique(headings)) > 490
    assert (np.bincount(np.int32(4 * headings / (2 * np.pi)), minlength=4) > 80).all()


def test_a_walk_from_the_start_to_a_goal():
    """North for 3 cells, west for 4 and north again, with as many turns as that takes."""
    start = standing(5.5, 5.5, EAST, goal=0)
    turns = round(90 / 12 - 0.5) * [TURN_LEFT]  # 84 degrees: up to 6 from north, which walls put right.
    actions = [*turns, *[FORWARD] * 15, *turns, *[FORWARD] * 21, *[STEP_RIGHT] * 6, TURN_RIGHT]
    rows = walk(MAZE, start, actions)
    assert [float(t.reward) for _, t in rows if float(t.reward)] == [1, 1, 10]


def test_an_episode_ends():
    rows = walk(IMaze(num_steps=3, num_rays=1), standing(5.5, 5.5), [TURN_LEFT] * 3)
    ends = [(int(t.step_type), float(t.discount), float(t.reward)) for _, t in rows]
    assert ends == [(MID, 1, 0), (MID, 1, 0), (LAST, 0, 0)]


def test_rays_by_hand():
    cast = jax.jit(lambda position, directions: cast_rays(position, directions)[0])
    # From the junction of the upper bar: the walls are 1.5 up, 4.5 to either side and 6.5 down through the corridor.
    directions = jnp.array([(-1, 0), (0, -1), (0, 1), (1, 0), (-2, 0), (-1, 1), (1, 1), (1, -0.1)], jnp.float32)
    # Diagonally down to the corner of the corridor at (3, 6); and to the corridor's wall at column 5.
    expected = [0.5, 4.5, 4.5, 6.5, 0.25, 0.5, 0.5, 5]
    np.testing.assert_allclose(cast(jnp.float32([2.5, 5.5]), directions), expected, rtol=1e-4)
    # In an alcove: out of it to the lower wall of the bar, to its own walls, and to one of them just before its
    # opening.
    directions = jnp.array([(1, 0), (-1, 0), (0, 1), (1, 0.4), (1, 1.2)], jnp.float32)
    expected = [1.5, 0.5, 0.5, 1.5, 0.5 / 1.2]
    np.testing.assert_allclose(cast(jnp.float32([1.5, 1.5]), directions), expected, rtol=1e-4)


def test_rays_end_where_a_march_in_small_steps_does():
    random = np.random.default_rng(0)
    cells = np.array(sorted(CELLS))
    positions = cells[random.integers(27, size=40)] + random.uniform(0.1, 0.9, size=(40, 2))
    angles = random.uniform(0, 2 * np.pi, size=(40, 8))
    directions = np.stack([np.sin(angles), np.cos(angles)], -1)
    distances, colours = jax.jit(jax.vmap(cast_rays))(jnp.float32(positions), jnp.float32(directions))
    along = np.arange(0, 12, 1e-3)
    points = np.floor(positions[:, None, None] + directions[:, :, None] * along[:, None]).astype(int)
    free = np.zeros((40, 40), bool)
    free[tuple(cells.T)] = True
    first = (~free[points[..., 0], points[..., 1]]).argmax(-1)
    # A corner that is cut by less than a step is not seen by who marches.
    close = abs(np.asarray(distances) - along[first]) < 2e-3
    assert close.mean() > 0.98
    # Cells that differ have colours that differ, whatever their distance. Near their corners it is open which one is
    # met.
    ends = positions[:, None] + directions * (np.asarray(distances, float) + 1e-4)[..., None]
    close &= np.sort(abs(ends - np.rint(ends)), -1)[..., 1] > 0.01
    ends = np.floor(ends).astype(int)
    hues = np.asarray(colours) / np.asarray(colours).sum(-1, keepdims=True)
    by_cell = {}
    for end, hue in zip(ends[close].tolist(), hues[close], strict=True):
        by_cell.setdefault(tuple(end), []).append(hue)
    for group in by_cell.values():
        np.testing.assert_allclose(group, np.broadcast_to(group[0], (len(group), 3)), atol=1e-3)
    assert len(by_cell) > 20
    distinct = np.array([group[0] for group in by_cell.values()])
    assert (abs(distinct[:, None] - distinct).sum(-1) + np.eye(len(distinct)) > 1e-3).all()


@functools.cache
def view():
    return jax.jit(jax.vmap(IMaze().view))


def see(*states):
    return np.asarray(view()(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)))


def test_a_view_by_hand():
    """A wall is 84 / distance rows high."""
    near, far = see(standing(2.5, 7.5, np.pi), standing(2.5, 1.5, EAST))
    # The lower wall of the bar is .5 away: 168 rows of it.
    assert len(np.unique(near[:, 42], axis=0)) == 1
    # The bar's other end is 8.5 away: 9.9 rows of it, between ceiling and floor.
    column = far[:, 42]
    is_wall = (abs(column - column[0]).sum(-1) > 1e-3) & (abs(column - column[-1]).sum(-1) > 1e-3)
    assert np.flatnonzero(is_wall).tolist() == list(range(37, 47))
    np.testing.assert_allclose(column[0], [0.55, 0.7, 0.85], rtol=1e-6)
    IMaze().spec().observations.validate(far)


def test_turning_moves_what_is_seen_to_the_other_side():
    apples = (False, True, False, False)  # Straight ahead, one cell away.
    states = [standing(5.5, 5.5, np.deg2rad(degrees), apples=apples) for degrees in (0, 24, -24)]
    centre = []
    for image in see(*states):
        rows, columns = np.nonzero((image == np.float32([0.1, 0.9, 0.1])).all(-1))
        assert abs(rows.mean() - 41.5) < 0.01
        centre.append(columns.mean())
    assert abs(centre[0] - 41.5) < 0.01
    shift = 42 * np.tan(np.deg2rad(24))
    np.testing.assert_allclose(centre[1:], [41.5 - shift, 41.5 + shift], atol=0.5)


def test_what_is_nearer_hides_what_is_farther():
    def num_pixels(*apples):
        (image,) = see(standing(6.5, 5.5, 0, apples=apples))
        return int((image == np.float32([0.1, 0.9, 0.1])).all(-1).sum())

    # Apples 2 and 3 cells ahead, the nearer of which covers the other; discs of radius .2 * 42 / distance.
    nearer, farther, both = (
        num_pixels(False, True, False, False),
        num_pixels(True, False, False, False),
        num_pixels(True, True, False, False),
    )
    np.testing.assert_allclose(nearer, np.pi * (0.2 * 42 / 2) ** 2, rtol=0.15)
    np.testing.assert_allclose(farther, np.pi * (0.2 * 42 / 3) ** 2, rtol=0.15)
    assert both == nearer
    assert num_pixels(False, False, True, True) == 0  # Behind.
    (image,) = see(standing(2.5, 3.5, np.pi))  # A wall is between.
    assert not (image == np.float32([0.1, 0.9, 0.1])).all(-1).any()


def test_the_goal_is_seen_from_its_end_of_the_bar_alone():
    """From elsewhere views are the same whichever the goal is."""
    random = np.random.default_rng(0)
    headings = np.arange(8) * np.pi / 4
    elsewhere = [
        (y + a, x + b) for y, x in sorted(CORRIDORS) if 3 < x < 7 for a, b in random.uniform(0.2, 0.8, size=(2, 2))
    ] + [(y, x) for y in (2.8, 8.2) for x in (3.5, 7.5)]
    for position in elsewhere:
        states = [standing(*position, heading + 0.1, goal) for goal in (0, 1, 2, 3) for heading in headings]
        images = see(*states).reshape(4, 8, -1)
        assert (images == images[0]).all(), position
    for goal, (alcove, heading) in enumerate(zip(ALCOVES, (0, 0, np.pi, np.pi), strict=True)):
        y, x = ENDS[goal]
        with_it, without = see(
            standing(y + 0.5, x + 0.5, heading, goal), standing(y + 0.5, x + 0.5, heading, (goal + 1) % 4)
        )
        assert (with_it[42, 42] == np.float32([1, 0.9, 0.1])).all(), alcove
        assert (without != with_it).any()
    # And in part from the cell before that one.
    with_it, without = see(*(standing(2.8, 2.9, -1, goal) for goal in (0, 1)))
    assert (without != with_it).any()


def test_rays_see_what_the_view_does():
    """21 rays with a column of the view beside each: colours on the horizon, and how near that is."""
    states = [standing(2.5, 1.6, 0.3, goal=0), standing(6.5, 5.4, 6.2), standing(8.3, 3.5, 1.2)]
    images = see(*states)
    environment = IMaze(num_rays=21)
    observe = jax.jit(environment._observe)
    rays = np.stack([observe(state) for state in states]).reshape(3, 21, 4)
    # A ray is between two columns, and meets what one of them shows.
    beside = np.stack([images[:, 41, 1::4], images[:, 41, 2::4]])
    assert abs(beside - rays[..., :3]).max(-1).min(0).max() < 0.03
    environment.spec().observations.validate(rays[0].reshape(-1))
    by_hand = np.asarray(observe(standing(2.5, 1.5, EAST))).reshape(21, 4)
    np.testing.assert_allclose(by_hand[10, 3], 1 / (1 + 8.5), rtol=1e-4)
    in_front = np.asarray(observe(standing(2.5, 1.5, goal=0))).reshape(21, 4)
    np.testing.assert_allclose(in_front[10], [1, 0.9, 0.1, 0.5], rtol=1e-4)
    # Of two apples ahead, the nearer one.
    for heading in 0, SOUTH:
        apples = np.asarray(observe(standing(5.5, 5.5, heading))).reshape(21, 4)
        np.testing.assert_allclose(apples[10], [0.1, 0.9, 0.1, 0.5], rtol=1e-4)


def test_latencies_by_hand():
    reached = np.zeros((10, 4), bool)
    reached[[3, 5, 9], 0] = True  # First after 4 steps, then after 2 and 4.
    reached[[1], 1] = True  # First after 2.
    reached[[5, 8], 2] = True  # First after 6, then after 3.
    assert goal_latencies(reached) == GoalLatencies(4, 3, 0.75)
    none = goal_latencies(reached[:, 3:])
    assert np.isnan([none.first, none.later]).all()
    assert none.share == 0
    with pytest.raises(ValueError, match=r'reached_goal must be \[T, N\].* got shape \(10,\)'):
        goal_latencies(reached[:, 0])


def test_episodes_can_be_drawn(tmp_path):
    from PIL import Image

    environment = DmEnvironment(IMaze(num_steps=2, num_rays=1))
    environment.reset()
    states = [environment.state]
    while not environment.step(FORWARD_LEFT).last():
        states.append(environment.state)
    environment.animator()([*states, environment.state], tmp_path / 'episode.gif')
    with Image.open(tmp_path / 'episode.gif') as drawn:
        assert (drawn.n_frames, drawn.size) == (3, (336, 336))


@pytest.mark.parametrize(
    ('form', 'arguments', 'message'),
    [
        (SymbolicIMaze, {'num_steps': 0}, r'SymbolicIMaze.num_steps must be at least 1, got 0'),
        (SymbolicIMaze, {'view_size': 4}, r'SymbolicIMaze.view_size must be odd and at least 3, got 4'),
        (SymbolicIMaze, {'view_size': 1}, r'SymbolicIMaze.view_size must be odd and at least 3, got 1'),
        (IMaze, {'num_steps': 0}, r'IMaze.num_steps must be at least 1, got 0'),
        (IMaze, {'num_rays': 0}, r'IMaze.num_rays must be None or at least 1, got 0'),
    ],
)
def test_bad_arguments_are_refused(form, arguments, message):
    with pytest.raises(ValueError, match=message):
        form(**arguments)
