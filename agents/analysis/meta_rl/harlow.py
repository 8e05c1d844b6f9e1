"""Performance in Harlow's task, by trial."""

import numpy as np

from components.environments.harlow.pixels import HarlowState
from components.environments.harlow.ring import RingHarlowState
from components.environments.harlow.symbolic import SymbolicHarlowState


def performance_by_trial(states: HarlowState | RingHarlowState | SymbolicHarlowState, num_trials: int) -> np.ndarray:
    """How often selections were correct, for each trial.

    Args:
      states: of any of the forms, after steps of the environment itself; leaves `[...]`, all of one shape.
      num_trials: of an episode.

    Returns:
      Share of the selections in trials 0 to `num_trials - 1` that were correct; NaN where there was none.
      `[num_trials]`.
    """
    selected, correct = np.asarray(states.selected), np.asarray(states.correct)
    trials = np.asarray(states.trial)[selected] - 1
    selections = np.bincount(trials, minlength=num_trials)
    return np.divide(
        np.bincount(trials, correct[selected], minlength=num_trials),
        selections,
        out=np.full(num_trials, np.nan),
        where=selections > 0,
    )
