"""Acting: unrolls of a policy in a batch of environments, inside the compiled learner."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, PyTree, Shaped

from components.acting.action_distributions import ActionDistribution, select_action
from components.acting.policies import Policy, Softmax
from components.acting.rewards import Raw, RewardTransform, transform_rewards
from components.environments.base import BatchedEnvironment
from components.networks.network import NetworkFunctions
from components.types import Array, CoreState, EpisodeTotals, Params, Trajectory


class ActorState(NamedTuple):
    """Where acting stands: what the next action is chosen from, and the episodes under way.

    Attributes:
      environment: the environment's own state.
      timestep: the latest, leaves `[B, ...]`.
      core_state: recurrent state before the latest observation, leaves `[B, ...]`.
      episode_return: undiscounted reward of each episode so far.
      episode_length: its steps so far.
      transformed_return: as `episode_return`, of transformed rewards; empty where these are the environment's own.
    """

    environment: PyTree
    timestep: dm_env.TimeStep
    core_state: CoreState
    episode_return: Float[Array, ' B']
    episode_length: Int[Array, ' B']
    transformed_return: PyTree[Float[Array, ' B']] = ()


class Step(NamedTuple):
    """One step of acting, leaves `[B, ...]`; the first five as in `Trajectory`.

    Attributes:
      action: taken.
      reward: of the transition, transformed.
      discount: of the transition.
      mask: 0 where there was no transition.
      policy: that the action was drawn from.
      ended: whether an episode ended with it.
      episode_return: undiscounted reward of the episode, this step included.
      episode_length: its steps, this one included.
      transformed_return: as `episode_return`, of transformed rewards.
    """

    action: Shaped[Array, 'B ...']
    reward: Float[Array, ' B']
    discount: Float[Array, ' B']
    mask: Float[Array, ' B']
    policy: ActionDistribution
    ended: Bool[Array, ' B']
    episode_return: Float[Array, ' B']
    episode_length: Int[Array, ' B']
    transformed_return: Float[Array, ' B']


class Actor:
    """Unrolls a policy in a batch of environments, inside jit.

    state = actor.init(key)
    repeat:
        state, trajectory, episodes = actor.unroll(params, state, key, unroll_length)

    Args:
      environment: the batch.
      network: with the heads that the policy reads.
      policy: what actions are drawn from.
      greedy: whether to take the most probable action instead of drawing one.
      reward: from the environment's rewards to those of trajectories.
    """

    def __init__(
        self,
        environment: BatchedEnvironment,
        network: NetworkFunctions,
        policy: Policy = Softmax(),
        greedy: bool = False,
        reward: RewardTransform = Raw(),
    ):
        self._environment, self._network = environment, network
        self._policy, self._greedy, self._reward = policy, greedy, reward

    def init(self, key: Array) -> ActorState:
        """Starts an episode in every environment."""
        environment, timestep = self._environment.reset(key)
        batch_size = self._environment.batch_size
        return ActorState(
            environment,
            timestep,
            self._network.initial_state(batch_size),
            jnp.zeros(batch_size),
            jnp.zeros(batch_size, jnp.int32),
            () if isinstance(self._reward, Raw) else jnp.zeros(batch_size),
        )

    def unroll(
        self, params: Params, state: ActorState, key: Array, unroll_length: int
    ) -> tuple[ActorState, Trajectory, EpisodeTotals]:
        """Acts for `unroll_length` steps. No gradient flows through acting.

        Args:
          params: of the network.
          state: where to go on from.
          key: of the actions and the environments.
          unroll_length: `T`.

        Returns:
          The next state, the trajectory, and totals of the episodes that ended in it.
        """
        core_state = state.core_state
        state, (before, steps) = jax.lax.scan(
            lambda state, key: self._step_from(params, state, key), state, jax.random.split(key, unroll_length)
        )
        last = state.timestep.observation, state.timestep.first()
        observation, first = jax.tree.map(lambda xs, x: jnp.concatenate([xs, x[None]]), before, last)
        trajectory = Trajectory(
            observation, first, steps.action, steps.reward, steps.discount, steps.mask, steps.policy, core_state
        )
        episodes = EpisodeTotals(
            num_steps=jnp.sum(steps.mask, dtype=jnp.int32),
            num_episodes=jnp.sum(steps.ended, dtype=jnp.int32),
            return_sum=jnp.sum(steps.ended * steps.episode_return),
            length_sum=jnp.sum(steps.ended * steps.episode_length, dtype=jnp.int32),
            transformed_return_sum=jnp.sum(steps.ended * steps.transformed_return),
        )
        return state, trajectory, episodes

    def step(self, params: Params, state: ActorState, key: Array) -> tuple[ActorState, Step]:
        """Takes one step in every environment."""
        action_key, environment_key = jax.random.split(key)
        before = state.timestep
        outputs, core_state = self._network.step(
            jax.lax.stop_gradient(params), before.observation, before.first(), state.core_state
        )
        policy = self._policy(outputs, before.first().shape)
        action = select_action(policy, action_key, self._greedy)
        environment, after = self._environment.step(state.environment, action, environment_key)

        mask = ~before.last()  # What follows the last step of an episode is a restart.
        ended = mask & (after.first() | after.last())
        episode_return = state.episode_return + mask * after.reward
        episode_length = state.episode_length + mask
        if isinstance(self._reward, Raw):  # One sum is enough, and the state of older checkpoints.
            reward, transformed_return, next_transformed = after.reward, episode_return, ()
        else:
            reward = transform_rewards(self._reward, after.reward)
            transformed_return = state.transformed_return + mask * reward
            next_transformed = ~ended * transformed_return
        state = ActorState(
            environment, after, core_state, ~ended * episode_return, ~ended * episode_length, next_transformed
        )
        step = Step(
            action,
            reward,
            after.discount,
            mask.astype(jnp.result_type(float)),
            policy,
            ended,
            episode_return,
            episode_length,
            transformed_return,
        )
        return state, step

    def _step_from(
        self, params: Params, state: ActorState, key: Array
    ) -> tuple[ActorState, tuple[tuple[PyTree, Array], Step]]:
        """A step, with the observation that it started from and whether that was the first of its episode."""
        next_state, step = self.step(params, state, key)
        return next_state, ((state.timestep.observation, state.timestep.first()), step)
