"""Placement: among which devices seeds, lifetimes and environments are divided, and what lies where.

Whatever their number, draws, means and branches are those of the whole batch. Seeds do not know of each other, so each
device runs the program of its own. Lifetimes and environments share weights and means, which the compiler divides, but
for what `components.axes.by_environment` names.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from agents import processes
from agents.agent import Agent
from components.acting.actor import ActorState
from components.axes import ENVIRONMENTS
from components.component import PositiveInt, check_divides, component
from components.meta_optimisers.base import LearnerState
from components.meta_optimisers.outer_update import MetaOptState
from components.types import CompositionError, Trajectory

T = TypeVar('T')

SEEDS, LIFETIMES = 'seeds', 'lifetimes'


@component
class Placement:
    """Devices along each axis of a mesh.

    None takes of the devices that are left over as many as divide the axis: first for seeds, whose division costs no
    communication, then for lifetimes, then for environments. Environments outside of the program stay on one device
    unless `seeds` says otherwise.

    Args:
      seeds: among how many devices the `S` replicas are divided.
      lifetimes: among how many the `L` lifetimes of each replica are.
      environments: among how many the `B` environments of each lifetime are.
    """

    seeds: PositiveInt | None = None
    lifetimes: PositiveInt | None = None
    environments: PositiveInt | None = None

    def check(self, agent: Agent, num_replicas: int) -> None:
        """Raises CompositionError if an axis cannot be divided so, whatever devices there are."""
        for name, size in _sizes(agent, num_replicas).items():
            what = 'replicas (seeds of all variants)' if name == SEEDS else name
            check_divides(getattr(self, name) or 1, size, f'Placement.{name}', what)
        if not agent.environment.is_pure and processes.count() > 1:
            raise CompositionError(
                f'{type(agent.environment).__name__} cannot be trained in by {processes.count()} processes: its '
                'environments live outside of the program; give no --coordinator'
            )
        if not agent.environment.is_pure:
            for name in (LIFETIMES, ENVIRONMENTS):
                if (getattr(self, name) or 1) > 1:
                    raise CompositionError(
                        f'Placement.{name} ({getattr(self, name)}) must be 1 with {type(agent.environment).__name__}, '
                        'whose environments live outside of the program; seeds can be divided'
                    )

    def mesh(self, agent: Agent, num_replicas: int) -> 'DeviceMesh':
        """The mesh of these devices for a learner.

        Raises:
          CompositionError: if an axis cannot be divided so, or there are fewer devices.
        """
        self.check(agent, num_replicas)
        devices = jax.devices()
        shape = {name: getattr(self, name) or 1 for name in (SEEDS, LIFETIMES, ENVIRONMENTS)}
        if math.prod(shape.values()) > len(devices):
            asked = ' x '.join(f'{name} {size}' for name, size in shape.items())
            raise CompositionError(
                f'Placement asks for {math.prod(shape.values())} devices ({asked}), where there are {len(devices)}: '
                'give others by --devices, or make more of a CPU by --cpu_devices'
            )
        for name, size in _sizes(agent, num_replicas).items():
            if getattr(self, name) is None and agent.environment.is_pure:
                shape[name] = math.gcd(size, len(devices) // math.prod(shape.values()))
        if processes.count() > 1 and math.prod(shape.values()) < len(devices):
            placed = ', '.join(f'{name}={size}' for name, size in shape.items())
            raise CompositionError(
                f'Placement takes {math.prod(shape.values())} devices ({placed}) of the {len(devices)} that '
                f'{processes.count()} processes have, and must take all: give other --devices, or fewer processes'
            )
        used = np.array(devices[: math.prod(shape.values())]).reshape(tuple(shape.values()))
        return DeviceMesh(Mesh(used, tuple(shape), axis_types=(AxisType.Auto,) * len(shape)))


ONE_DEVICE = Placement(1, 1, 1)
"""Everything on the first one."""


class DeviceMesh:
    """Devices in a mesh `[seeds, lifetimes, environments]`; of one device, nothing that changes a program.

    Attributes:
      mesh: the devices.
      num_seeds: devices among which seeds are divided.
      by_seed: sharding of a leaf `[S, ...]`; None on one device.
      whole: sharding of what every device has all of; None on one device.
    """

    def __init__(self, mesh: Mesh):
        self.mesh, self.num_seeds = mesh, mesh.shape[SEEDS]
        self.by_seed = None if mesh.size == 1 else NamedSharding(mesh, PartitionSpec(SEEDS))
        self.whole = None if mesh.size == 1 else NamedSharding(mesh, PartitionSpec())
        self._gather: dict[Any, Callable[[PyTree], PyTree]] = {}

    def over_seeds(self, function: Callable[..., T], in_axes: Sequence[int | None]) -> Callable[..., T]:
        """A function of all seeds, called on each device with those that are its own.

        Args:
          function: of trees and to a tree with leaves `[S, ...]`.
          in_axes: 0 for each such argument, None for what all seeds share.
        """
        if self.by_seed is None:
            return function
        in_specs = tuple(PartitionSpec() if axis is None else PartitionSpec(SEEDS) for axis in in_axes)
        # Callbacks to the host are taken only where the compiler has nothing left to divide.
        manual = {SEEDS, *(name for name, size in self.mesh.shape.items() if size == 1)}
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=PartitionSpec(SEEDS),
            axis_names=manual,
            check_vma=False,
        )

    def shardings(self, make_state: Callable[[], LearnerState]) -> PyTree[NamedSharding] | None:
        """How each leaf of a learner's state is divided; None on one device.

        Args:
          make_state: returns the state; its shapes are asked for, nothing is computed.
        """
        if self.by_seed is None:
            return None
        state = jax.eval_shape(make_state)
        meta_opt_state = _along(state.meta_opt_state, SEEDS)
        if isinstance(state.meta_opt_state, MetaOptState):
            lifetime_state = _along(state.meta_opt_state.lifetime_state, SEEDS, LIFETIMES)
            meta_opt_state = meta_opt_state._replace(lifetime_state=lifetime_state)
        specs = LearnerState(_along(state.agents, SEEDS, LIFETIMES), _along(state.meta_params, SEEDS), meta_opt_state)
        return jax.tree.map(
            lambda spec: NamedSharding(self.mesh, spec), specs, is_leaf=lambda x: isinstance(x, PartitionSpec)
        )

    def to_host(self, tree: T) -> T:
        """All numbers of a tree, as NumPy arrays; keys, as keys of this process."""
        if processes.count() == 1:
            return jax.device_get(tree)
        structure = jax.tree.structure(tree)
        if structure not in self._gather:
            self._gather[structure] = processes.together(jax.jit(_numbers, out_shardings=self.whole))
        return jax.tree.map(_with_key, tree, jax.device_get(self._gather[structure](tree)))

    def place(self, tree: T, shardings: PyTree[NamedSharding] | None) -> T:
        """A tree that each process has all of, divided as `shardings` says; as it is on one device."""
        return tree if shardings is None else jax.tree.map(_place, tree, shardings)


def _numbers(tree: PyTree) -> PyTree:
    """A tree with the numbers behind random keys in their place."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if processes.is_key(x) else x, tree)


