"""The check of shapes and types at borders: what it refuses, and that every implementation keeps to its protocol."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float, Int, PyTree

from components.acting.action_distributions import ActionDistribution, Categorical
from components.acting.policies import EpsilonMixture, FixedPolicy, Greedy, Policy, Softmax
from components.component_tree import HasWeights, replace_at
from components.meta_optimisers import step_weights
from components.meta_parameters import bijectors
from components.networks.torsos import MLP, Concatenate, Convolutional, OneHot, Residual, Torso
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Objective, Sum, Unroll, loss_and_parts, targets_and_state
from components.objectives.entropy_bonus import EntropyBonus
from components.objectives.learned_policy_gradient import LearnedPolicyGradient
from components.objectives.learned_returns import LearnedReturn
from components.objectives.learned_rewards import IntrinsicReward, PotentialShaping, RewardWeightedReturn
from components.objectives.moving_averages import MovingAverage
from components.objectives.returns import LambdaReturn, LeakyVTrace, estimate_returns
from components.objectives.value_regression import ActionValueRegression, ValueRegression
from components.shapes import checked
from components.types import CompositionError
from tests.helpers.trajectories_for_tests import BATCH_SIZE, NUM_STEPS, SPEC, make_data, without_last

VALUES, LOG_RHO, TRAJECTORY = jax.tree.map(jnp.asarray, make_data())
KEY = jax.random.key(0)


class Pair(NamedTuple):
    long: Float[Array, ' N+1']
    short: Int[Array, ' N']


class Example(Protocol):
    def read(
        self, pair: Pair, named: Mapping[str, Float[Array, 'N M']], nest: PyTree[Bool[Array, ' M']]
    ) -> tuple[Float[Array, ' N'], dict[str, Array]]: ...


class Echo:
    """Returns what it is told to."""

    def __init__(self, result):
        self._result = result

    def read(self, pair, named, nest):
        return self._result


def read(pair=None, named=None, nest=None, result=None):
    pair = Pair(jnp.zeros(4), jnp.zeros(3, int)) if pair is None else pair
    named = {'x': jnp.zeros((3, 2))} if named is None else named
    nest = {'a': [jnp.zeros(2, bool)]} if nest is None else nest
    return checked(Example.read)(Echo((jnp.zeros(3), {}) if result is None else result), pair, named, nest)


def test_what_fits_is_passed_on():
    np.testing.assert_array_equal(read()[0], np.zeros(3))


@pytest.mark.parametrize('make', [np.zeros, jnp.zeros])
def test_numpy_arrays_are_arrays(make):
    read(pair=Pair(make(4), make(3, int)))


def test_axis_can_be_named_by_a_sum_before_it_is_named_by_itself():
    with pytest.raises(
        CompositionError, match=r'pair.long is float32\[3\], where Float\[N\+1\] is expected with N = 3'
    ):
        read(pair=Pair(jnp.zeros(3), jnp.zeros(3, int)))


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'pair': Pair(jnp.zeros(4), jnp.zeros(3))}, r'Echo.read: pair.short is float32\[3\], where Int\[N\]'),
        ({'pair': Pair(jnp.zeros(4), None)}, r'Echo.read: pair.short is None, where Int\[N\]'),
        ({'named': {'x': jnp.zeros((3, 2)), 'y': jnp.zeros((3, 3))}}, r"named\['y'\] is float32\[3, 3\].* M = 2"),
        ({'named': {'x': jnp.zeros((3, 2, 1))}}, r"named\['x'\] is float32\[3, 2, 1\]"),
        ({'nest': {'a': [jnp.zeros(2, bool), jnp.zeros(3, bool)]}}, r"nest\['a'\]\[1\] is bool\[3\]"),
        ({'nest': (1.0,)}, r'nest\[0\] is 1.0, where Bool\[M\]'),
        (
            {'result': (jnp.zeros(2), {})},
            r'what it returns\[0\] is float32\[2\], where Float\[N\] is expected with N = 3',
        ),
        ({'result': (jnp.zeros((3, 1)), {})}, r'what it returns\[0\] is float32\[3, 1\]'),
        ({'result': jnp.zeros(3)}, r'what it returns is float32\[3\], where a tuple of 2 is expected'),
        ({'result': (jnp.zeros(3),)}, r'what it returns is a tuple, where a tuple of 2 is expected'),
        ({'result': (jnp.zeros(3), None)}, r'what it returns\[1\] is None, where a dictionary is expected'),
        ({'named': [jnp.zeros((3, 2))]}, r'named is a list, where a dictionary is expected'),
        ({'pair': 1.0}, r'pair is 1.0, where a Pair is expected'),
    ],
)
def test_what_does_not_fit_is_named(wrong, message):
    with pytest.raises(CompositionError, match=message):
        read(**wrong)


def test_lengths_of_one_call_do_not_bind_another():
    read()
    read(Pair(jnp.zeros(6), jnp.zeros(5, int)), {'x': jnp.zeros((5, 2))}, result=(jnp.zeros(5), {}))


class Shifted(ActorCritic):
    """Leaves out the last row, as if predictions had one more than there are rewards."""

    def loss(self, predictions, targets, trajectory):
        return jnp.square(predictions['value'][:-1]), {}


class MeanOfBatch(ActorCritic):
    """Takes a mean too early; the sum of losses would broadcast it."""

    def loss(self, predictions, targets, trajectory):
        loss, parts = super().loss(predictions, targets, trajectory)
        return loss.mean(1), parts


def unroll(**heads):
    shapes = {'value': (), 'outer_value': (), 'logits': (3,), 'action_value': (3,), 'prediction': (8,), **heads}
    keys = jax.random.split(KEY, len(shapes))
    leading = NUM_STEPS + 1, BATCH_SIZE
    outputs = {name: jax.random.normal(key, leading + shapes[name]) for name, key in zip(shapes, keys, strict=True)}
    return Unroll(outputs, TRAJECTORY, None, None)


@pytest.mark.parametrize(
    ('objective', 'message'),
    [
        (Shifted(LambdaReturn()), r'Shifted.loss: what it returns\[0\] is float32\[5, 3\], where Float\[T B\]'),
        (MeanOfBatch(LambdaReturn()), r'MeanOfBatch.loss: what it returns\[0\] is float32\[6\]'),
        (Sum({'a': ActorCritic(LambdaReturn()), 'b': MeanOfBatch(LambdaReturn())}), r'MeanOfBatch.loss: what it'),
        (MovingAverage(MeanOfBatch(LambdaReturn())), r'MeanOfBatch.loss: what it'),
    ],
)
def test_objective_with_a_loss_of_another_shape_is_refused(objective, message):
    seen = unroll()
    targets, _ = targets_and_state(objective, seen, objective.init(None))
    with pytest.raises(CompositionError, match=message):
        loss_and_parts(objective, without_last(seen.outputs), targets, TRAJECTORY)


def test_returns_without_a_value_of_the_last_observation_are_refused():
    with pytest.raises(CompositionError, match=r'LambdaReturn: values is float32\[6, 3\], where Float\[T\+1 B\]'):
        estimate_returns(LambdaReturn(), VALUES[:-1], LOG_RHO, TRAJECTORY)


def initialised(component):
    """The component with weights wherever it has a network."""
    for path, part in {'returns': getattr(component, 'returns', None), '': component}.items():
        if isinstance(part, HasWeights):
            component = replace_at(component, f'{path}.weights'.lstrip('.'), part.init_weights(KEY, SPEC))
    return component


@pytest.mark.parametrize(
    'returns',
    [
        LambdaReturn(),
        LeakyVTrace(),
        LearnedReturn(),
        LearnedReturn(torso=MLP((4,)), base=LambdaReturn()),
        IntrinsicReward(LambdaReturn(), MLP((4,))),
        PotentialShaping(LeakyVTrace(), MLP((4,))),
        RewardWeightedReturn(LambdaReturn(), MLP((4,))),
    ],
)
def test_returns_keep_to_their_protocol(returns):
    estimate = estimate_returns(initialised(returns), VALUES, LOG_RHO, TRAJECTORY)
    assert np.isfinite(estimate.target).all()


@pytest.mark.parametrize(
    'objective',
    [
        ActorCritic(LambdaReturn()),
        ValueRegression(LeakyVTrace()),
        ActionValueRegression(LambdaReturn()),
        EntropyBonus('prediction', 8),
        LearnedPolicyGradient(),
        MovingAverage(ActorCritic(LambdaReturn())),
        Sum({'a': ActorCritic(LambdaReturn()), 'b': ValueRegression(LambdaReturn())}),
    ],
)
def test_objectives_keep_to_their_protocol(objective):
    objective, seen = initialised(objective), unroll()
    targets, _ = checked(Objective.targets)(objective, seen, checked(Objective.init)(objective, None))
    loss, parts = checked(Objective.loss)(objective, without_last(seen.outputs), targets, TRAJECTORY)
    assert all(np.isfinite(x).all() for x in (loss, *parts.values()))


@pytest.mark.parametrize('policy', [Softmax(), Greedy(), EpsilonMixture(Softmax()), FixedPolicy((0.5, 0.25, 0.25))])
def test_policies_and_their_distributions_keep_to_their_protocols(policy):
    pi = checked(Policy.__call__)(policy, unroll().outputs, (NUM_STEPS + 1, BATCH_SIZE))
    action = checked(ActionDistribution.sample)(pi, KEY)
    assert action.shape == checked(ActionDistribution.mode)(pi).shape == (NUM_STEPS + 1, BATCH_SIZE)
    assert checked(ActionDistribution.log_prob)(pi, action).shape == action.shape
    assert checked(ActionDistribution.entropy)(pi).shape == action.shape
    assert checked(ActionDistribution.kl_divergence)(pi, pi).shape == action.shape
    assert checked(ActionDistribution.features)(pi, action).shape == (*action.shape, 3)
    assert isinstance(pi, Categorical)


@pytest.mark.parametrize(
    ('torso', 'observation'),
    [
        (MLP((4,)), {'a': jnp.zeros((5, 3, 2))}),
        (Convolutional((2,), (3,), (1,), (4,)), jnp.zeros((5, 4, 4, 1))),
        (Residual((2,), 1, (4,), dtype='bfloat16'), jnp.zeros((5, 4, 4, 1), jnp.uint8)),
        (OneHot(7), jnp.zeros((5, 1), int)),
        (Concatenate({'a': MLP((4,))}), {'a': jnp.zeros((5, 2)), 'b': jnp.zeros((5, 3))}),
    ],
)
def test_torsos_keep_to_their_protocol(torso, observation):
    network = hk.without_apply_rng(hk.transform(lambda x: checked(Torso.__call__)(torso, x)))
    assert network.apply(network.init(KEY, observation), observation).shape[0] == 5


@pytest.mark.parametrize('bijector', [bijectors.Identity(), bijectors.Exp(), bijectors.Softplus(), bijectors.Sigmoid()])
def test_bijectors_keep_to_their_protocol(bijector):
    y = checked(bijectors.Bijector.forward)(bijector, jnp.float32(0.3))
    np.testing.assert_allclose(checked(bijectors.Bijector.inverse)(bijector, y), 0.3, rtol=1e-5)


@pytest.mark.parametrize(
    'weights',
    [
        step_weights.LastStep(),
        step_weights.Uniform(),
        step_weights.Geometric(),
        step_weights.Lambda(),
        step_weights.Explicit((1.0, 0.5, 2.0)),
    ],
)
def test_step_weights_keep_to_their_protocol(weights):
    assert len(checked(step_weights.StepWeights.__call__)(weights, 3)) == 3
