"""Recurrent cores. Each is a description that makes its haiku module inside a transform."""

import dataclasses
from typing import Protocol

import haiku as hk


class Core(Protocol):
    """Callable inside a haiku transform."""

    def __call__(self) -> hk.RNNCore:
        """Makes the module, which maps features `[B, F]` and a state to features and the next state."""
        ...


@dataclasses.dataclass(frozen=True)
class LSTM:
    """A long short-term memory.

    Args:
      hidden_size: units.
    """

    hidden_size: int = 64

    def __call__(self) -> hk.RNNCore:
        return hk.LSTM(self.hidden_size, name='lstm')


@dataclasses.dataclass(frozen=True)
class GRU:
    """A gated recurrent unit.

    Args:
      hidden_size: units.
    """

    hidden_size: int = 64

    def __call__(self) -> hk.RNNCore:
        return hk.GRU(self.hidden_size, name='gru')
