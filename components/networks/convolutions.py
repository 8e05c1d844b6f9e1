"""Convolution and pooling of images `[N, H, W, C]`, in forms that are fast inside a compiled loop on CPU."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from components.types import Array

MAX_KERNELS_OF_MATRIX = 4
"""Kernels that fill an image which is convolved by one matrix: it has at most as many times the entries of patches."""


class Convolution2D(hk.Module):
    """A 2-D convolution over `[N, H, W, C]` with square kernels, in one of three forms.

    As patches, an image that is at most four kernels large is multiplied by one matrix instead, made of the kernel:
    more products, but in one piece, and no patches are added up in a reverse pass.

    Args:
      output_channels: channels of the result.
      kernel_size: side of the kernel.
      stride: of the kernel, in both directions.
      padding: `SAME` or `VALID`.
      as_patches: see `torsos.Convolutional`.
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
        if self._as_patches and x.shape[1] * x.shape[2] <= MAX_KERNELS_OF_MATRIX * self._size**2:
            return self._by_matrix(x, w) + b
        if self._as_patches:
            return self._patches(x) @ w.reshape(-1, shape[-1]) + b
        strides = (self._stride, self._stride)
        return (
            jax.lax.conv_general_dilated(x, w, strides, self._padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')) + b
        )

    def _by_matrix(self, x: Array, w: Array) -> Array:
        """The image as one vector, times a matrix that holds the kernel at each of its places."""
        num_images, *sides, num_channels = x.shape
        places = _kernel_places((sides[0], sides[1]), self._size, self._stride, self._padding)
        num_entries, height, width = places.shape[0], *places.shape[2:]
        kernel = w.reshape(num_entries, num_channels, -1)
        matrix = jnp.einsum('kixy,kcd->icxyd', places.astype(w.dtype), kernel)
        image = x.reshape(num_images, -1) @ matrix.reshape(sides[0] * sides[1] * num_channels, -1)
        return image.reshape(num_images, height, width, -1)

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


def _kernel_places(sides: tuple[int, int], size: int, stride: int, padding: str) -> np.ndarray:
    """Whether an entry of the kernel meets a pixel where the result is a cell, `[size * size, H * W, H', W']`."""

    def along(length: int, pads: tuple[int, int]) -> np.ndarray:
        """The same along one side, `[size, length, length']`."""
        num_cells = (length + sum(pads) - size) // stride + 1
        first = np.arange(num_cells) * stride - pads[0]
        return np.arange(length)[:, None] == first + np.arange(size)[:, None, None]

    pads = jax.lax.padtype_to_pads(sides, (size, size), (stride, stride), padding)
    rows, columns = (along(length, pad) for length, pad in zip(sides, pads, strict=True))
    places = np.einsum('ahx,bwy->abhwxy', rows, columns)
    return places.reshape(size * size, sides[0] * sides[1], *places.shape[4:])


def max_pool(x: Array, size: int = 3, stride: int = 2) -> Array:
    """Greatest entries of square windows, padded by `SAME`: from `[N, H, W, C]` to `[N, H', W', C]`, where `H'` is
    `ceil(H / stride)`.

    It is taken along rows and then along columns, as maxima of shifted images: on CPU several times faster than a
    windowed reduction. A reverse pass computes it again. Entries that tie share the gradient.
    """
    return jax.checkpoint(lambda x: _max_along(_max_along(x, 1, size, stride), 2, size, stride))(x)


def _max_along(x: Array, axis: int, size: int, stride: int) -> Array:
    (padding,) = jax.lax.padtype_to_pads(x.shape[axis : axis + 1], (size,), (stride,), 'SAME')
    widths = [padding if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, widths, constant_values=-jnp.inf)
    length = -(-x.shape[axis] // stride)
    end = (length - 1) * stride + 1
    shifted = [jax.lax.slice_in_dim(padded, i, i + end, stride, axis) for i in range(size)]
    return functools.reduce(jnp.maximum, shifted)
