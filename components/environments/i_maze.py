"""The I-maze: a goal in one of four alcoves, which has to be found once in an episode and can be gone back to after that.

    ###########      # wall, . floor, s where the agent starts and is put back, G an alcove
    #G#######G#
    #.........#
    #####.#####
    #####.#####
    #####s#####
    #####.#####
    #####.#####
    #.........#
    #G#######G#
    ###########

An episode draws one of the alcoves, and has the goal there. Reaching it pays +10 and puts the agent back to `s`, so that it can
be reached again and again until the episode terminates, after a fixed number of steps. Four apples in the corridor that leads
through `s` pay +1 each, and come back whenever the goal is reached. An alcove is a recess: who passes by in the corridors does
not see what is in it, and the four look alike but for the goal.

All alcoves are 8 cells from `s`. Who looks into one after the other in the shortest way finds the goal after 23 cells on average;
who remembers where it was goes 8. `goal_latencies` tells both from episodes; a policy without memory has one for the other.

States of both forms, `SymbolicIMaze` and `IMaze`, have these attributes in common, int32 but for the last:

    num_steps             of the episode so far.
    num_goals             goals reached so far in the episode.
    steps_since_respawn   steps since the goal was reached, or the episode began.
    reached_goal          whether the step that led here reached the goal. Bool.

A `Batch` has the state that the next episode starts with in the place of an episode's last one, where a goal in the last step
would be told: who measures latencies steps the environment itself.

Source: Mirowski et al. (2016) and Wang et al. (2016) for the maze's form, the goal that is constant in an episode
and random across them, the way back to the central corridor, apples there, the rewards, and the size of a view. The cells, that
alcoves are recesses, all motion and how it looks are this project's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import PositiveInt, component
from components.environments.base import Animator, make_timestep
from components.environments.views import SIZE, view_animator, view_spec
from components.types import Array

_MAP = (
    '###########',
    '#G#######G#',
    '#.........#',
    '#####.#####',
    '#####.#####',
    '#####s#####',
    '#####.#####',
    '#####.#####',
    '#.........#',
    '#G#######G#',
    '###########',
)
_IS_WALL = np.array([[tile == '#' for tile in row] for row in _MAP])
_START = np.argwhere([[tile == 's' for tile in row] for row in _MAP])[0]
_ALCOVES = np.argwhere([[tile == 'G' for tile in row] for row in _MAP])
_APPLES = np.array([(3, 5), (4, 5), (6, 5), (7, 5)])
_GOAL_REWARD, _APPLE_REWARD = 10, 1

_MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])

# Of the first-person form: lengths in cells, angles in radians.
_STEP, _TURN = 0.2, np.pi / 15
_RADIUS = 0.2  # Of the agent.
_REACH = 0.4  # From the agent's centre to that of what it collects.
# What the 8 actions do: forward, rightward, to the right. In their order: forward, back, step left, step right, turn left, turn
# right, forward turning left, forward turning right.
_ACTIONS = np.array(
    [(1, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1), (1, 0, -1), (1, 0, 1)], np.float32
)
_TANGENT = 1.0  # Of half the field of view, which is 90 degrees.
_DISC_RADIUS = 0.2
_GOAL_COLOUR, _APPLE_COLOUR = (1.0, 0.9, 0.1), (0.1, 0.9, 0.1)
_CEILING_COLOUR, _FLOOR_COLOUR = (0.55, 0.7, 0.85), (0.3, 0.27, 0.25)
_FOG = 0.1  # How much darker a wall is with each cell of distance.
_ROW_FACE, _COLUMN_FACE = 1.0, 0.8  # Brightness of walls that end a column of the map, and of those that end a row.
# A colour of its own for each cell of wall, so that the walls in sight tell where one is; none like a goal's or an apple's.
_WALL_COLOURS = (
    np.random.default_rng(0).permuted(np.linspace(0.15, 0.75, 121 * 3)).reshape(11, 11, 3).astype(np.float32)
)


class SymbolicIMazeState(NamedTuple):
    """State of a `SymbolicIMaze`; see the module's docstring for the last four attributes.

    Attributes:
      cell: row and column of where the agent is. int32 `[2]`.
      goal: number of the alcove with the goal: 0 and 1 are the upper ones, left and right, 2 and 3 the lower. int32 scalar.
      apples: which apples are there, from the top. Bool `[4]`.
      num_steps: int32 scalar.
      num_goals: int32 scalar.
      steps_since_respawn: int32 scalar.
      reached_goal: bool scalar.
    """

    cell: Array
    goal: Array
    apples: Array
    num_steps: Array
    num_goals: Array
    steps_since_respawn: Array
    reached_goal: Array


@component
class SymbolicIMaze:
    """The I-maze as a grid of cells, as a pure-JAX `SingleEnvironment`; see the module's docstring.

    Actions move up, down, left or right (0 to 3), by one cell; into a wall is not at all. An agent that enters the cell of an
    apple collects it, and one that enters the goal's alcove is at `s` when it sees what it did.

    Observations are float32 `[view_size, view_size, 3]`: the cells around the agent's, with the map's up on top. They are 1 where
    there is a wall, an apple, and the goal; beyond the map is wall. Walls hide nothing but the goal: it is seen from the cell
    in front of its alcove alone. With a `view_size` of 5 or more walls look different from every cell, so that where the agent
    is can be told from one observation.

    Args:
      num_steps: steps of an episode, at least 1. The default takes an agent about as far as 900 steps of `IMaze`.
      view_size: cells from one side of an observation to the other, odd and at least 3.
      apples: whether there are any.

    Raises:
      ValueError: if a size is not as above.
    """

    num_steps: PositiveInt = 180
    view_size: int = 5
    apples: bool = True

    def __post_init__(self):
        if self.view_size < 3 or self.view_size % 2 == 0:
            raise ValueError(f'SymbolicIMaze.view_size must be odd and at least 3, got {self.view_size}')

    def spec(self) -> specs.EnvironmentSpec:
        shape = (self.view_size, self.view_size, 3)
        return _spec(specs.BoundedArray(shape, np.float32, 0.0, 1.0, 'view'), len(_MOVES))

    def reset(self, key: Array) -> tuple[SymbolicIMazeState, dm_env.TimeStep]:
        state = SymbolicIMazeState(jnp.asarray(_START, jnp.int32), **_start(key, self.apples))
        return state, make_timestep(self._observe(state), first=True)

    def step(self, state: SymbolicIMazeState, action: Array, key: Array) -> tuple[SymbolicIMazeState, dm_env.TimeStep]:
        del key  # The rules leave nothing to chance after the start.
        moved = state.cell + jnp.asarray(_MOVES, jnp.int32)[action]
        cell = jnp.where(jnp.asarray(_IS_WALL)[tuple(moved)], state.cell, moved)
        at_goal = (cell == jnp.asarray(_ALCOVES)[state.goal]).all()
        state, reward = _collect(state, at_goal, (cell == _APPLES).all(-1), self.apples)
        state = state._replace(cell=jnp.where(at_goal, jnp.asarray(_START, jnp.int32), cell))
        last = state.num_steps >= self.num_steps
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def _observe(self, state: SymbolicIMazeState) -> Array:
        margin = self.view_size // 2
        alcove = jnp.asarray(_ALCOVES)[state.goal]
        in_sight = jnp.abs(alcove - state.cell).sum() <= 1
        planes = jnp.zeros((*_IS_WALL.shape, 3), jnp.float32).at[:, :, 0].set(_IS_WALL)
        planes = planes.at[*_APPLES.T, 1].set(state.apples).at[*alcove, 2].set(in_sight)
        planes = jnp.pad(planes, ((margin, margin), (margin, margin), (0, 0)))
        planes = planes.at[:, :, 0].set(np.pad(_IS_WALL, margin, constant_values=True))
        return jax.lax.dynamic_slice(planes, (*state.cell, jnp.int32(0)), (self.view_size, self.view_size, 3))


class IMazeState(NamedTuple):
    """State of an `IMaze`; see the module's docstring for the last four attributes.

    Attributes:
      position: of the agent, in cells from the map's top and from its left; a cell's centre is a half beyond. `[2]`.
      heading: clockwise from the map's up, in radians, in [0, 2 pi). Scalar.
      goal: number of the alcove with the goal: 0 and 1 are the upper ones, left and right, 2 and 3 the lower. int32 scalar.
      apples: which apples are there, from the top. Bool `[4]`.
      num_steps: int32 scalar.
      num_goals: int32 scalar.
      steps_since_respawn: int32 scalar.
      reached_goal: bool scalar.
    """

    position: Array
    heading: Array
    goal: Array
    apples: Array
    num_steps: Array
    num_goals: Array
    steps_since_respawn: Array
    reached_goal: Array


@component
class IMaze:
    """The I-maze as seen by who walks in it, as a pure-JAX `SingleEnvironment`; see the module's docstring.

    Actions are: forward, back, step left, step right, turn left, turn right, forward turning left, forward turning right (0 to
    7). A step is .2 cells long and a turn 12 degrees; who does both turns first. Of a step that would bring the agent's centre
    within .2 cells of a wall, the part along the map's rows, or columns, or both, that would do so is not made. What is within .4
    cells is collected. At `s` the agent heads into a direction that is drawn anew whenever it gets there.

    Observations are what is seen, 90 degrees wide, in 84 x 84 pixels (see `views`), or along `num_rays` rays. A cell of wall has
    a colour of its own, darker from afar, so that what is in sight tells where the agent is. Apples and the goal are discs of
    colours that no wall has. The goal is seen from its alcove, from the cell in front of it, and in part from up to 1.4 cells
    before that one, but from nowhere else.

    Args:
      num_steps: steps of an episode, at least 1.
      apples: whether there are any.
      num_rays: None for pixels. Otherwise observations are float32 `[4 * num_rays]`, for each ray from the left to the right what
        it meets: red, green and blue, and how near that is, 1 / (1 + distance in cells along the agent's heading); at least 1.

    Raises:
      ValueError: if a number is not as above.
    """

    num_steps: PositiveInt = 900
    apples: bool = True
    num_rays: PositiveInt | None = None

    def spec(self) -> specs.EnvironmentSpec:
        rays = None if self.num_rays is None else specs.BoundedArray((4 * self.num_rays,), np.float32, 0.0, 1.0, 'rays')
        return _spec(rays or view_spec(), len(_ACTIONS))

    def reset(self, key: Array) -> tuple[IMazeState, dm_env.TimeStep]:
        heading_key, key = jax.random.split(key)
        position = _centres(_START)
        state = IMazeState(position, _random_heading(heading_key), **_start(key, self.apples))
        return state, make_timestep(self._observe(state), first=True)

    def step(self, state: IMazeState, action: Array, key: Array) -> tuple[IMazeState, dm_env.TimeStep]:
        forward, rightward, turn = jnp.asarray(_ACTIONS)[action]
        heading = (state.heading + _TURN * turn) % (2 * np.pi)
        ahead, right = _axes(heading)
        position = _slide(state.position, _STEP * (forward * ahead + rightward * right))
        at_goal = _is_near(position, _centres(_ALCOVES)[state.goal])
        state, reward = _collect(state, at_goal, _is_near(position, _centres(_APPLES)), self.apples)
        state = state._replace(
            position=jnp.where(at_goal, _centres(_START), position),
            heading=jnp.where(at_goal, _random_heading(key), heading),
        )
        last = state.num_steps >= self.num_steps
        return state, make_timestep(self._observe(state), reward, jnp.where(last, 0, 1), last=last)

    def view(self, state: IMazeState) -> Array:
        """What is seen in a state: float32 `[84, 84, 3]`."""
        upright = _screen(SIZE)[:, None]
        background = jnp.where(upright[..., None] < 0, jnp.float32(_CEILING_COLOUR), jnp.float32(_FLOOR_COLOUR))
        view = jnp.broadcast_to(background, (SIZE, SIZE, 3))
        for layer in _layers(state, SIZE):
            view = jnp.where((abs(upright) <= layer.half_height)[..., None], layer.colour, view)
        return view

    def animator(self) -> Animator:
        return view_animator(self.view)

    def _observe(self, state: IMazeState) -> Array:
        return self.view(state) if self.num_rays is None else self._rays(state, self.num_rays)

    def _rays(self, state: IMazeState, num_rays: int) -> Array:
        wall, *discs = _layers(state, num_rays)
        colour, distance = wall.colour, wall.distance
        for disc in discs:
            met = disc.half_height >= 0
            colour, distance = jnp.where(met[:, None], disc.colour, colour), jnp.where(met, disc.distance, distance)
        return jnp.concatenate([colour, 1 / (1 + distance[:, None])], axis=-1).reshape(-1)


class _Layer(NamedTuple):
    """What is seen of one thing in each column of a screen at distance 1: a part of the column around its centre.

    Attributes:
      distance: of what is seen, along the agent's heading. `[num_columns]`.
      half_height: of the part that it covers; negative where it is not seen. `[num_columns]`.
      colour: `[num_columns, 3]`.
    """

    distance: Array
    half_height: Array
    colour: Array


def _layers(state: IMazeState, num_columns: int) -> list[_Layer]:
    """The walls, then the discs from the farthest to the nearest: each is in front of those before."""
    ahead, right = _axes(state.heading)
    screen = _TANGENT * _screen(num_columns)
    distance, colour = cast_rays(state.position, ahead + screen[:, None] * right)
    walls = _Layer(distance, 1 / distance, colour)
    centres = jnp.append(_centres(_APPLES), _centres(_ALCOVES)[state.goal][None], axis=0) - state.position
    colours = jnp.array([_APPLE_COLOUR] * len(_APPLES) + [_GOAL_COLOUR], jnp.float32)
    there = jnp.append(state.apples, True)
    depths, sideways = centres @ ahead, centres @ right
    order = jnp.argsort(-depths)

    def disc(depth, sideways, there, colour):
        divisor = jnp.maximum(depth, 0.05)  # None is nearer and seen: who is so near has collected it.
        squared = (_DISC_RADIUS / divisor) ** 2 - (screen - sideways / divisor) ** 2
        seen = there & (depth > 0.05) & (depth < distance) & (squared >= 0)
        half_height = jnp.where(seen, jnp.sqrt(jnp.maximum(squared, 0)), -1)
        return _Layer(jnp.full_like(distance, depth), half_height, jnp.broadcast_to(colour, (num_columns, 3)))

    discs = jax.vmap(disc)(depths[order], sideways[order], there[order], colours[order])
    return [walls, *(jax.tree.map(lambda leaf, i=i: leaf[i], discs) for i in range(len(_APPLES) + 1))]


def cast_rays(position: Array, directions: Array) -> tuple[Array, Array]:
    """Where rays from inside the maze meet its walls.

    A ray can only come into a cell through one of the map's lines. So every crossing of a ray and a line is computed at
    once, and the first of those behind which there is wall is where the ray ends.

    Args:
      position: where the rays start, in cells from the map's top and from its left, not in a wall. `[2]`.
      directions: of the rays, likewise, of any length but 0. `[num_rays, 2]`.

    Returns:
      For each ray how many times `directions` the wall is away, `[num_rays]`, and the wall's colour, `[num_rays, 3]`.
    """
    directions = jnp.where(abs(directions) < 1e-6, 1e-6, directions)
    lines = jnp.arange(1, len(_MAP))
    distances = (lines - position[:, None]) / directions[..., None]  # [num_rays, 2, lines]: of rows, of columns.
    # Behind a line there is the cell of its number, or the one before it for who comes the other way.
    behind = lines - (directions < 0)[..., None]
    along = position[::-1, None] + distances * directions[:, ::-1, None]
    along = jnp.clip(jnp.floor(along).astype(jnp.int32), 0, len(_MAP) - 1)
    rows = jnp.stack([behind[:, 0], along[:, 1]], 1)
    columns = jnp.stack([along[:, 0], behind[:, 1]], 1)
    is_end = (distances > 0) & jnp.asarray(_IS_WALL)[rows, columns]
    num_rays = len(directions)
    distances = jnp.where(is_end, distances, jnp.inf).reshape(num_rays, -1)
    first = distances.argmin(-1)
    ray = jnp.arange(num_rays)
    distance = distances[ray, first]
    colour = jnp.asarray(_WALL_COLOURS)[
        rows.reshape(num_rays, -1)[ray, first], columns.reshape(num_rays, -1)[ray, first]
    ]
    brightness = jnp.where(first < len(lines), _ROW_FACE, _COLUMN_FACE) / (1 + _FOG * distance)
    return distance, colour * brightness[:, None]


class GoalLatencies(NamedTuple):
    """How many steps goals took; NaN where there is none to count.

    Attributes:
      first: mean steps to an episode's first goal, over episodes that have one.
      later: mean steps from one goal to the next, over all of them.
      share: of the episodes that have a goal.
    """

    first: float
    later: float
    share: float


def goal_latencies(reached_goal: np.ndarray) -> GoalLatencies:
    """How long finding the goal took, and how long coming back to it: `first / later` is what memory is worth.

    The time from an episode's last goal to its end counts in neither, nor do episodes without a goal in `first`.

    Args:
      reached_goal: whether each step of each of N whole episodes reached the goal; the first row tells of the first step,
        not of the reset. Bool `[T, N]`.

    Returns:
      The means.

    Raises:
      ValueError: if it is not of two axes.
    """
    reached_goal = np.asarray(reached_goal, bool)
    if reached_goal.ndim != 2:
        raise ValueError(f'reached_goal must be [T, N], steps of episodes, got shape {reached_goal.shape}')
    steps = [np.flatnonzero(episode) + 1 for episode in reached_goal.T]
    firsts = [episode[0] for episode in steps if len(episode)]
    laters = [latency for episode in steps for latency in np.diff(episode)]
    return GoalLatencies(_mean(firsts), _mean(laters), _mean([len(episode) > 0 for episode in steps]))


def _mean(values: Sequence) -> float:
    return float(np.mean(values)) if len(values) else float('nan')


def _start(key: Array, apples: bool) -> dict[str, Array]:
    """What both forms' states have in common, where an episode starts."""
    return {
        'goal': jax.random.randint(key, (), 0, len(_ALCOVES), jnp.int32),
        'apples': jnp.full(len(_APPLES), apples),
        'num_steps': jnp.int32(0),
        'num_goals': jnp.int32(0),
        'steps_since_respawn': jnp.int32(0),
        'reached_goal': jnp.zeros((), bool),
    }


def _collect(state, at_goal: Array, at_apples: Array, apples: bool):
    """A step's state, but for where the agent is, and its reward."""
    collected = state.apples & at_apples
    state = state._replace(
        apples=jnp.where(at_goal, apples, state.apples & ~collected),
        num_steps=state.num_steps + 1,
        num_goals=state.num_goals + at_goal,
        steps_since_respawn=jnp.where(at_goal, 0, state.steps_since_respawn + 1),
        reached_goal=at_goal,
    )
    return state, _GOAL_REWARD * at_goal + _APPLE_REWARD * jnp.sum(collected)


def _axes(heading: Array) -> tuple[Array, Array]:
    """Unit vectors ahead and to the right, in rows and columns of the map."""
    sine, cosine = jnp.sin(heading), jnp.cos(heading)
    return jnp.stack([-cosine, sine]), jnp.stack([sine, cosine])


def _screen(size: int) -> Array:
    """Centres of a screen's rows or columns, in (-1, 1)."""
    return (2 * jnp.arange(size, dtype=jnp.float32) + 1) / size - 1


def _slide(position: Array, motion: Array) -> Array:
    """The position after a motion along one axis, then along the other, each made if it leads into no wall."""
    for axis in np.eye(2, dtype=np.float32):
        moved = position + motion * axis
        corners = moved + _RADIUS * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)], np.float32)
        cells = jnp.floor(corners).astype(jnp.int32)
        position = jnp.where(jnp.asarray(_IS_WALL)[cells[:, 0], cells[:, 1]].any(), position, moved)
    return position


def _centres(cells: np.ndarray) -> Array:
    """Positions of cells' centres, `[..., 2]`."""
    return jnp.asarray(cells + 0.5, jnp.float32)


def _is_near(position: Array, places: Array) -> Array:
    """Whether an agent gets what is at each place, `[..., 2]`."""
    return jnp.linalg.norm(places - position, axis=-1) <= _REACH


def _random_heading(key: Array) -> Array:
    return jax.random.uniform(key, (), jnp.float32, 0, 2 * np.pi)


def _spec(observations: specs.BoundedArray, num_actions: int) -> specs.EnvironmentSpec:
    return specs.EnvironmentSpec(
        observations=observations,
        actions=specs.DiscreteArray(num_actions, name='action'),
        rewards=specs.BoundedArray((), np.float32, 0.0, float(_GOAL_REWARD), 'reward'),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )
