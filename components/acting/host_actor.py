"""An acme actor on the host, with the policy of the compiled learner."""

import acme
import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from acme import core as acme_core
from jaxtyping import ArrayLike, PyTree

from components.acting.action_distributions import select_action
from components.acting.policies import Policy, Softmax
from components.networks.network import NetworkFunctions
from components.types import Array, CoreState, Params


class HostActor(acme_core.Actor):
    """An `acme.core.Actor` for any `dm_env.Environment`, for use in `acme.EnvironmentLoop`.

    actor.observe_first(timestep)
    repeat: actor.observe(actor.select_action(timestep.observation), timestep := environment.step(...)); actor.update()

    Args:
      network: with the heads that the policy reads.
      variable_source: where the weights come from, under the name `params`; a `Learner`, say.
      seed: of the actions.
      policy: what actions are drawn from.
      greedy: whether to take the most probable action instead of drawing one.
    """

    def __init__(
        self,
        network: NetworkFunctions,
        variable_source: acme.VariableSource,
        seed: int = 0,
        policy: Policy = Softmax(),
        greedy: bool = False,
    ):
        def select(
            params: Params, observation: PyTree, first: Array, core_state: CoreState, key: Array
        ) -> tuple[Array, CoreState, Array]:
            observation, first = jax.tree.map(lambda x: jnp.asarray(x)[None], (observation, first))
            outputs, core_state = network.step(params, observation, first, core_state)
            key, action_key = jax.random.split(key)
            return select_action(policy(outputs, (1,))[0], action_key, greedy), core_state, key

        self._select = jax.jit(select)
        self._variable_source = variable_source
        self._key = jax.random.key(seed)
        self._core_state = network.initial_state(1)
        self._first = True
        self.update()

    def observe_first(self, timestep: dm_env.TimeStep) -> None:
        self._first = True

    def select_action(self, observation: PyTree) -> np.ndarray:
        action, self._core_state, self._key = self._select(
            self._params, observation, self._first, self._core_state, self._key
        )
        self._first = False
        return jax.device_get(action)

    def observe(self, action: ArrayLike, next_timestep: dm_env.TimeStep) -> None:
        del action, next_timestep  # It records nothing.

    def update(self, wait: bool = False) -> None:
        (self._params,) = self._variable_source.get_variables(['params'])
