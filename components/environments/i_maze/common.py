"""What the forms of the I-maze share: the map, the goal, the apples."""

import jax
import jax.numpy as jnp
import numpy as np
from acme import specs
from jaxtyping import PyTree

from components.types import Array

MAP = (
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
IS_WALL = np.array([[tile == '#' for tile in row] for row in MAP])
START = np.argwhere([[tile == 's' for tile in row] for row in MAP])[0]
ALCOVES = np.argwhere([[tile == 'G' for tile in row] for row in MAP])
APPLES = np.array([(3, 5), (4, 5), (6, 5), (7, 5)])
_GOAL_REWARD, _APPLE_REWARD = 10, 1


def start(key: Array, apples: bool) -> dict[str, Array]:
    """What both forms' states have in common, where an episode starts."""
    return {
        'goal': jax.random.randint(key, (), 0, len(ALCOVES), jnp.int32),
        'apples': jnp.full(len(APPLES), apples),
        'num_steps': jnp.int32(0),
        'num_goals': jnp.int32(0),
        'steps_since_respawn': jnp.int32(0),
        'reached_goal': jnp.zeros((), bool),
    }


def collect(state: PyTree, at_goal: Array, at_apples: Array, apples: bool) -> tuple[PyTree, Array]:
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


def maze_spec(observations: specs.BoundedArray, num_actions: int) -> specs.EnvironmentSpec:
    """Spec of a form of the maze: its observations, and that many actions."""
    return specs.EnvironmentSpec(
        observations=observations,
        actions=specs.DiscreteArray(num_actions, name='action'),
        rewards=specs.BoundedArray((), np.float32, 0.0, float(_GOAL_REWARD), 'reward'),
        discounts=specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )
