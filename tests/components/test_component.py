import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from components.component import (
    MAX_INT,
    Interval,
    LearningRate,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Reference,
    UnitInterval,
    check_arguments,
    component,
    problem,
    problem_of_argument,
)
from components.environments.base import BatchedEnvironment
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.meta_parameters.schedules import Scheduled
from components.networks.network import Network
from components.networks.torsos import MLP, Torso
from components.objectives.returns import LambdaReturn
from components.types import FieldError


class Moves(Protocol):
    speed: float

    def move(self, by: int) -> int: ...


class Walker:
    speed = 1.0

    def move(self, by):
        return by


ACCEPTED = [
    (int, 3),
    (int, np.int64(3)),
    (int, -MAX_INT),
    (float, 3),
    (float, 0.5),
    (float, np.float32(0.5)),
    (float, jnp.ones(2)),
    (float, np.ones(2)),
    (float, Scheduled(optax.constant_schedule(1.0))),
    (bool, True),
    (bool, np.bool_(False)),
    (str, 'x'),
    (UnitInterval, 0),
    (UnitInterval, 1.0),
    (Positive, 1e-30),
    (NonNegative, 0),
    (LearningRate, 1_000),
    (Annotated[float, Interval(0, math.inf)], math.inf),
    (PositiveInt, 1),
    (NonNegativeInt | None, None),
    (NonNegativeInt | None, 0),
    (Literal['a', 'b'], 'b'),
    (Sequence[int], [1, 2]),
    (Sequence[int], ()),
    (Sequence[float], np.ones(2)),
    (tuple[float, UnitInterval], (7, 1)),
    (Sequence[tuple[float, int]], [(0.5, 1)]),
    (Mapping[str, NonNegative], {'x': 1}),
    (Callable[[int], int], abs),
    (Moves, Walker()),
    (Moves | None, None),
    (Torso, jax.nn.relu),
    (Network, Network(MLP())),
    (Any, object()),
    (optax.GradientTransformation, optax.adam(1.0)),
]

REFUSED = [
    (int, True, 'an integer'),
    (int, 2.0, 'an integer'),
    (int, '3', 'an integer'),
    (int, None, 'an integer'),
    (int, 2**31, 'in [-2,147,483,647, 2,147,483,647]'),
    (PositiveInt, 0, 'at least 1'),
    (PositiveInt, 2**31, 'in [1, 2,147,483,647]'),
    (float, True, 'a number'),
    (float, '1', 'a number'),
    (float, None, 'a number'),
    (float, [1], 'a number'),
    (float, math.nan, 'finite'),
    (float, math.inf, 'finite'),
    (float, 1e300, 'finite'),
    (float, 1j, 'a number'),
    (UnitInterval, 1.5, 'in [0, 1]'),
    (UnitInterval, math.nan, 'in [0, 1]'),
    (UnitInterval, -0.1, 'in [0, 1]'),
    (Positive, 0, 'positive'),
    (Positive, math.inf, 'finite'),
    (NonNegative, -1, 'at least 0'),
    (LearningRate, 1e18, 'in (0, 1,000]'),
    (float, 2**31, 'at most 2,147,483,647 where it is written without a decimal point'),
    (LearningRate, 0, 'in (0, 1,000]'),
    (bool, 'False', 'True or False'),
    (bool, 1, 'True or False'),
    (bool, None, 'True or False'),
    (str, '', 'a string that is not empty'),
    (str, 3, 'a string that is not empty'),
    (Literal['a', 'b'], 'c', "'a' or 'b'"),
    (NonNegativeInt | None, -1, 'None or at least 0'),
    (NonNegativeInt | None, 'x', 'None or an integer'),
    (Sequence[int], 3, 'a list or a tuple'),
    (Sequence[str], 'text', 'a list or a tuple'),
    (Sequence[int], {1}, 'a list or a tuple'),
    (Sequence[PositiveInt], [1, 0], 'a list or a tuple of entries that are each at least 1'),
    (tuple[float, float], (1,), 'a tuple of 2'),
    (tuple[float, UnitInterval], (7, 7), 'a tuple of 2 whose entries are in [0, 1]'),
    (Mapping[str, float], [1], 'a dictionary'),
    (Mapping[str, NonNegative], {'x': -1}, "a dictionary whose entry 'x' is at least 0"),
    (Mapping[str, float], {1: 1.0}, 'a dictionary whose keys are each a string that is not empty'),
    (Callable[[int], int], 3, 'a function'),
    (Moves, 3, 'a Moves'),
    (Moves, object(), 'a Moves, with move'),
    (BatchedEnvironment, Catch(), 'a BatchedEnvironment, with close, as_dm_env'),
    (Network, MLP(), 'a Network'),
    (Network, None, 'a Network'),
    (Torso, MLP, 'a Torso, not a class: write @MLP() with parentheses'),
]


