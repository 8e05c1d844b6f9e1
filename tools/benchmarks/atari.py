"""What acting on Atari costs in the compiled program, against ale-py and EnvPool stepped from Python."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.experiments.launch import notify
from components.acting.actor import Actor, ActorState
from components.environments.adapters.ale import Atari
from components.networks.network import NetworkFunctions
from components.types import Array, Trajectory
from tools.benchmarks.measure import Row, alternate, cpu_and_wall, row

UNROLL_LENGTH = 20


def atari(rounds: int, num_envs: int = 64, num_steps: int = 100) -> list[Row]:
    """Acting on Breakout with a network that computes nothing, in environment steps per second of all cores' time.

    The first row steps and drops what it sees, as the loops in Python do; the second keeps it in trajectories. EnvPool
    is left out where it is not installed.
    """
    environment = Atari('breakout', num_envs)
    actor = Actor(environment, _null_network(environment.spec().actions.num_values))
    actions = np.random.default_rng(0).integers(environment.spec().actions.num_values, size=(num_steps, num_envs))
    actions = actions.astype(np.int32)
    ours = [_Compiled(actor, _steps, num_steps), _Compiled(actor, _unrolls, num_steps)]
    emulators = environment.make(num_envs)
    emulators.reset(seed=0)
    others = {"ale-py's step from Python": lambda: _step(emulators, actions)}
    if env_pool := _env_pool(environment):
        others["EnvPool's step from Python"] = lambda: _step(env_pool, actions)
    seconds = alternate([*ours, *others.values()], rounds, lambda side: cpu_and_wall(side)[0])
    rows = []
    for name, mine in zip(('acting on Atari', 'unrolls on Atari'), seconds, strict=False):
        for against, theirs in zip(others, seconds[len(ours) :], strict=True):
            speed, other = (num_envs * num_steps / x for x in (mine, theirs))
            rows.append(row(name, against, 'environment steps/CPU s', speed, other, theirs / mine))
    return rows


class _Compiled:
    """Goes on acting, `num_steps` at each call.

    Args:
      actor: acts.
      act: acts so many steps from a state; returns the next state and what it has seen.
      num_steps: at each call.
    """

    def __init__(self, actor: Actor, act: Callable[[Actor, ActorState, Array], Any], num_steps: int):
        keys = jax.random.split(jax.random.key(0), num_steps)
        self._act = jax.jit(lambda state: act(actor, state, keys), donate_argnums=0)
        self._state = jax.jit(actor.init)(jax.random.key(0))

    def __call__(self) -> None:
        self._state, seen = self._act(self._state)
        jax.block_until_ready((self._state, seen))


def _steps(actor: Actor, state: ActorState, keys: Array) -> tuple[ActorState, Array]:
    def step(carry: tuple[ActorState, Array], key: Array) -> tuple[tuple[ActorState, Array], None]:
        state, taken = actor.step(jnp.zeros(()), carry[0], key)
        return (state, carry[1] + taken.reward.sum()), None

    return jax.lax.scan(step, (state, jnp.zeros(())), keys)[0]


def _unrolls(actor: Actor, state: ActorState, keys: Array) -> tuple[ActorState, Trajectory]:
    def unroll(carry: tuple[ActorState, Trajectory], key: Array) -> tuple[tuple[ActorState, Trajectory], None]:
        state, trajectory, _ = actor.unroll(jnp.zeros(()), carry[0], key, UNROLL_LENGTH)
        return (state, trajectory), None

    _, shapes, _ = jax.eval_shape(lambda state: actor.unroll(jnp.zeros(()), state, keys[0], UNROLL_LENGTH), state)
    trajectory = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(unroll, (state, trajectory), keys[::UNROLL_LENGTH])[0]


def _null_network(num_actions: int) -> NetworkFunctions:
    """Logits of zero, whatever is seen."""

    def step(params: Any, observation: Any, first: Array, core_state: Any) -> tuple[dict[str, Array], Any]:
        return {'logits': jnp.zeros((*first.shape, num_actions))}, core_state

    return NetworkFunctions(lambda key: jnp.zeros(()), lambda batch_size: {}, step, lambda *args: step(*args)[0])


def _step(emulators: Any, actions: np.ndarray) -> None:
    for action in actions:
        emulators.step(action)


def _env_pool(atari: Atari) -> Any:
    """The same game there; None without the library."""
    try:
        import envpool  # The project does not depend on it.
    except ImportError:
        notify('EnvPool is not installed, so that nothing is compared with it: python -m pip install envpool')
        return None
    env_pool = envpool.make_gymnasium(
        'Breakout-v5',
        num_envs=atari.batch_size,
        stack_num=atari.stack,
        frame_skip=atari.frame_skip,
        img_height=atari.height,
        img_width=atari.width,
        repeat_action_probability=atari.sticky,
        reward_clip=False,
        episodic_life=False,
    )
    env_pool.reset()
    return env_pool
