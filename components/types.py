"""Values that travel between components, and the letters that name their axes.

Arrays are time-major. `S` seeds (independent replicas of everything), `L` lifetimes (agents that share one set of
meta-parameters), `K` inner steps, `T` time, `B` environments, `A` actions.

`dm_env.TimeStep` is used as a pytree with leaves `[B, ...]`: its reward and discount belong to the transition that led
to it, so both are arrays also where an episode starts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
Params = Any  # The agent's weights (theta): a pytree.
MetaParams = Mapping[str, Any]  # Unconstrained values behind the paths (eta).
FieldValues = Mapping[str, Any]  # What is bound to fields of an update rule, by path, in their units.
OptState = Any
CoreState = Any  # Recurrent state of a network, leaves [B, ...]; empty for a feed-forward network.
ObjectiveState = Any  # Whatever an objective's `init` returns: a pytree, empty for most.
Targets = Any  # Whatever an objective's `targets` returns, leaves [T, B, ...].
Outputs = Mapping[str, Array]  # Head name -> [T+1, B, *head].
Logs = dict[str, Array]  # Parts of a loss, by name.


class Trajectory(NamedTuple):
    """What an actor saw and did during `T` steps in `B` environments.

    Attributes:
      observation: what the action was chosen from; the last entry is what to bootstrap from. `[T+1, B, ...]`.
      first: whether the observation is the first of an episode, where recurrent state is reset. Bool `[T+1, B]`.
      action: `[T, B]`, int32.
      reward: reward of the transition that the action started. `[T, B]`.
      discount: the environment's own: 0 at termination, 1 elsewhere (truncation included). `[T, B]`.
      mask: 0 where the transition is none (an environment restarting after a truncation), else 1. `[T, B]`.
      behaviour_policy: the `ActionDistribution` that the action was drawn from, leaves `[T, B, ...]`.
      core_state: recurrent state before the first observation, leaves `[B, ...]`.
    """

    observation: Any
    first: Array
    action: Array
    reward: Array
    discount: Array
    mask: Array
    behaviour_policy: Any
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
    """

    num_steps: Array
    num_episodes: Array
    return_sum: Array
    length_sum: Array


class Metrics(NamedTuple):
    """What one step of a loop reports.

    Attributes:
      logs: scalars by their `metrics.Name`, to be averaged over steps.
      episodes: of training, to be added up over steps.
      num_validation_steps: environment steps of fresh validation trajectories, int32; added up likewise.
    """

    logs: dict[Any, Array]
    episodes: EpisodeTotals
    num_validation_steps: Array


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
