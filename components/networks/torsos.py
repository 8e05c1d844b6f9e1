"""Torsos: from an observation to a vector of features.

A torso is a description. Called inside a haiku transform it makes its modules; a user's own torso is any callable
(a frozen dataclass, say) that does the same.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree, Shaped

from components.component import PositiveInt, component
from components.environments.observations import entries_of
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
      as_patches: whether a convolution is computed as patches times a matrix. None does so on CPU alone, where weight
        gradients of convolutions inside a compiled loop are an order of magnitude slower. Same weights, same result.

    Raises:
      ValueError: if the first three differ in length; when called, if the observation is not `[N, H, W, C]`.
    """

    channels: Sequence[PositiveInt] = (32, 32)
    kernel_sizes: Sequence[PositiveInt] = (3, 3)
    strides: Sequence[PositiveInt] = (1, 1)
    hidden_sizes: Sequence[PositiveInt] = (64,)
    padding: Literal['SAME', 'VALID'] = 'SAME'
    as_patches: bool | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.channels), len(self.kernel_sizes), len(self.strides)}
        if len(lengths) != 1:
            raise ValueError(
                'Convolutional: channels, kernel_sizes and strides need one entry per layer, '
                f'got {self.channels}, {self.kernel_sizes} and {self.strides}'
            )

    def __call__(self, observation: PyTree) -> Array:
        x = as_floating_array(observation)
        if x.ndim != 4:
            raise ValueError(f'Convolutional takes observations [H, W, C], got shape {x.shape[1:]}')
        for i, (channels, size, stride) in enumerate(zip(self.channels, self.kernel_sizes, self.strides, strict=True)):
            convolution = Convolution2D(channels, size, stride, self.padding, self.as_patches, name=f'convolution_{i}')
            x = jax.nn.relu(convolution(x))
        return _linear_layers(x.reshape(x.shape[0], -1), self.hidden_sizes)


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


class Convolution2D(hk.Module):
    """A 2-D convolution over `[N, H, W, C]` with square kernels, in either of two forms.

    Args:
      output_channels: channels of the result.
      kernel_size: side of the kernel.
      stride: of the kernel, in both directions.
      padding: `SAME` or `VALID`.
      as_patches: see `Convolutional`.
      name: of the module.
    """

    def __init__(
        self,
        output_channels: int,
        kernel_size: int,
        stride: int,
        padding: str,
        as_patches: bool | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self._output_channels, self._size, self._stride = output_channels, kernel_size, stride
        self._padding = padding
        self._as_patches = jax.default_backend() == 'cpu' if as_patches is None else as_patches

    def __call__(self, x: Array) -> Array:
        """Convolves images `[N, H, W, C]` to `[N, H', W', output_channels]`.

        Raises:
          ValueError: if the kernel is larger than the padded image.
        """
        if self._padding == 'VALID' and min(x.shape[1:3]) < self._size:
            raise ValueError(f'a kernel of side {self._size} does not fit into an image of {x.shape[1:3]}')
        shape = (self._size, self._size, x.shape[-1], self._output_channels)
        stddev = (self._size * self._size * x.shape[-1]) ** -0.5  # As hk.Conv2D and hk.Linear have it.
        w = hk.get_parameter('w', shape, x.dtype, init=hk.initializers.TruncatedNormal(stddev))
        b = hk.get_parameter('b', shape[-1:], x.dtype, init=jnp.zeros)
        if self._as_patches:
            return self._patches(x) @ w.reshape(-1, shape[-1]) + b
        strides = (self._stride, self._stride)
        return (
            jax.lax.conv_general_dilated(x, w, strides, self._padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + b
        )

    def _patches(self, x: Array) -> Array:
        """What each output cell sees: `[N, H', W', size * size * C]`, in the order of the kernel's entries."""
        window, strides = (self._size, self._size), (self._stride, self._stride)
        padding = jax.lax.padtype_to_pads(x.shape[1:3], window, strides, self._padding)
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        height, width = ((n - self._size) // self._stride + 1 for n in x.shape[1:3])
        rows, columns = height * self._stride, width * self._stride
        offsets = [(i, j) for i in range(self._size) for j in range(self._size)]
        return jnp.concatenate(
            [x[:, i : i + rows : self._stride, j : j + columns : self._stride] for i, j in offsets], axis=-1
        )


def as_floating_array(observation: PyTree) -> Array:
    """The observation as one floating-point array.

    Raises:
      ValueError: if it is a structure of several arrays.
    """
    leaves = jax.tree.leaves(observation)
    if len(leaves) != 1:
        shapes = jax.tree.map(lambda leaf: leaf.shape[1:], observation)
        raise ValueError(f'the torso takes one array, but the observation is {shapes}; choose one in the environment')
    (x,) = leaves
    return x.astype(jnp.result_type(float))


def _linear_layers(x: Array, sizes: Sequence[int]) -> Array:
    for i, size in enumerate(sizes):
        x = jax.nn.relu(hk.Linear(size, name=f'linear_{i}')(x))
    return x