@pytest.mark.parametrize(('annotation', 'value'), ACCEPTED)
def test_a_value_of_the_annotations_type_and_range_is_accepted(annotation, value):
    assert problem(value, annotation) is None


@pytest.mark.parametrize(('annotation', 'value', 'message'), REFUSED)
def test_a_value_that_an_annotation_does_not_take_is_refused_with_what_it_takes(annotation, value, message):
    assert problem(value, annotation) == message


def make_number() -> float:
    return 1.0


def make_anything():
    return 1.0


@pytest.mark.parametrize(
    ('annotation', 'reference', 'is_accepted'),
    [
        (float, Reference(Scheduled, True), True),
        (float, Reference(make_number, True), True),
        (float, Reference(make_anything, True), True),
        (float, Reference(MLP, True), False),
        (float, Reference(make_number, False), False),
        (bool, Reference(MLP, True), False),
        (str, Reference(make_anything, True), True),
        (Network, Reference(Network, True), True),
        (Network, Reference(MLP, True), False),
        (Torso, Reference(MLP, True), True),
        (Torso, Reference(MLP, False), False),
        (BatchedEnvironment, Reference(Batch, True), True),
        (BatchedEnvironment, Reference(Catch, True), False),
        (Mapping[str, Torso], {'a': Reference(MLP, True)}, True),
        (Mapping[str, Torso], {'a': Reference(Catch, True)}, False),
        (Callable[[int], int], Reference(make_number, False), True),
        (Sequence[int], Reference(make_anything, True), True),
    ],
)
def test_what_is_not_made_yet_is_judged_by_what_it_will_be(annotation, reference, is_accepted):
    assert (problem(reference, annotation) is None) == is_accepted


@pytest.mark.parametrize(
    ('function', 'name', 'value', 'is_accepted'),
    [
        (optax.adam, 'learning_rate', 1e-3, True),
        (optax.adam, 'learning_rate', optax.constant_schedule(1e-3), True),
        (optax.adam, 'learning_rate', 0, False),
        (optax.adam, 'learning_rate', None, False),
        (optax.adam, 'b1', 1.5, False),
        (optax.adam, 'nesterov', 'False', False),
        (optax.sgd, 'momentum', None, True),
        (optax.sgd, 'momentum', 'none', False),
        (optax.clip_by_global_norm, 'max_norm', 0, False),
        (optax.clip_by_global_norm, 'max_norm', True, False),
        (optax.clip_by_global_norm, 'max_norm', math.inf, False),
        (optax.scale, 'step_size', -1, True),
        (optax.linear_schedule, 'transition_steps', 1.5, False),
    ],
)
def test_arguments_of_optax_are_checked_by_its_annotations_and_the_ranges_of_their_names(
    function, name, value, is_accepted
):
    assert (problem_of_argument(function, name, value) is None) == is_accepted


def test_a_component_is_a_frozen_dataclass_that_checks_itself_before_its_own_check():
    @component
    class Part:
        """A component."""

        rate: UnitInterval = 0.5
        name: str = dataclasses.field(default='x')

        def __post_init__(self):
            raise RuntimeError('after the fields')

    with pytest.raises(FieldError, match=r'Part.rate must be in \[0, 1\], got 2'):
        Part(2)
    with pytest.raises(RuntimeError, match='after the fields'):
        Part()
    with pytest.raises(dataclasses.FrozenInstanceError):
        LambdaReturn().discount = 0.5


def test_replacing_a_field_with_a_traced_number_checks_nothing_of_it():
    def discount(x):
        return dataclasses.replace(LambdaReturn(), discount=x).discount

    assert float(jax.jit(jax.grad(discount))(2.0)) == 1


def test_arguments_by_name():
    check_arguments(make_number, {'unknown': 1})
    with pytest.raises(FieldError, match=r'Catch.rows must be at least 2, got 1'):
        check_arguments(Catch, {'rows': 1, 'columns': 3})
