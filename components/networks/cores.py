"""Recurrent cores. Each is a description that makes its haiku module inside a transform."""

from collections.abc import Sequence
from typing import Protocol

import haiku as hk

from components.component import PositiveInt, component


class Core(Protocol):
    """Callable inside a haiku transform."""

    def __call__(self) -> hk.RNNCore:
        """Makes the module, which maps features `[B, F]` and a state to features and the next state."""
        ...


@component
class LSTM:
    """A long short-term memory.

    Args:
      hidden_size: units.
    """

    hidden_size: PositiveInt = 64

    def __call__(self) -> hk.RNNCore:
        return hk.LSTM(self.hidden_size, name='lstm')


@component
class StackedLSTM:
    """Several long short-term memories, each of which also sees the features, and all of which are seen.

    Args:
      hidden_sizes: units of each, from the first on.

    Raises:
      ValueError: if there is none.

    Source: Wang et al. (2016), section 3.2.2, and Mirowski et al. (2017), whose second layer sees previous action and
      reward beside the first one's output; here it sees all features.
    """

    hidden_sizes: Sequence[PositiveInt] = (64, 256)

    def __post_init__(self) -> None:
        if not self.hidden_sizes:
            raise ValueError('StackedLSTM.hidden_sizes is empty')

    def __call__(self) -> hk.RNNCore:
        cores = [hk.LSTM(size, name=f'lstm_{i}') for i, size in enumerate(self.hidden_sizes)]
        return hk.deep_rnn_with_skip_connections(cores)


@component
class GRU:
    """A gated recurrent unit.

    Args:
      hidden_size: units.
    """

    hidden_size: PositiveInt = 64

    def __call__(self) -> hk.RNNCore:
        return hk.GRU(self.hidden_size, name='gru')
