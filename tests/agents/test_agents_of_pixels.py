"""Agents that see images of 8 bits, as Atari's do: methods, precision, and that bytes stay bytes up to the network."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import specs
from jax.extend.core import jaxprs_in_params

from agents.analysis.finite_differences import compare_with_finite_differences, recorded_lifetime
from agents.learner import Learner
from components.acting.rewards import Clipped
from components.environments.batch import Batch
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.gradient_estimators.exact import Reverse
from components.meta_optimisers.gradient_estimators.mixed_mode import Mixed
from components.meta_parameters.meta_parameters import MetaParameterSet, Weights
from components.networks.cores import LSTM
from components.networks.network import Network
from components.networks.torsos import Convolutional, Residual
from components.objectives.actor_critic import ActorCritic
from components.objectives.learned_returns import LearnedReturn
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient, update_rule
from tests.helpers.environments_for_tests import Frames

HEIGHT, WIDTH, STACK = 21, 20, 4
IMAGES = 2 * HEIGHT * WIDTH * STACK
"""Numbers in the images of one step."""
IMAGES_OF_A_TRAJECTORY = 4 * IMAGES
WEIGHTS = 'objective.returns.weights'
SHALLOW = Convolutional((3, 4), (8, 4), (4, 2), (8,), 'SAME', scale=1 / 255)
DEEP = Residual((2,), 1, (8,), scale=1 / 255)


def pixel_agent(torso=SHALLOW, network=None, **kwargs):
    """Two environments, three steps, rewards clipped; a learned discount through two updates unless said otherwise."""
    parts = {
        'environment': Batch(Frames(HEIGHT, WIDTH, STACK), 2),
        'network': network or Network(torso),
        'unroll_length': 3,
        'reward': Clipped(),
        'meta_optimiser': meta_gradient(num_inner_steps=2),
    }
    return make_agent(**{**parts, **kwargs})


def frodo(**kwargs):
    rule = update_rule()
    return pixel_agent(
        update_rule=UpdateRule(ActorCritic(LearnedReturn(core=LSTM(3))), rule.optimiser),
        meta_parameters=MetaParameterSet({WEIGHTS: Weights()}),
        **kwargs,
    )


METHODS = {
    'actor_critic': functools.partial(pixel_agent, meta_parameters=MetaParameterSet(), meta_optimiser=Fixed(2)),
    'meta_discount': functools.partial(pixel_agent, DEEP),
    'frodo': frodo,
}


@pytest.mark.parametrize('method', METHODS)
def test_every_method_trains_seeds_and_lifetimes(method):
    learner = Learner(METHODS[method](num_lifetimes=2), num_seeds=2)
    before = learner.get_variables(['params'])[0]
    learner.advance(3)
    weights = learner.state.agents.params
    assert all(leaf.shape[:2] == (2, 2) and np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights))
    moved = jax.tree.map(lambda x, y: np.abs(x[0, 0] - y).max(), jax.device_get(weights), before)
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.parametrize('method', ['meta_discount', 'frodo'])
def test_every_meta_gradient_is_right(method):
    learner = Learner(METHODS[method]())
    for comparison in compare_with_finite_differences(learner).values():
        assert comparison.autodiff != 0
        assert comparison.relative_error < 1e-4
    with jax.enable_x64(True):
        lifetime = recorded_lifetime(learner, jnp.float64)
        mixed, reverse = (
            jax.tree.leaves(
                jax.jit(functools.partial(lifetime.estimate, gradient_estimator=mode))(lifetime.meta_params).gradient
            )
            for mode in (Mixed(), Reverse())
        )
    for x, y in zip(mixed, reverse, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12 * np.abs(y).max())


@pytest.mark.parametrize('torso', [SHALLOW, pytest.param(DEEP, marks=pytest.mark.slow)], ids=['shallow', 'deep'])
def test_half_precision_leaves_states_and_meta_gradients_in_single_precision(torso):
    rows = {}
    for dtype in (None, 'bfloat16'):
        network = Network(type(torso)(**{**vars(torso), 'dtype': dtype}), core=LSTM(4), num_groups=2)
        learner = Learner(pixel_agent(network=network))
        learner._logger.write = functools.partial(rows.__setitem__, dtype)
        learner.advance(1)
        floats = {x.dtype for x in jax.tree.leaves(learner.state) if jnp.issubdtype(x.dtype, jnp.floating)}
        assert floats == {jnp.dtype(jnp.float32)}
        assert learner.state.agents.trajectory.observation.dtype == jnp.uint8
    names = [f'meta_gradient/{DISCOUNT}', 'outer_loss/total', 'loss/value']
    half, single = ([rows[dtype][name][0] for name in names] for dtype in ('bfloat16', None))
    np.testing.assert_allclose(half, single, rtol=0.3)
    assert half != single
    assert np.all(half)


# No array of numbers of more than 8 bits is as large as the images of a trajectory, but inside the network.


@dataclasses.dataclass(frozen=True)
class FloatFrames(Frames):
    """The same images, made into numbers by the environment."""

    def spec(self):
        spec = super().spec()
        return spec._replace(observations=specs.Array(spec.observations.shape, np.float32))

    def _image(self, state):
        return super()._image(state).astype(jnp.float32)


def equations(jaxpr, is_inside=False):
    """Equations of a program, those of programs within it included, and whether they are the network's."""
    for eqn in jaxpr.eqns:
        is_network = is_inside or 'network' in str(eqn.source_info.name_stack)
        yield eqn, is_network
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(getattr(inner, 'jaxpr', inner), is_network)


def large_float_arrays(learner, size):
    """Shapes of floating-point arrays of at least that size which equations outside of the network make."""
    return {
        var.aval.shape
        for eqn, is_network in equations(learner.trace().jaxpr.jaxpr)
        for var in eqn.outvars
        if not is_network
        and jnp.issubdtype(getattr(var.aval, 'dtype', bool), jnp.floating)
        and math.prod(var.aval.shape) >= size
    }


@pytest.mark.parametrize(
    ('method', 'num_groups', 'estimator'),
    [
        ('actor_critic', 1, None),
        ('meta_discount', 1, Mixed()),
        ('meta_discount', 2, Mixed(rematerialise=True)),
        ('frodo', 1, Mixed()),
    ],
)
def test_bytes_are_not_made_larger_outside_of_the_network(method, num_groups, estimator):
    parts = {'network': Network(DEEP if num_groups > 1 else SHALLOW, num_groups=num_groups)}
    if estimator:
        parts['meta_optimiser'] = meta_gradient(num_inner_steps=2, gradient_estimator=estimator)
    learner = Learner(METHODS[method](**parts))
    assert max(x.size for x in jax.tree.leaves(learner.state) if jnp.issubdtype(x.dtype, jnp.floating)) < IMAGES
    assert large_float_arrays(learner, IMAGES_OF_A_TRAJECTORY) == set()


def test_bytes_that_are_made_larger_outside_of_the_network_are_found():
    learner = Learner(METHODS['actor_critic'](environment=Batch(FloatFrames(HEIGHT, WIDTH, STACK), 2)))
    assert (4, 2, HEIGHT, WIDTH, STACK) in large_float_arrays(learner, IMAGES_OF_A_TRAJECTORY)
