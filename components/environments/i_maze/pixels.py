"""The I-maze in first person: pixels, or rays."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import specs

from components.component import PositiveInt, component
from components.environments.base import Animator, make_timestep
from components.environments.i_maze.common import ALCOVES, APPLES, IS_WALL, MAP, START, collect, maze_spec, start
from components.environments.images import SIZE, view_animator, view_spec
from components.types import Array

# Of the first-person form: lengths in cells, angles in radians.
_STEP, _TURN = 0.2, np.pi / 15
_RADIUS = 0.2  # Of the agent.
_REACH = 0.4  # From the agent's centre to that of what it collects.
# What the 8 actions do: forward, rightward, to the right. In their order: forward, back, step left, step right, turn
# left, turn right, forward turning left, forward turning right.
_ACTIONS = np.array(
    [(1, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1), (1, 0, -1), (1, 0, 1)], np.float32
)
_TANGENT = 1.0  # Of half the field of view, which is 90 degrees.
_DISC_RADIUS = 0.2
_GOAL_COLOUR, _APPLE_COLOUR = (1.0, 0.9, 0.1), (0.1, 0.9, 0.1)
_CEILING_COLOUR, _FLOOR_COLOUR = (0.55, 0.7, 0.85), (0.3, 0.27, 0.25)
_FOG = 0.1  # How much darker a wall is with each cell of distance.
_ROW_FACE, _COLUMN_FACE = 1.0, 0.8  # Brightness of walls that end a column of the map, and of those that end a row.
# A colour of its own for each cell of wall, so that the walls in sight tell where one is; none like a goal's or an
# apple's.
_WALL_COLOURS = (
    np.random.default_rng(0).permuted(np.linspace(0.15, 0.75, 121 * 3)).reshape(11, 11, 3).astype(np.float32)
)


class IMazeState(NamedTuple):
    """State of an `IMaze`; see the package's docstring for the last four attributes.

    Attributes:
      position: of the agent, in cells from the map's top and from its left; a cell's centre is a half beyond. `[2]`.
      heading: clockwise from the map's up, in radians, in [0, 2 pi). Scalar.
      goal: number of the alcove with the goal: 0 and 1 are the upper ones, left and right, 2 and 3 the lower. int32
        scalar.
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
    """The I-maze as seen by who walks in it, as a pure-JAX `Environment`; see the package's docstring.

    Actions are: forward, back, step left, step right, turn left, turn right, forward turning left, forward turning
    right (0 to 7). A step is .2 cells long and a turn 12 degrees; an action with both turns first. Of a step that would
    bring the agent's centre within .2 cells of a wall, the part along the map's rows, or columns, or both, that would
    do so is not made. What is within .4 cells is collected. At `s` the agent heads into a direction that is drawn
    whenever it gets there.

    Observations are what is seen, 90 degrees wide, in 84 x 84 pixels (see `images`), or along `num_rays` rays. A cell
    of wall has a colour of its own, darker from afar, so that what is in sight tells where the agent is. Apples and the
    goal are discs of colours that no wall has. The goal is seen from its alcove, from the cell in front of it, and in
    part from up to 1.4 cells before that one, but from nowhere else.

    Args:
      num_steps: steps of an episode, at least 1.
      apples: whether there are any.
      num_rays: None for pixels. Otherwise observations are float32 `[4 * num_rays]`, for each ray from the left to the
        right what it meets: red, green and blue, and how near that is, 1 / (1 + distance in cells along the agent's
        heading); at least 1.

    Raises:
      ValueError: if a number is not as above.
    """

    num_steps: PositiveInt = 900
    apples: bool = True
    num_rays: PositiveInt | None = None

    def spec(self) -> specs.EnvironmentSpec:
        rays = None if self.num_rays is None else specs.BoundedArray((4 * self.num_rays,), np.float32, 0.0, 1.0, 'rays')
        return maze_spec(rays or view_spec(), len(_ACTIONS))

    def reset(self, key: Array) -> tuple[IMazeState, dm_env.TimeStep]:
        heading_key, key = jax.random.split(key)
        position = _centres(START)
        state = IMazeState(position, _random_heading(heading_key), **start(key, self.apples))
        return state, make_timestep(self._observe(state), first=True)

    def step(self, state: IMazeState, action: Array, key: Array) -> tuple[IMazeState, dm_env.TimeStep]:
        forward, rightward, turn = jnp.asarray(_ACTIONS)[action]
        heading = (state.heading + _TURN * turn) % (2 * np.pi)
        ahead, right = _axes(heading)
        position = _slide(state.position, _STEP * (forward * ahead + rightward * right))
        at_goal = _is_near(position, _centres(ALCOVES)[state.goal])
        state, reward = collect(state, at_goal, _is_near(position, _centres(APPLES)), self.apples)
        state = state._replace(
            position=jnp.where(at_goal, _centres(START), position),
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
    centres = jnp.append(_centres(APPLES), _centres(ALCOVES)[state.goal][None], axis=0) - state.position
    colours = jnp.array([_APPLE_COLOUR] * len(APPLES) + [_GOAL_COLOUR], jnp.float32)
    there = jnp.append(state.apples, True)
    depths, sideways = centres @ ahead, centres @ right
    order = jnp.argsort(-depths)

    def disc(depth: Array, sideways: Array, there: Array, colour: Array) -> _Layer:
        divisor = jnp.maximum(depth, 0.05)  # None is nearer and seen: an agent so near has collected it.
        squared = (_DISC_RADIUS / divisor) ** 2 - (screen - sideways / divisor) ** 2
        seen = there & (depth > 0.05) & (depth < distance) & (squared >= 0)
        half_height = jnp.where(seen, jnp.sqrt(jnp.maximum(squared, 0)), -1)
        return _Layer(jnp.full_like(distance, depth), half_height, jnp.broadcast_to(colour, (num_columns, 3)))

    discs = jax.vmap(disc)(depths[order], sideways[order], there[order], colours[order])
    return [walls, *(jax.tree.map(lambda leaf, i=i: leaf[i], discs) for i in range(len(APPLES) + 1))]


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
    lines = jnp.arange(1, len(MAP))
    distances = (lines - position[:, None]) / directions[..., None]  # [num_rays, 2, lines]: of rows, of columns.
    # Behind a line there is the cell of its number, or the one before it for who comes the other way.
    behind = lines - (directions < 0)[..., None]
    along = position[::-1, None] + distances * directions[:, ::-1, None]
    along = jnp.clip(jnp.floor(along).astype(jnp.int32), 0, len(MAP) - 1)
    rows = jnp.stack([behind[:, 0], along[:, 1]], 1)
    columns = jnp.stack([along[:, 0], behind[:, 1]], 1)
    is_end = (distances > 0) & jnp.asarray(IS_WALL)[rows, columns]
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
        position = jnp.where(jnp.asarray(IS_WALL)[cells[:, 0], cells[:, 1]].any(), position, moved)
    return position


def _centres(cells: np.ndarray) -> Array:
    """Positions of cells' centres, `[..., 2]`."""
    return jnp.asarray(cells + 0.5, jnp.float32)


def _is_near(position: Array, places: Array) -> Array:
    """Whether an agent gets what is at each place, `[..., 2]`."""
    return jnp.linalg.norm(places - position, axis=-1) <= _REACH


def _random_heading(key: Array) -> Array:
    return jax.random.uniform(key, (), jnp.float32, 0, 2 * np.pi)
