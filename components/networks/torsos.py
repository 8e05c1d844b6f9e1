"""Torsos: from an observation to a vector of features.

A torso is a description. Called inside a haiku transform it makes its modules; a user's own torso is any callable
(a frozen dataclass, say) that does the same.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree, Shaped

from components.component import NonNegativeInt, Positive, PositiveInt, component
from components.environments.observations import entries_of
from components.networks.convolutions import Convolution2D, max_pool
from components.networks.precision import ComputeType, dtype_of, full_precision_weights
from components.types import Array


class Torso(Protocol):
    """Callable inside a haiku transform."""

    def __call__(self, observation: PyTree[Shaped[Array, 'N ...']]) -> Float[Array, 'N F']:
        """Maps observations to features.

        Raises:
          ValueError: if it cannot take observations of that structure or shape.
        """
        ...


@component
class MLP:
    """Flattens the observation, then linear layers with a ReLU after each.

    Args:
      hidden_sizes: units per layer.
    """

    hidden_sizes: Sequence[PositiveInt] = (64, 64)

    def __call__(self, observation: PyTree) -> Array:
        x = as_floating_array(observation)
        return _linear_layers(x.reshape(x.shape[0], -1), self.hidden_sizes)


@component
class Convolutional:
    """2-D convolutions with a ReLU after each, flattened, then linear layers with a ReLU after each.

    Args:
      channels: output channels of each convolution.
      kernel_sizes: their square kernels' sides, in cells or pixels.
      strides: their strides, likewise.
      hidden_sizes: units of each linear layer.
      padding: `SAME` or `VALID`.
      as_patches: whether a convolution is computed as patches times a matrix, that of a small image as the image times
        a matrix. None does so on CPU alone, where weight gradients of convolutions inside a compiled loop are an order
        of magnitude slower. Same weights, same result.
      scale: what observations are multiplied by, inside the network: 1 / 255 for pixels of 8 bits.
      dtype: what is computed with; weights and features stay in single precision. None for that.

    Raises:
      ValueError: if the first three differ in length; when called, if the observation is not `[N, H, W, C]`.
    """

    channels: Sequence[PositiveInt] = (32, 32)
    kernel_sizes: Sequence[PositiveInt] = (3, 3)
    strides: Sequence[PositiveInt] = (1, 1)
    hidden_sizes: Sequence[PositiveInt] = (64,)
    padding: Literal['SAME', 'VALID'] = 'SAME'
    as_patches: bool | None = None
    scale: Positive = 1.0
    dtype: ComputeType = None

    def __post_init__(self) -> None:
        lengths = {len(self.channels), len(self.kernel_sizes), len(self.strides)}
        if len(lengths) != 1:
            raise ValueError(
                'Convolutional: channels, kernel_sizes and strides need one entry per layer, '
                f'got {self.channels}, {self.kernel_sizes} and {self.strides}'
            )

    def __call__(self, observation: PyTree) -> Array:
        x = _image(observation, type(self).__name__, self.scale, self.dtype)
        layers = enumerate(zip(self.channels, self.kernel_sizes, self.strides, strict=True))
        with full_precision_weights():
            for i, (channels, size, stride) in layers:
                name = f'convolution_{i}'
                x = jax.nn.relu(Convolution2D(channels, size, stride, self.padding, self.as_patches, name=name)(x))
            x = _linear_layers(x.reshape(x.shape[0], -1), self.hidden_sizes)
        return x.astype(jnp.result_type(float))


@component
class Residual:
    """Sections of a convolution, a max-pooling that halves the image, and residual blocks; then linear layers.

    A block adds to its input two convolutions of it, with a ReLU before each. Kernels are 3 x 3; pooling is over 3 x 3
    with stride 2.

    Args:
      channels: of each section.
      num_blocks: of each section.
      hidden_sizes: units of each linear layer, which has a ReLU after it.
      as_patches: as for `Convolutional`. Patches are nine times as large as images: on CPU, `Network.num_groups` keeps
        a reverse pass from having those of all observations at once.
      scale: likewise.
      dtype: likewise.
      rematerialise: whether a reverse pass keeps what goes into a convolution with its pooling, and into a block, and
        recomputes the inside of each: less memory on every device, for one more forward pass. The numbers are the same.

    Raises:
      ValueError: if there is no section; when called, if the observation is not `[N, H, W, C]`.

    Source: Espeholt et al. (2018), figure 3, the deep network without its LSTM.
    """

    channels: Sequence[PositiveInt] = (16, 32, 32)
    num_blocks: NonNegativeInt = 2
    hidden_sizes: Sequence[PositiveInt] = (256,)
    as_patches: bool | None = None
    scale: Positive = 1.0
    dtype: ComputeType = None
    rematerialise: bool = False

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError('Residual.channels is empty')

    def __call__(self, observation: PyTree) -> Array:
        x = _image(observation, type(self).__name__, self.scale, self.dtype)
        with full_precision_weights():
            for part in self._parts():
                x = hk.remat(part)(x) if self.rematerialise else part(x)
            x = _linear_layers(jax.nn.relu(x).reshape(x.shape[0], -1), self.hidden_sizes)
        return x.astype(jnp.result_type(float))

    def _parts(self) -> Iterator[Callable[[Array], Array]]:
        """The convolution with its pooling, then the blocks, of each section."""
        for i, channels in enumerate(self.channels):
            convolution = self._convolution(channels, f'section_{i}')
            yield functools.partial(_pooled, convolution)
            for j in range(self.num_blocks):
                first, second = (self._convolution(channels, f'section_{i}_block_{j}_{k}') for k in range(2))
                yield functools.partial(_residual_block, first, second)

    def _convolution(self, channels: int, name: str) -> Convolution2D:
        return Convolution2D(channels, 3, 1, 'SAME', self.as_patches, name=name)


@component
class OneHot:
    """Integers as one-hot vectors side by side: of the number of a cell, say, which means nothing as a number.

    Args:
      num_values: the integers are in `[0, num_values)`; others are vectors of zeros.
    """

    num_values: PositiveInt

    def __call__(self, observation: PyTree) -> Array:
        (x,) = jax.tree.leaves(observation)
        one_hot = jax.nn.one_hot(x.astype(jnp.int32), self.num_values, dtype=jnp.result_type(float))
        return one_hot.reshape(x.shape[0], -1)


@component
class Concatenate:
    """Features of several entries of an observation side by side, in the order of the observation.

    Args:
      torsos: by the entry that each one sees, at any depth: `grid`, or `agent_position/row`. Any other array is
        flattened, and is its own features.

    Raises:
      ValueError: when called, if the observation is one array, or lacks an entry that has a torso.
    """

    torsos: Mapping[str, Torso] = dataclasses.field(default_factory=dict)

    def __call__(self, observation: PyTree) -> Array:
        entries = entries_of(observation)
        missing = sorted(set(self.torsos) - set(entries))
        if missing or not entries:
            raise ValueError(
                f'Concatenate.torsos are for {", ".join(missing) or "entries"}, which the observation lacks; it has '
                f'{", ".join(entries) or "no entries"}'
            )
        seen = [path for path in entries if path in self.torsos or not entries_of(entries[path])]
        # An entry within one that has a torso is seen by that one.
        seen = [path for path in seen if not any(path.startswith(f'{outer}/') for outer in self.torsos)]
        flat = MLP(())
        return jnp.concatenate([self.torsos.get(path, flat)(entries[path]) for path in seen], -1)


def as_floating_array(observation: PyTree, dtype: ComputeType = None) -> Array:
    """The observation as one floating-point array.

    Args:
      observation: one array, in whatever structure.
      dtype: of the result.

    Raises:
      ValueError: if it is a structure of several arrays.
    """
    leaves = jax.tree.leaves(observation)
    if len(leaves) != 1:
        shapes = jax.tree.map(lambda leaf: leaf.shape[1:], observation)
        raise ValueError(f'the torso takes one array, but the observation is {shapes}; choose one in the environment')
    (x,) = leaves
    return x.astype(dtype_of(dtype))


def _image(observation: PyTree, name: str, scale: float, dtype: ComputeType) -> Array:
    """The observation as an image times `scale`, `[N, H, W, C]`.

    Raises:
      ValueError: if it is of another rank; `name` says whose observation it is.
    """
    x = as_floating_array(observation, dtype)
    if x.ndim != 4:
        raise ValueError(f'{name} takes observations [H, W, C], got shape {x.shape[1:]}')
    return (x * scale).astype(x.dtype)


def _pooled(convolution: Convolution2D, x: Array) -> Array:
    return max_pool(convolution(x))


def _residual_block(first: Convolution2D, second: Convolution2D, x: Array) -> Array:
    return x + second(jax.nn.relu(first(jax.nn.relu(x))))


def _linear_layers(x: Array, sizes: Sequence[int]) -> Array:
    for i, size in enumerate(sizes):
        x = jax.nn.relu(hk.Linear(size, name=f'linear_{i}')(x))
    return x
