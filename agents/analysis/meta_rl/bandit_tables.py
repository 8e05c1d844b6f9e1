"""Dynamic programming for Bernoulli bandits whose arms have a prior Beta(1, 1) each: on the host, once for every
horizon.
"""

import functools
from typing import TypeVar

import numpy as np

from components.types import Array

Integer = TypeVar('Integer', int, np.ndarray, Array)


@functools.lru_cache(maxsize=8)
def gittins_indices(num_pulls: int) -> np.ndarray:
    """Indices after `time` pulls of all arms, of an arm's successes and failures: float32 `[time, successes,
    failures]`.

    For every pay on a grid, the best that can be had from an arm is computed from an episode's end backwards; the index
    is where pulling once more is worth as much as being paid for all pulls that are left, between two points of the
    grid.
    """
    pay = np.linspace(0, 1, 201)
    table = np.zeros((num_pulls,) * 3, np.float32)
    value = np.zeros((num_pulls + 1, num_pulls + 1, len(pay)))
    for time in reversed(range(num_pulls)):
        successes, failures = np.ogrid[: time + 1, : time + 1]
        mean = ((successes + 1) / (successes + failures + 2))[..., None]
        pulled = mean * (1 + value[1 : time + 2, : time + 1]) + (1 - mean) * value[: time + 1, 1 : time + 2]
        paid = pay * (num_pulls - time)
        value, gain = np.maximum(pulled, paid), pulled - paid
        below = np.sum(gain >= 0, axis=-1, keepdims=True) - 1
        lower, upper = (np.take_along_axis(gain, below + i, axis=-1) for i in (0, 1))
        table[time, : time + 1, : time + 1] = ((below + lower / (lower - upper)) * pay[1])[..., 0]
    return table


@functools.lru_cache(maxsize=4)
def optimal_preferences(num_pulls: int) -> tuple[np.ndarray, float]:
    """Which of two arms to pull, by all that may have been seen, and what an episode is then expected to pay.

    What was seen is written as sums (n, a, b, c) of successes and failures: n of all four numbers, a without arm 0's
    successes, b of arm 1, c its failures. `position(a, b, c)` numbers what may be seen in n pulls, the same for every
    n.

    Returns:
      int8 `[all that may be seen]`, at `layer_start(n) + position(a, b, c)`: 1 for arm 0, -1 for arm 1, 0 for either;
      and the expected sum of rewards.
    """
    a, b, c = np.ogrid[:num_pulls, :num_pulls, :num_pulls]
    a, b, c = np.nonzero((c <= b) & (b <= a))
    fails_0, pays_1, fails_1 = position(a + 1, b, c), position(a + 1, b + 1, c), position(a + 1, b + 1, c + 1)
    mean_1 = (b - c + 1) / (b + 2)
    table = np.zeros(layer_start(num_pulls), np.int8)
    value = np.zeros(position(num_pulls + 1, 0, 0))
    for n in reversed(range(num_pulls)):
        layer = slice(position(n + 1, 0, 0))
        mean_0 = (n - a[layer] + 1) / (n - b[layer] + 2)
        value_0 = mean_0 * (1 + value[layer]) + (1 - mean_0) * value[fails_0[layer]]
        value_1 = mean_1[layer] * (1 + value[pays_1[layer]]) + (1 - mean_1[layer]) * value[fails_1[layer]]
        difference = value_0 - value_1
        table[layer_start(n) : layer_start(n + 1)] = np.where(abs(difference) < 1e-9, 0, np.sign(difference))
        value = np.maximum(value_0, value_1)
    return table, float(value[0])


def position(a: Integer, b: Integer, c: Integer) -> Integer:
    """Number of (a, b, c) with a >= b >= c >= 0, in their order, counted from 0; of ints or arrays."""
    return a * (a + 1) * (a + 2) // 6 + b * (b + 1) // 2 + c


def layer_start(n: Integer) -> Integer:
    """How many (n', a, b, c) with n > n' >= a >= b >= c >= 0 there are; of ints or arrays."""
    return n * (n + 1) * (n + 2) * (n + 3) // 24
