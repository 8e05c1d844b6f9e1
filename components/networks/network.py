"""An agent's network: torsos, cores and heads behind four pure functions."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import haiku as hk
import jax
import jax.numpy as jnp
from acme import specs
from jaxtyping import PyTree

from components.axes import by_environment
from components.component import PositiveInt, component
from components.networks.cores import Core
from components.networks.torsos import Torso
from components.types import Array, CoreState, Outputs, Params, Predictions, Trajectory

T = TypeVar('T')


class NetworkFunctions(NamedTuple):
    """A network as pure functions. The state is reset before an input that is the first of an episode.

    Attributes:
      init: `(key) -> params`.
      initial_state: `(batch_size) -> core_state`, leaves `[B, ...]`.
      step: `(params, observation [B, ...], first [B], core_state) -> outputs [B, ...], core_state`.
      unroll: `(params, observation [T, B, ...], first [T, B], core_state) -> outputs [T, B, ...]`.
    """

    init: Callable[[Array], Params]
    initial_state: Callable[[int], CoreState]
    step: Callable[[Params, PyTree, Array, CoreState], tuple[Outputs, CoreState]]
    unroll: Callable[[Params, PyTree, Array, CoreState], Outputs]

    def outputs(self, params: Params, trajectory: Trajectory) -> Outputs:
        """Outputs at each observation of a trajectory of `T` steps, `[T+1, B, ...]`."""
        return with_bootstrap(*self.predictions(params, trajectory))

    def predictions(self, params: Params, trajectory: Trajectory) -> tuple[Predictions, Predictions]:
        """Outputs at the `T` steps of a trajectory, and at the observation to bootstrap from.

        A feed-forward network passes through the last observation by itself: who differentiates predictions alone takes
        no reverse pass through it. A recurrent one is unrolled once.

        Returns:
          Outputs `[T, B, ...]`, and `[1, B, ...]`.
        """
        observation, first, core_state = trajectory.observation, trajectory.first, trajectory.core_state
        if jax.tree.leaves(core_state):
            return _split_last(self.unroll(params, observation, first, core_state))
        steps, last = _split_last((observation, first))
        return self.unroll(params, *steps, core_state), self.unroll(params, *last, core_state)


def with_bootstrap(predictions: Predictions, bootstrap: Predictions) -> Outputs:
    """Outputs at the steps `[T, B, ...]` and at the observation after them `[1, B, ...]`, as one `[T+1, B, ...]`."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), predictions, bootstrap)


def _split_last(tree: T) -> tuple[T, T]:
    return jax.tree.map(lambda x: x[:-1], tree), jax.tree.map(lambda x: x[-1:], tree)


