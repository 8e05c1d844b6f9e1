"""Scheduled fields: the value before each update, wherever the update is taken."""

import jax
import numpy as np
import optax
import pytest

from agents.analysis.finite_differences import compare_with_finite_differences
from agents.learner import Learner
from components.component_tree import replace_at
from components.meta_optimisers.base import Fixed
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.meta_parameters.schedules import Scheduled
from components.objectives.actor_critic import ActorCritic
from components.objectives.learned_returns import LearnedReturn
from components.objectives.returns import LambdaReturn
from components.optimisers import Optimiser
from components.types import CompositionError
from tests.helpers.agents_for_tests import make_agent, meta_gradient, update_rule

ENTROPY_COST, LEARNING_RATE = 'objective.entropy_cost', 'optimiser.learning_rate'
SCHEDULES = {
    ENTROPY_COST: Scheduled(optax.linear_schedule(1.0, 0.0, 3, transition_begin=1)),
    LEARNING_RATE: Scheduled(optax.exponential_decay(1e-2, 1, 0.5)),
}
VALUES = {ENTROPY_COST: [1, 1, 2 / 3, 1 / 3, 0, 0], LEARNING_RATE: [1e-2 * 0.5**i for i in range(6)]}


def with_fields(rule, fields):
    for path, field in fields.items():
        rule = replace_at(rule, path, field)
    return rule


def scheduled_agent(**kwargs):
    return make_agent(update_rule=with_fields(update_rule(), SCHEDULES), **kwargs)


def learner_of(**kwargs):
    parts = {'meta_parameters': MetaParameterSet(), 'meta_optimiser': Fixed(), **kwargs}
    return Learner(scheduled_agent(**parts))


def first(tree):
    return jax.tree.map(lambda x: x[0, 0], tree)


def test_each_update_has_the_value_of_its_number():
    learner, rows = learner_of(), []
    learner._logger.write = rows.append
    for i in range(6):
        before = first(learner.state.agents)
        assert before.num_updates == i
        rule = with_fields(update_rule(), {path: values[i] for path, values in VALUES.items()})
        expected, _ = rule.update(learner.network, before.learning, before.trajectory)
        learner.advance(1)
        for path, values in VALUES.items():
            np.testing.assert_allclose(rows[-1][f'scheduled/{path}'], [values[i]], atol=1e-6)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
            first(learner.state.agents).params,
            expected.params,
        )


def test_a_meta_gradient_through_scheduled_updates_is_right():
    agent = scheduled_agent(meta_optimiser=meta_gradient(num_inner_steps=3))
    (comparison,) = compare_with_finite_differences(Learner(agent)).values()
    assert comparison.autodiff != 0
    assert comparison.relative_error < 1e-4, comparison


def test_a_new_agent_starts_its_schedule_anew():
    learner = learner_of(lifetime_length=2)
    sizes = []
    learner._logger.write = lambda row: sizes.append(row['inner_update/norm'][0])
    for num_updates in (0, 1, 0, 1, 0):
        assert first(learner.state.agents).num_updates == num_updates
        learner.advance(1)
    assert sizes[1] < 0.75 * sizes[0]  # Its learning rate halves.
    assert sizes[2] > 1.5 * sizes[3]


def test_a_schedule_is_checked_as_a_number_is():
    with pytest.raises(ValueError, match=r'LambdaReturn\.discount must be in \[0, 1\]'):
        LambdaReturn(discount=Scheduled(optax.linear_schedule(2.0, 0.5, 3)))
    with pytest.raises(ValueError, match=r'Optimiser\.learning_rate must be in \(0, 1,000\]'):
        Optimiser(optax.identity(), Scheduled(optax.linear_schedule(0.0, 0.5, 3)))


def test_a_scheduled_field_is_no_meta_parameter():
    with pytest.raises(CompositionError, match=f"'{ENTROPY_COST}': the field is neither a number .*Scheduled"):
        scheduled_agent(meta_parameters=MetaParameterSet({ENTROPY_COST: Scalar()}))


@pytest.mark.parametrize(
    ('returns', 'path'),
    [
        (LearnedReturn(), 'meta_optimiser.outer_loss.objective.returns.weights'),
        (LambdaReturn(Scheduled(optax.constant_schedule(0.5))), 'meta_optimiser.outer_loss.objective.returns.discount'),
    ],
)
def test_the_outer_objective_is_neither_learned_nor_scheduled(returns, path):
    with pytest.raises(CompositionError, match=f'must be constant, but {path} are learned or scheduled'):
        make_agent(meta_optimiser=meta_gradient(objective=ActorCritic(returns)))


@pytest.mark.parametrize(
    'schedule',
    [
        optax.constant_schedule(1e-3),
        optax.linear_schedule(1e-3, 1e-4, 0),
        lambda num_updates: 1e-3,
        lambda num_updates: np.float64(1e-3),
        lambda num_updates: np.array(1e-3),
        lambda num_updates: num_updates // 1_000 + 1,
    ],
    ids=['constant', 'linear_of_no_steps', 'float', 'numpy', 'array', 'integer'],
)
def test_a_schedule_may_return_any_kind_of_number(schedule):
    scheduled = Scheduled(schedule)
    assert scheduled(3).dtype == np.float32
    rule = with_fields(update_rule(), {LEARNING_RATE: scheduled})
    learner = Learner(make_agent(update_rule=rule, meta_optimiser=meta_gradient(num_inner_steps=2)))
    rows = []
    learner._logger.write = rows.append
    learner.advance(1)
    np.testing.assert_allclose(rows[0][f'scheduled/{LEARNING_RATE}'], [float(schedule(0))], rtol=1e-6)


@pytest.mark.parametrize(
    ('schedule', 'message'),
    [
        (lambda num_updates: None, 'must be a function of JAX'),
        (lambda num_updates: 'fast', 'must be a function of JAX'),
        (lambda num_updates: 1 / 0, 'got ZeroDivisionError: division by zero'),
        (lambda num_updates: 1.0 if num_updates > 3 else 0.0, 'got TracerBoolConversionError'),
        (lambda num_updates: np.ones(1), r'one number, got an array of shape \(1,\)'),
        (lambda: 1.0, 'got TypeError'),
    ],
)
def test_a_schedule_that_gives_no_number_is_refused_in_one_line(schedule, message):
    with pytest.raises(ValueError, match=f'Scheduled.schedule .*{message}') as error:
        Scheduled(schedule)
    assert '\n' not in str(error.value)
