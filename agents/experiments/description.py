"""What a variant is, as data: its components and where their values come from, what it learns, its heads and
weights.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from acme import specs
from jaxtyping import PyTree

from agents.agent import Agent
from agents.experiments import gin_config, provenance
from agents.experiments.experiment import Experiment
from agents.experiments.provenance import Setting
from components.component_tree import children, learnable_paths
from components.meta_parameters.meta_parameters import MetaParameter
from components.objectives.base import merge_heads

LEARNED_FROM = 'agent.update_rule.'
"""What paths of meta-parameters begin with among the components."""


@dataclasses.dataclass(frozen=True)
class LearnedField:
    """A field of the update rule that is a meta-parameter.

    Attributes:
      size: how many numbers it is.
      initial_value: in the units of the field, to 6 digits; None if it is not one number, or was learned by another
        run. One draw if it starts at random.
      bijector: class of what keeps it in its bounds; None if it has none.
      low: lower bound, never reached; None for none.
      high: upper bound, likewise.
    """

    size: int
    initial_value: float | None
    bijector: str | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Head:
    """An output of the network.

    Attributes:
      shape: without leading axes; empty for a scalar.
      inner: terms of the inner objective that read it, by their paths from the agent.
      outer: the part of the meta-optimiser that reads it, likewise; the meta-optimiser itself, if its objective does
        not.
    """

    shape: tuple[int, ...]
    inner: tuple[str, ...]
    outer: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ParameterCounts:
    """Weights of the network of one agent: seeds and lifetimes have as many each.

    Attributes:
      total: of all modules.
      modules: by the names of haiku's modules.
    """

    total: int
    modules: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Description:
    """A variant.

    Attributes:
      components: the fields of its `Experiment`, each with its own as parts.
      meta_parameters: by their paths from the update rule.
      learnable: what else could be learned, by path from the update rule: its number, or `weights`.
      heads: by name.
      parameters: of the network.
      unused_bindings: those that have no effect, with what takes their place; a run with one does not start.
    """

    components: Mapping[str, Setting]
    meta_parameters: Mapping[str, LearnedField]
    learnable: Mapping[str, float | str]
    heads: Mapping[str, Head]
    parameters: ParameterCounts
    unused_bindings: Sequence[str]


def describe(gin_files: Sequence[str | os.PathLike], bindings: Sequence[str] = ()) -> Description:
    """Loads and builds a variant, and says what it is. Nothing is trained, and no weight is made.

    Args:
      gin_files: in the order in which they are read.
      bindings: lines read after them.

    Raises:
      ConfigurationError: if the variant cannot be read or built.
    """
    gin_config.load(gin_files, bindings)
    agent = gin_config.build(Experiment).agent
    return Description(
        components=provenance.settings(Experiment),
        meta_parameters=_learned_fields(agent),
        learnable=_learnable(agent),
        heads=_heads(agent),
        parameters=_parameter_counts(agent),
        unused_bindings=[str(binding) for binding in gin_config.unused_bindings(Experiment)],
    )


def by_path(settings: Mapping[str, Setting], prefix: str = '') -> dict[str, Setting]:
    """Settings and their parts by path, each before its parts: `agent.update_rule`, `agent.update_rule.objective`,
    ...
    """
    paths: dict[str, Setting] = {}
    for name, setting in settings.items():
        path = f'{prefix}{name}' if name.startswith('[') or not prefix else f'{prefix}.{name}'
        paths |= {path: setting, **by_path(setting.parts, path)}
    return paths


def differences(first: Description, second: Description) -> dict[str, tuple[Setting | None, Setting | None]]:
    """Settings whose values differ, by path, in the first variant and in the second; None where there is none."""
    left, right = by_path(first.components), by_path(second.components)
    pairs = {path: (left.get(path), right.get(path)) for path in [*left, *(path for path in right if path not in left)]}
    return {path: (a, b) for path, (a, b) in pairs.items() if a is None or b is None or a.value != b.value}


def _learned_fields(agent: Agent) -> dict[str, LearnedField]:
    meta_params = agent.meta_parameters.init(jax.random.key(0), agent.update_rule, agent.environment.spec())
    values = agent.meta_parameters.values(meta_params)
    fields = {path: _learned_field(entry, values[path]) for path, entry in agent.meta_parameters.parameters.items()}
    if agent.meta_parameters.learned:  # Read when the run starts.
        fields = {path: dataclasses.replace(field, initial_value=None) for path, field in fields.items()}
    return fields


def _learnable(agent: Agent) -> dict[str, float | str]:
    paths = learnable_paths(agent.update_rule)
    learned = agent.meta_parameters.parameters
    return {path: 'weights' if callable(x) else float(x) for path, x in paths.items() if path not in learned}


def _learned_field(entry: MetaParameter, value: PyTree) -> LearnedField:
    # As many digits as single precision keeps on the way through a bijector and back.
    leaves = jax.tree.leaves(value)
    is_scalar = len(leaves) == 1 and np.ndim(leaves[0]) == 0
    initial_value = float(f'{float(leaves[0]):.6g}') if is_scalar else None
    bijector = getattr(entry, 'bijector', None)
    name = None if bijector is None else type(bijector).__name__
    size = sum(leaf.size for leaf in leaves)
    return LearnedField(size, initial_value, name, getattr(bijector, 'low', None), getattr(bijector, 'high', None))


def _heads(agent: Agent) -> dict[str, Head]:
    spec = agent.environment.spec()
    inner = list(_readers(agent.update_rule.objective, spec, 'update_rule.objective'))
    outer = list(_readers(agent.meta_optimiser, spec, 'meta_optimiser'))
    shapes = merge_heads({'inner': agent.update_rule.objective.heads(spec), 'outer': agent.meta_optimiser.heads(spec)})
    return {
        name: Head(shape, *(tuple(path for path, head in readers if head == name) for readers in (inner, outer)))
        for name, shape in shapes.items()
    }


def _readers(component: object, spec: specs.EnvironmentSpec, path: str) -> Iterator[tuple[str, str]]:
    """Paths of components and the heads they read; one made of such components is named for what only itself reads."""
    own = dict(component.heads(spec)) if hasattr(component, 'heads') else {}
    for name, child in children(component).items():
        for reader, head in _readers(child, spec, f'{path}.{name}'):
            own.pop(head, None)
            yield reader, head
    yield from ((path, head) for head in own)


def _parameter_counts(agent: Agent) -> ParameterCounts:
    params = jax.eval_shape(agent.network_functions().init, jax.random.key(0))
    modules = {module: sum(leaf.size for leaf in jax.tree.leaves(arrays)) for module, arrays in params.items()}
    return ParameterCounts(sum(modules.values()), modules)
