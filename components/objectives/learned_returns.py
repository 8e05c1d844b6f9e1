"""Learned returns: value targets computed by a network (FRODO)."""

from collections.abc import Mapping, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import PyTree

from components.axes import by_environment
from components.component import component
from components.networks.cores import LSTM, Core
from components.networks.torsos import Torso
from components.objectives.returns import ReturnEstimate, ReturnEstimator, ends, estimate_returns
from components.types import Array, Trajectory

INPUTS = ('reward', 'discount', 'next_value', 'value', 'log_rho')
"""What a `LearnedReturn` can be shown of a step."""


@component
class LearnedReturn:
    """A return that a recurrent network computes backwards in time, learned online by meta-gradients (FRODO).

    At each step the network sees what of the transition `inputs` names, and what it remembers of all later ones, and
    puts out the target G_t. Memory ends where an episode does, and where the next transition is masked: no return
    reaches through a restart. The advantage is G_t - v_t, so that it serves prediction, value-based control and
    actor-critics alike.

    Its weights are one meta-parameter, `weights`, whose entry is `meta_parameters.Weights`.

    Args:
      inputs: any of `reward` (r_{t+1}), `discount` (the environment's own, gamma_{t+1}), `next_value` (gamma_{t+1}
        v_{t+1}), `value` (v_t), and `log_rho` (log importance ratio of a_t). All but the discount are shown as sign(x)
        log(1 + |x|).
      core: recurrent network; `LSTM(64)` unless given.
      torso: features of the observation that the transition led to, shown beside the inputs; None for none.
      base: a known return that the network's output is added to: `LambdaReturn` with discount 0 for the reward. None
        for none, where the output is the target.
      stop_value_inputs: whether values that are shown stop the gradient: the meta-gradient over more than one inner
        step then leaves out how earlier updates move later targets through them.
      weights: of the network, once they are bound.

    Raises:
      ValueError: if there is no input, or one of another name.

    Source: Xu et al. (2020), section 3: the architecture is a choice of this project, as the inputs' compression,
      `base` and `stop_value_inputs` are.
    """

    inputs: Sequence[str] = ('reward', 'discount', 'next_value')
    core: Core = LSTM(64)
    torso: Torso | None = None
    base: ReturnEstimator | None = None
    stop_value_inputs: bool = False
    weights: PyTree = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.inputs if name not in INPUTS]
        if unknown or not self.inputs:
            raise ValueError(
                f'LearnedReturn.inputs names {", ".join(unknown) or "nothing"}; there is {", ".join(INPUTS)}'
            )

    @property
    def is_on_policy(self) -> bool:
        return 'log_rho' not in self.inputs

    def init_weights(self, key: Array, spec: specs.EnvironmentSpec) -> PyTree:
        inputs = dict.fromkeys(INPUTS, jnp.zeros((1, 1)))
        return self._network().init(key, inputs, example_observation(spec), jnp.zeros((1, 1), bool))

    def __call__(self, values: Array, log_rho: Array, trajectory: Trajectory) -> ReturnEstimate:
        shown = jax.lax.stop_gradient(values) if self.stop_value_inputs else values
        inputs = {
            'reward': _compress(trajectory.reward),
            'discount': trajectory.discount,
            'next_value': _compress(trajectory.discount * shown[1:]),
            'value': _compress(shown[:-1]),
            'log_rho': _compress(log_rho),
        }
        next_observation = jax.tree.map(lambda x: x[1:], trajectory.observation)
        network = by_environment(self._network().apply, (None, 1, 1, 1), 1)
        target = network(self.weights, inputs, next_observation, ends(trajectory))
        if self.base is not None:
            target += estimate_returns(self.base, values, log_rho, trajectory).target
        return ReturnEstimate(target, target - values[:-1])

    def _network(self) -> hk.Transformed:
        def forward(inputs: Mapping[str, Array], observation: PyTree, is_end: Array) -> Array:
            x = jnp.stack([inputs[name] for name in self.inputs], -1)
            if self.torso is not None:
                x = jnp.concatenate([x, hk.BatchApply(self.torso)(observation)], -1)
            core = hk.ResetCore(self.core())
            hidden, _ = hk.dynamic_unroll(core, (x, is_end), core.initial_state(is_end.shape[1]), reverse=True)
            return hk.Linear(1, name='target')(hidden)[..., 0]

        return hk.without_apply_rng(hk.transform(forward))


def example_observation(spec: specs.EnvironmentSpec) -> PyTree:
    """Observations, leaves `[1, 1, ...]`, that a network can be initialised with."""
    return jax.tree.map(lambda s: jnp.zeros((1, 1, *s.shape), s.dtype), spec.observations)


def _compress(x: Array) -> Array:
    """sign(x) log(1 + |x|), whose derivative at 0 is 1; that of JAX's sign and abs there would make it 0."""
    sign = jnp.where(x < 0, -1.0, 1.0)
    return sign * jnp.log1p(sign * x)
