"""Values that travel between components, and the letters that name their axes.

Arrays are time-major. `S` seeds (independent replicas of everything), `L` lifetimes (agents that share one set of
meta-parameters), `K` inner steps, `T` time, `B` environments, `A` actions. Annotations are jaxtyping's: `Float[Array,
'T B']` is an array of floating-point numbers over time and environments, `Shaped` one of any numbers, and `PyTree` any
nest of tuples, lists, mappings and dataclasses with arrays as its leaves. `shapes.checked` holds calls to them.

`dm_env.TimeStep` is used as a pytree with leaves `[B, ...]`: its reward and discount belong to the transition that led
to it, so both are arrays also where an episode starts.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

Params: TypeAlias = PyTree  # The agent's weights (theta).
MetaParams: TypeAlias = Mapping[str, PyTree]  # Unconstrained values behind the paths (eta).
FieldValues: TypeAlias = Mapping[str, PyTree]  # What is bound to fields of an update rule, by path, in their units.
OptState: TypeAlias = PyTree
CoreState: TypeAlias = PyTree[Shaped[Array, 'B ...']]  # Recurrent state of a network; empty for a feed-forward network.
ObjectiveState: TypeAlias = PyTree  # What an objective's `init` returns; empty for most.
Targets: TypeAlias = PyTree[Shaped[Array, 'T B ...']]  # What an objective's `targets` returns.
Outputs: TypeAlias = Mapping[str, Float[Array, 'T+1 B ...']]  # By the name of the head, [T+1, B, *head].
Predictions: TypeAlias = Mapping[str, Float[Array, 'T B ...']]  # Outputs without the bootstrap row, [T, B, *head].
Logs: TypeAlias = dict[str, Float[Array, 'T B']]  # Parts of a loss, by name.
Scalar: TypeAlias = Float[Array, '']


class Trajectory(NamedTuple):
    """What an actor saw and did during `T` steps in `B` environments.

    Attributes:
      observation: what the action was chosen from; the last entry is what to bootstrap from. `[T+1, B, ...]`.
      first: whether the observation is the first of an episode, where recurrent state is reset. Bool `[T+1, B]`.
      action: as the environment takes them, `[T, B, ...]`; int32 `[T, B]` where they are discrete.
      reward: reward of the transition that the action started, as the agent's `RewardTransform` makes it. `[T, B]`.
      discount: the environment's own: 0 at termination, 1 elsewhere (truncation included). `[T, B]`.
      mask: 0 where the transition is none (an environment restarting after a truncation), else 1. `[T, B]`.
      behaviour_policy: the `ActionDistribution` that the action was drawn from, leaves `[T, B, ...]`.
      core_state: recurrent state before the first observation, leaves `[B, ...]`.
    """

    observation: PyTree[Shaped[Array, 'T+1 B ...']]
    first: Bool[Array, 'T+1 B']
    action: Shaped[Array, 'T B ...']
    reward: Float[Array, 'T B']
    discount: Float[Array, 'T B']
    mask: Float[Array, 'T B']
    behaviour_policy: PyTree[Shaped[Array, 'T B ...']]
    core_state: CoreState


class LearningState(NamedTuple):
    """What an update changes in an agent that learns.

    Attributes:
      params: its weights (theta).
      opt_state: of the inner optimiser.
      objective_state: of the inner objective; empty for most.
    """

    params: Params
    opt_state: OptState
    objective_state: ObjectiveState = ()


class EpisodeTotals(NamedTuple):
    """Sums over the episodes that ended during an unroll; divide by `num_episodes` for means.

    Attributes:
      num_steps: environment steps taken, transitions with mask 0 left out. int32 scalar; of a meta-step fewer than
        2^31.
      num_episodes: episodes that ended. int32 scalar.
      return_sum: undiscounted returns of those episodes, added up. Scalar.
      length_sum: their lengths in environment steps, added up. int32 scalar.
      transformed_return_sum: as `return_sum`, of the rewards that are learned from. Scalar.
    """

    num_steps: Int[Array, '']
    num_episodes: Int[Array, '']
    return_sum: Scalar
    length_sum: Int[Array, '']
    transformed_return_sum: Scalar


class UserError(Exception):
    """What a user can mend: the message is one line that names the thing and the way out."""

    exit_status = 2


class ConfigurationError(UserError, ValueError):
    """A configuration cannot be read or built; the message names the file or the field, its value and the way out."""


class CompositionError(UserError, ValueError):
    """The parts of an agent do not fit together; the message says which, and what would."""


class FieldError(CompositionError):
    """A field, or an argument, has a value that it does not take."""


class EnvironmentFailedError(UserError, RuntimeError):
    """An environment on the host has raised an error or broken its specs; the message says which, and when."""


class DivergedError(UserError, ArithmeticError):
    """Training has produced something that is not a number, or infinite; the message says what and when."""

    exit_status = 3
