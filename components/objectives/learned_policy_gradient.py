"""Learned policy gradient (LPG): a network computes the targets of policy and predictions."""

from typing import ClassVar, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import PyTree

from components.acting.action_distributions import Categorical
from components.acting.policies import Policy, Softmax
from components.axes import by_environment
from components.component import NonNegative, PositiveInt, component
from components.networks.cores import LSTM, Core
from components.networks.torsos import MLP, Torso
from components.objectives.base import Stateless, Unroll, weighted_or_zero
from components.objectives.returns import ends
from components.types import Array, Logs, Predictions, Trajectory


class LearnedTargets(NamedTuple):
    """What a `LearnedPolicyGradient` puts out.

    Attributes:
      policy: how far, and which way, to move the probability of each action taken, `[T, B]`.
      prediction: the distribution that each prediction moves towards, `[T, B, M]`.
      log_prediction: its logarithm.
    """

    policy: Array
    prediction: Array
    log_prediction: Array


@component
class LearnedPolicyGradient(Stateless):
    """Moves a policy and a vector of predictions to where a recurrent network, run backwards in time, says.

    The loss of a step, with the network's outputs pi_hat_t and y_hat_t held fixed, is

        - pi_hat_t log pi(a_t|s_t) + prediction_cost KL(y(s_t) || y_hat_t)

    Predictions y are distributions over `M` categories without a meaning but the one that the network gives them. It
    sees of each step reward, discount, pi(a_t|s_t), and an embedding of y(s_t) and of y(s_{t+1}), zero beyond the end
    of an episode.

    Its weights are one meta-parameter, `weights`, whose entry is `meta_parameters.Weights`. They depend neither on the
    observations nor on the number of actions: what was learned in one environment can be used in another.

    Args:
      core: recurrent network; `LSTM(64)` unless given.
      embedding: of a prediction `[M]`, before the single number that the core sees of it.
      prediction_size: `M`.
      prediction_cost: weight of the divergence.
      stop_inputs: whether policy and predictions that are shown stop the gradient: the meta-gradient over more than one
        inner step then leaves out how earlier updates move later targets through them.
      policy: what is moved.
      prediction_head: output that holds the predictions' logits, `[M]`.
      weights: of the network, once they are bound.

    Raises:
      ValueError: if `prediction_size` < 1.

    Source: Oh et al. (2020), section 3, as restated by Jackson et al. (2023), who stop the inputs' gradients. Their
      core has 256 units; `M` is 30 in the one and 8 in the other.
    """

    core: Core = LSTM(64)
    embedding: Torso = MLP((16,))
    prediction_size: PositiveInt = 8
    prediction_cost: NonNegative = 0.5
    stop_inputs: bool = False
    policy: Policy = Softmax()
    prediction_head: str = 'prediction'
    weights: PyTree = None
    is_on_policy: ClassVar[bool] = True

    def heads(self, spec: specs.EnvironmentSpec) -> dict[str, tuple[int, ...]]:
        return {**self.policy.heads(spec), self.prediction_head: (self.prediction_size,)}

    def init_weights(self, key: Array, spec: specs.EnvironmentSpec) -> PyTree:
        del spec
        one = jnp.zeros((1, 1))
        predictions = jnp.zeros((2, 1, self.prediction_size))
        return self._network().init(key, one, one, one, predictions, jnp.zeros((1, 1), bool))

    def targets(self, unroll: Unroll, state: tuple[()]) -> tuple[LearnedTargets, tuple[()]]:
        outputs, trajectory = unroll.outputs, unroll.trajectory
        predictions = jax.nn.softmax(outputs[self.prediction_head])
        probability = jnp.exp(self.policy(outputs, trajectory.first.shape)[:-1].log_prob(trajectory.action))
        if self.stop_inputs:
            probability, predictions = jax.lax.stop_gradient((probability, predictions))
        network = by_environment(self._network().apply, (None, 1, 1, 1, 1, 1), 1)
        policy, log_prediction = network(
            self.weights, trajectory.reward, trajectory.discount, probability, predictions, ends(trajectory)
        )
        return LearnedTargets(policy, jnp.exp(log_prediction), log_prediction), state

    def loss(self, predictions: Predictions, targets: LearnedTargets, trajectory: Trajectory) -> tuple[Array, Logs]:
        pi = self.policy(predictions, trajectory.reward.shape)
        policy = -pi.log_prob(trajectory.action) * targets.policy
        log_y = jax.nn.log_softmax(predictions[self.prediction_head])
        prediction = jnp.sum(jnp.exp(log_y) * (log_y - targets.log_prediction), -1)
        entropies = {
            'entropy': pi.entropy(),
            'prediction_entropy': Categorical(predictions[self.prediction_head]).entropy(),
        }
        loss = policy + weighted_or_zero(self.prediction_cost, prediction)
        return loss, {'policy': policy, 'prediction': prediction, **entropies}

    def _network(self) -> hk.Transformed:
        def forward(
            reward: Array, discount: Array, probability: Array, predictions: Array, is_end: Array
        ) -> tuple[Array, Array]:
            linear = hk.Linear(1, name='embedding')
            embedded = linear(hk.BatchApply(self.embedding)(predictions))[..., 0]
            x = jnp.stack([reward, discount, probability, embedded[:-1], discount * embedded[1:]], -1)
            core = hk.ResetCore(self.core())
            hidden, _ = hk.dynamic_unroll(core, (x, is_end), core.initial_state(is_end.shape[1]), reverse=True)
            policy = hk.Linear(1, name='policy')(hidden)[..., 0]
            return policy, jax.nn.log_softmax(hk.Linear(self.prediction_size, name='prediction')(hidden))

        return hk.without_apply_rng(hk.transform(forward))
