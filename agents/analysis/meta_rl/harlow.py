"""Performance in Harlow's task, by trial."""

from typing import Any

import numpy as np


def performance_by_trial(states: Any, num_trials: int) -> np.ndarray:
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
