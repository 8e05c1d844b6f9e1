"""What environments that are seen as images have in common: the size of a view, its spec, and how episodes are drawn.

Views are float32 in [0, 1], not bytes: torsos take an observation as it is, and one of 0 to 255 would be 255 times too
large.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from acme import specs
from jaxtyping import PyTree

from components.environments.base import Animator
from components.types import Array

SIZE = 84
"""Rows, and columns, of a view in pixels."""


def view_spec() -> specs.BoundedArray:
    """Spec of a view, `[SIZE, SIZE, 3]`: rows from the top, columns from the left, then red, green and blue."""
    return specs.BoundedArray((SIZE, SIZE, 3), np.float32, 0.0, 1.0, 'view')


def view_animator(view: Callable[[PyTree], Array]) -> Animator:
    """What draws episodes as what is seen in them.

    Args:
      view: of a state, as `view_spec` has it.
    """
    from PIL import Image  # Imported here: only drawing needs it.

    view = jax.jit(view)

    def draw(state: PyTree) -> Image.Image:
        pixels = np.rint(255 * np.asarray(view(state))).astype(np.uint8)
        return Image.fromarray(pixels).resize((4 * SIZE, 4 * SIZE), Image.Resampling.NEAREST)

    def animate(states: Sequence[PyTree], path: str | os.PathLike) -> None:
        save_gif(map(draw, states), path, milliseconds=70)

    return animate


def save_gif(images: Iterable[Any], path: str | os.PathLike, milliseconds: int) -> None:
    """Writes an animated GIF.

    Args:
      images: of PIL, at least one.
      path: of the file.
      milliseconds: that each is shown.
    """
    first, *others = images
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
