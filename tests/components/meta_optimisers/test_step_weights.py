import numpy as np
import pytest

from components.meta_optimisers.step_weights import Explicit, Geometric, Lambda, LastStep, Uniform
from tests.helpers.agents_for_tests import meta_gradient


@pytest.mark.parametrize(
    ('weights', 'expected'),
    [
        (LastStep(), [0, 0, 0, 1]),
        (Uniform(), [0.25, 0.25, 0.25, 0.25]),
        (Geometric(0.5), [8 / 15, 4 / 15, 2 / 15, 1 / 15]),
        (Geometric(0), [1, 0, 0, 0]),
        (Geometric(1), [0.25, 0.25, 0.25, 0.25]),
        (Lambda(0.5), [1 / 2, 1 / 4, 1 / 8, 1 / 8]),
        (Lambda(0), [1, 0, 0, 0]),
        (Lambda(1), [0, 0, 0, 1]),
        (Explicit((3, 0, 0, -1)), [3, 0, 0, -1]),
    ],
)
def test_weights_of_four_steps(weights, expected):
    np.testing.assert_allclose(weights(4), expected)


@pytest.mark.parametrize('weights', [LastStep(), Uniform(), Geometric(0.3), Lambda(0.3)])
@pytest.mark.parametrize('num_inner_steps', [1, 2, 7])
def test_mixtures_add_up_to_one(weights, num_inner_steps):
    assert weights(num_inner_steps).shape == (num_inner_steps,)
    assert weights(num_inner_steps).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Geometric(1.5), r'Geometric.decay must be in \[0, 1\], got 1.5'),
        (lambda: Lambda(-0.1), r'Lambda.lambda_ must be in \[0, 1\], got -0.1'),
        (lambda: Explicit((0, 0)), 'all zero'),
        (lambda: meta_gradient(num_inner_steps=3, step_weights=Explicit((1, 2))), '2 entries for 3 inner steps'),
    ],
)
def test_weights_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
