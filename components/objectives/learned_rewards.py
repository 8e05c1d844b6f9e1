"""Learned rewards: networks that change the rewards of another return (LIRPG, potentials, reward weights).

Each of these is a return around another one, which it hands a trajectory with other rewards: they go with every return,
and around each other. The weights of each are one meta-parameter, `weights`, whose entry is `meta_parameters.Weights`;
those of what it is around have their own path, `returns.weights` from it.
"""

import haiku as hk
import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import PyTree

from components.acting.action_distributions import num_actions
from components.axes import by_environment
from components.component import NonNegative, UnitInterval, component
from components.networks.torsos import Torso
from components.objectives.base import weighted_or_zero
from components.objectives.learned_returns import example_observation
from components.objectives.returns import ReturnEstimate, ReturnEstimator, estimate_returns
from components.types import Array, Trajectory


@component
class IntrinsicReward:
    """Adds a learned reward of the state and the action, r_{t+1} + scale tanh(f(s_t))[a_t] (LIRPG).

    f is a torso and one linear output for each action. Masked transitions keep their reward.

    Args:
      returns: of the sum of both rewards.
      torso: features of the observation.
      scale: largest learned reward, in units of the environment's; at least 0. A constant 0 leaves it out of the
        program.
      weights: of the network, once they are bound.

    Raises:
      ValueError: if `scale` is negative.

    Source: Zheng et al. (2018), section 3; the tanh and the output for each action are those of their code.
    """

    returns: ReturnEstimator
    torso: Torso
    scale: NonNegative = 0.01
    weights: PyTree = None

    @property
    def is_on_policy(self) -> bool:
        return self.returns.is_on_policy

    def init_weights(self, key: Array, spec: specs.EnvironmentSpec) -> PyTree:
        return self._network(num_actions(spec)).init(key, example_observation(spec))

    def __call__(self, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
        actions = trajectory.behaviour_policy.features(trajectory.action)
        network = by_environment(self._network(actions.shape[-1]).apply, (None, 1), 1)
        of_all = network(self.weights, _acted_on(trajectory))
        intrinsic = weighted_or_zero(self.scale, trajectory.mask * jnp.sum(actions * of_all, -1))
        return estimate_returns(
            self.returns, values, log_rho, trajectory._replace(reward=trajectory.reward + intrinsic)
        )

    def _network(self, size: int) -> hk.Transformed:
        def rewards(observation: PyTree) -> Array:
            return jnp.tanh(hk.Linear(size, name='reward')(hk.BatchApply(self.torso)(observation)))

        return hk.without_apply_rng(hk.transform(rewards))


@component
class PotentialShaping:
    """Adds a learned potential's differences, r_{t+1} + discount gamma_{t+1} Phi(s_{t+1}) - Phi(s_t).

    Phi is a torso and a linear output. It is 0 beyond a termination, and counts at the last observation of a truncated
    episode, from which returns bootstrap. Masked transitions keep their reward.

    Args:
      returns: of the shaped rewards.
      torso: features of the observation.
      discount: multiplies the environment's own; in [0, 1]. The best policies stay the same whatever Phi is if it is
        that of `returns`.
      weights: of the network, once they are bound.

    Raises:
      ValueError: if `discount` is out of range.

    Source: Ng et al. (1999), theorem 1, for the form; that Phi is learned by meta-gradients is this project's choice.
    """

    returns: ReturnEstimator
    torso: Torso
    discount: UnitInterval = 0.99
    weights: PyTree = None

    @property
    def is_on_policy(self) -> bool:
        return self.returns.is_on_policy

    def init_weights(self, key: Array, spec: specs.EnvironmentSpec) -> PyTree:
        return self._network().init(key, example_observation(spec))

    def __call__(self, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
        network = by_environment(self._network().apply, (None, 1), 1)
        potential = network(self.weights, trajectory.observation)
        difference = self.discount * trajectory.discount * potential[1:] - potential[:-1]
        shaped = trajectory.reward + trajectory.mask * difference
        return estimate_returns(self.returns, values, log_rho, trajectory._replace(reward=shaped))

    def _network(self) -> hk.Transformed:
        def potential(observation: PyTree) -> Array:
            return hk.Linear(1, name='potential')(hk.BatchApply(self.torso)(observation))[..., 0]

        return hk.without_apply_rng(hk.transform(potential))


@component
class RewardWeightedReturn:
    """A return that weighs every later reward by the state it is computed for: the learned return function.

    From s_t, reward r_{j+1} counts w_{t,j} times what it counts in `returns`,

        w_{t,j} = 2 sigmoid(q(s_t) . k(s_j, a_j) / sqrt(F) + (j - t) d(s_t)),

    so that around an n-step return, `LambdaReturn(discount, 1.0)`, G_t is a sum of beta_{t,i} r_{t+i+1} with beta_{t,i}
    = discount^i w_{t,t+i}. q and d start at 0, hence all w at 1: the first update is that of `returns`. They stay
    between 0 and 2, as an exponential in place of the sigmoid was seen to overflow.

    The value that is bootstrapped from, at the end of the trajectory and at a truncation, counts as it does in
    `returns`, and nothing beyond an end or a restart counts, as nothing does there. It takes `T` returns of a
    trajectory, `[T, T, B]` numbers.

    Args:
      returns: of the weighted rewards.
      torso: features of an observation, `F` of them, from which q, k and d are linear (k sees the action too).
      weights: of the network, once they are bound.

    Source: Wang et al. (2019), for weights that a network computes from the trajectory; the network is this project's
      choice.
    """

    returns: ReturnEstimator
    torso: Torso
    weights: PyTree = None

    @property
    def is_on_policy(self) -> bool:
        return self.returns.is_on_policy

    def init_weights(self, key: Array, spec: specs.EnvironmentSpec) -> PyTree:
        return self._network().init(key, example_observation(spec), jnp.zeros((1, 1, num_actions(spec))))

    def __call__(self, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
        actions = trajectory.behaviour_policy.features(trajectory.action)
        network = by_environment(self._network().apply, (None, 1, 1), 2)
        reward_weights = network(self.weights, _acted_on(trajectory), actions)

        def weighted(row: Array) -> ReturnEstimate:
            return estimate_returns(self.returns, values, log_rho, trajectory._replace(reward=row * trajectory.reward))

        steps = jnp.arange(len(trajectory.reward))
        return jax.tree.map(lambda x: x[steps, steps], jax.vmap(weighted)(reward_weights))

    def _network(self) -> hk.Transformed:
        def reward_weights(observation: PyTree, actions: Array) -> Array:
            features = hk.BatchApply(self.torso)(observation)
            num_steps, size = len(features), features.shape[-1]
            query = hk.Linear(size, w_init=jnp.zeros, name='query')(features)
            drift = hk.Linear(1, w_init=jnp.zeros, name='drift')(features)
            earned = hk.Linear(size, name='key')(jnp.concatenate([features, actions], -1))
            steps = jnp.arange(num_steps)
            distance = (steps - steps[:, None])[..., None]
            score = jnp.einsum('tbf,jbf->tjb', query, earned) / size**0.5 + distance * drift[:, None, :, 0]
            return 2 * jax.nn.sigmoid(score)

        return hk.without_apply_rng(hk.transform(reward_weights))


def _acted_on(trajectory: Trajectory) -> PyTree:
    """Observations that actions were chosen from, leaves `[T, B, ...]`."""
    return jax.tree.map(lambda x: x[:-1], trajectory.observation)