def _with_key(like: Any, x: Any) -> Any:
    """Undoes `_numbers` of a leaf."""
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if processes.is_key(like) else x


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    if processes.is_key(x):
        return _with_key(x, _place(np.asarray(jax.random.key_data(x)), sharding))
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def use_cpu_devices(number: int) -> None:
    """Makes JAX see the CPU as so many devices, and nothing else; before anything is computed."""
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', number)


def _sizes(agent: Agent, num_replicas: int) -> dict[str, int]:
    return {SEEDS: num_replicas, LIFETIMES: agent.num_lifetimes, ENVIRONMENTS: agent.environment.batch_size}


def _along(tree: PyTree, *leading: str) -> PyTree[PartitionSpec]:
    """How each leaf is divided, by these leading axes, and by environments where it is known which axis they are."""

    def of_node(node: object) -> PyTree[PartitionSpec]:
        if isinstance(node, ActorState):
            return _with_environments(node, leading, node.episode_return.ndim - 1)
        if isinstance(node, Trajectory):
            axis = node.reward.ndim - 1
            core_state = _with_environments(node.core_state, leading, axis - 1)
            return _with_environments(node._replace(core_state=()), leading, axis)._replace(core_state=core_state)
        return PartitionSpec(*leading)

    return jax.tree.map(of_node, tree, is_leaf=lambda x: isinstance(x, ActorState | Trajectory))


def _with_environments(tree: T, leading: Sequence[str], axis: int) -> T:
    """`leading` axes, and environments along the axis with that number of those leaves that have it."""
    names = (*leading, *[None] * (axis - len(leading)), ENVIRONMENTS)
    return jax.tree.map(lambda x: PartitionSpec(*names[: x.ndim]), tree)
