"""Models of behaviour fitted to blocks of recorded episodes, and a summary of the fits."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from agents.analysis.meta_rl.rescorla_wagner import MODELS, fit
from components.types import Array

Row = dict[str, Any]
EPISODES_OF_A_BLOCK = 10
"""As Wang et al. (2016) have it, section 3.1.4."""


def fits_of(arms: Array, rewards: Array, max_blocks: int = 10) -> list[Row]:
    """How well each of the four models tells what was pulled, in blocks of ten episodes.

    Args:
      arms: that were pulled. int `[N, T]`, of 2 arms.
      rewards: that they paid. `[N, T]`.
      max_blocks: how many are fitted at most, the first ones: each takes about a quarter of a second. Episodes beyond
        are left out.

    Returns:
      A row for each model: its mean `bic`, the share of blocks in which it is the `preferred` one, of the lowest BIC,
      and the median of its `learning_rate`. No row if there is no whole block.
    """
    num_blocks = min(max_blocks, len(arms) // EPISODES_OF_A_BLOCK)
    if num_blocks < 1:
        return []
    arms, rewards = (
        x[: num_blocks * EPISODES_OF_A_BLOCK].reshape(num_blocks, EPISODES_OF_A_BLOCK, -1) for x in (arms, rewards)
    )
    fits = {name: jax.device_get(fit(arms, rewards, model)) for name, model in MODELS.items()}
    preferred = np.argmin([found.bic for found in fits.values()], axis=0)
    return [
        {
            'model': name,
            'num_blocks': num_blocks,
            'bic': float(found.bic.mean()),
            'preferred': float((preferred == i).mean()),
            'learning_rate': float(np.median(found.parameters.learning_rate)),
        }
        for i, (name, found) in enumerate(fits.items())
    ]


def summary_of_fits(rows: Sequence[Row]) -> dict[str, float]:
    """The share of blocks in which each model is preferred, and the learning rate that the model without lapses
    finds.
    """
    shares = {f'{row["model"]} preferred': row['preferred'] for row in rows}
    rates = {row['model']: row['learning_rate'] for row in rows}
    return {**shares, 'learning rate of ab': rates['ab']}