@component
class Network:
    """A torso, an optional recurrent core, and one linear head for each output that the objectives ask for.

    Args:
      torso: from observation to features.
      core: recurrent core after the torso; None for a feed-forward network.
      shared: whether all heads read one torso and core. If not, each head has a torso and core of its own.
      head_torsos: torsos of their own for the heads named here, whose core is then their own too.
      head_bias: whether heads have one; a linear head without, on one-hot observations, is a table.
      num_groups: into how many groups of environments a sequence is split, to be passed through one after the other. A
        reverse pass then works on one group at a time and needs that much less memory, for one more forward pass.
      rematerialise_core: whether the reverse pass through a core keeps inputs and states alone, and recomputes what is
        inside of a step. None does so on CPU alone, where memory is what takes the time: it takes up to a third
        less. The numbers are the same.

    Raises:
      ValueError: if there is no group.
    """

    torso: Torso
    core: Core | None = None
    shared: bool = True
    head_torsos: Mapping[str, Torso] = dataclasses.field(default_factory=dict)
    head_bias: bool = True
    num_groups: PositiveInt = 1
    rematerialise_core: bool | None = None

    def functions(self, spec: specs.EnvironmentSpec, heads: Mapping[str, tuple[int, ...]]) -> NetworkFunctions:
        """Makes the network for an environment.

        Args:
          spec: of one environment.
          heads: shape of each output, without leading axes.

        Returns:
          Its pure functions.

        Raises:
          ValueError: if a torso cannot take the observations, or `head_torsos` names a head that no component reads.
        """
        unknown = set(self.head_torsos) - set(heads)
        if unknown:
            raise ValueError(
                f'Network.head_torsos names {", ".join(sorted(unknown))}; the objectives ask for the heads '
                f'{", ".join(sorted(heads))}'
            )
        network: hk.Transformed = hk.without_apply_rng(
            hk.transform(lambda *args, **kwargs: _Heads(self, heads)(*args, **kwargs))
        )
        states: hk.Transformed = hk.without_apply_rng(
            hk.transform(lambda batch_size: self._initial_state(heads, batch_size))
        )

        def init(key: Array) -> Params:
            observation = jax.tree.map(lambda s: jnp.zeros((1, *s.shape), s.dtype), spec.observations)
            return network.init(key, observation, jnp.ones(1, bool), initial_state(1), sequence=False)

        def initial_state(batch_size: int) -> CoreState:
            return states.apply({}, batch_size)

        def step(params: Params, observation: PyTree, first: Array, core_state: CoreState) -> tuple[Outputs, CoreState]:
            return network.apply(params, observation, first, core_state, sequence=False)

        def unroll(params: Params, observation: PyTree, first: Array, core_state: CoreState) -> Outputs:
            return network.apply(params, observation, first, core_state, sequence=True)[0]

        jax.eval_shape(init, jax.random.key(0))  # Says now what a torso cannot take.
        step = by_environment(step, (None, 0, 0, 0), (0, 0))
        unroll = by_environment(_in_groups(unroll, self.num_groups), (None, 1, 1, 0), 1)
        return NetworkFunctions(init, initial_state, step, unroll)

    def _streams(self, heads: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
        """Which stream (a torso and core) each head reads."""
        return {head: 'shared' if self.shared and head not in self.head_torsos else head for head in heads}

    def _initial_state(self, heads: Mapping[str, tuple[int, ...]], batch_size: int) -> CoreState:
        if self.core is None:
            return {}
        return {stream: self.core().initial_state(batch_size) for stream in set(self._streams(heads).values())}


def _in_groups(unroll: Callable[..., Outputs], num_groups: int) -> Callable[..., Outputs]:
    """`unroll` of one group of environments after the other; a reverse pass passes through a group again."""
    if num_groups == 1:
        return unroll

    def split(x: Array, axis: int) -> Array:
        num_parts = math.gcd(num_groups, x.shape[axis])  # A part of a batch may not be divided by as many.
        return jnp.moveaxis(x.reshape(*x.shape[:axis], num_parts, -1, *x.shape[axis + 1 :]), axis, 0)

    def unroll_groups(params: Params, observation: PyTree, first: Array, core_state: CoreState) -> Outputs:
        sequences = jax.tree.map(lambda x: split(x, 1), (observation, first))
        core_states = jax.tree.map(lambda x: split(x, 0), core_state)
        group = jax.checkpoint(lambda inputs: unroll(params, *inputs[0], inputs[1]))
        outputs = jax.lax.map(group, (sequences, core_states))
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:]), outputs)

    return unroll_groups


class _Heads(hk.Module):
    """The network as one haiku module, over one step or over a sequence."""

    def __init__(self, network: Network, heads: Mapping[str, tuple[int, ...]]):
        super().__init__(name='network')
        self._network, self._heads = network, heads

    def __call__(
        self, observation: PyTree, first: Array, core_state: CoreState, sequence: bool
    ) -> tuple[Outputs, CoreState]:
        streams = self._network._streams(self._heads)
        features, next_state = {}, {}
        for stream in dict.fromkeys(streams.values()):
            torso = self._network.head_torsos.get(stream, self._network.torso)
            module = _Stream(torso, self._network.core, self._network.rematerialise_core, stream)
            features[stream], state = module(observation, first, core_state.get(stream), sequence)
            if state is not None:
                next_state[stream] = state
        outputs = {}
        for head, shape in self._heads.items():
            x = features[streams[head]]
            x = hk.Linear(math.prod(shape), self._network.head_bias, name=f'{head}_head')(x)
            outputs[head] = x.reshape(*x.shape[:-1], *shape)
        return outputs, next_state


class _Stream(hk.Module):
    """A torso and its core."""

    def __init__(self, torso: Torso, core: Core | None, rematerialise_core: bool | None, name: str):
        super().__init__(name=name)
        self._torso, self._core = torso, core
        on_cpu = jax.default_backend() == 'cpu'
        self._rematerialise = on_cpu if rematerialise_core is None else rematerialise_core

    def __call__(
        self, observation: PyTree, first: Array, core_state: CoreState, sequence: bool
    ) -> tuple[Array, CoreState]:
        features = hk.BatchApply(self._torso)(observation) if sequence else self._torso(observation)
        if self._core is None:
            return features, None
        core = hk.ResetCore(self._core())
        if sequence:
            steps = hk.remat(core, prevent_cse=False) if self._rematerialise else core
            return hk.dynamic_unroll(steps, (features, first), core_state)
        return core((features, first), core_state)
