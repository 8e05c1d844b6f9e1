import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

from components.component_tree import learnable_paths
from components.environments.catch import Catch
from components.meta_parameters.bijectors import Exp, Identity, Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum
from components.objectives.returns import LambdaReturn
from components.objectives.value_regression import ValueRegression
from components.optimisers import Optimiser
from components.update_rule import UpdateRule

SPEC = Catch().spec()


def nested_rule():
    terms = {
        'actor_critic': ActorCritic(LambdaReturn(0.9, 0.8)),
        'outer_critic': ValueRegression(LambdaReturn(1, 1), cost=0.25),
    }
    return UpdateRule(Sum(terms), Optimiser(optax.identity(), 0.1))


def test_paths_lead_through_attributes_and_dictionary_keys_to_every_number():
    assert learnable_paths(nested_rule()) == {
        'objective.terms.actor_critic.returns.discount': 0.9,
        'objective.terms.actor_critic.returns.lambda_': 0.8,
        'objective.terms.actor_critic.policy_cost': 1.0,
        'objective.terms.actor_critic.value_cost': 0.5,
        'objective.terms.actor_critic.entropy_cost': 0.01,
        'objective.terms.outer_critic.returns.discount': 1,
        'objective.terms.outer_critic.returns.lambda_': 1,
        'objective.terms.outer_critic.cost': 0.25,
        'optimiser.learning_rate': 0.1,
    }


def test_binding_replaces_just_that_field_and_leaves_the_original_alone():
    rule = nested_rule()
    path = 'objective.terms.actor_critic.returns.discount'
    parameters = MetaParameterSet({path: Scalar(Sigmoid())})
    bound = parameters.bind(rule, parameters.init(jax.random.key(0), rule, SPEC))
    assert float(bound.objective.terms['actor_critic'].returns.discount) == pytest.approx(0.9)
    before, after = learnable_paths(rule), learnable_paths(bound)
    assert before.pop(path) == 0.9
    assert after == before  # A bound field holds an array, which is no number in a configuration any more.
    assert rule.objective.terms['actor_critic'].returns.discount == 0.9


@pytest.mark.parametrize('path', sorted(learnable_paths(nested_rule())))
def test_every_numeric_field_can_be_bound_to_a_traced_value(path):
    rule = nested_rule()
    parameters = MetaParameterSet({path: Scalar(Identity())})

    @jax.jit
    def bound_value(meta_params):
        tree = parameters.bind(rule, meta_params)
        for name in path.split('.'):
            tree = tree[name] if isinstance(tree, dict) else getattr(tree, name)
        return 2 * tree

    assert float(bound_value({path: jnp.float32(3.0)})) == 6.0


def test_initial_values_are_in_the_units_of_the_field():
    rule = nested_rule()
    parameters = MetaParameterSet(
        {
            'objective.terms.actor_critic.returns.lambda_': Scalar(Sigmoid(0.5, 1.0)),
            'optimiser.learning_rate': Scalar(Exp(), initial_value=0.02),
        }
    )
    values = parameters.values(parameters.init(jax.random.key(0), rule, SPEC))
    assert float(values['objective.terms.actor_critic.returns.lambda_']) == pytest.approx(0.8)
    assert float(values['optimiser.learning_rate']) == pytest.approx(0.02)


def test_an_integer_field_becomes_floating_point():
    path = 'objective.terms.outer_critic.returns.discount'
    meta_params = MetaParameterSet({path: Scalar(Identity())}).init(jax.random.key(0), nested_rule(), SPEC)
    assert meta_params[path].dtype == jnp.float32


@pytest.mark.parametrize(
    ('path', 'reason'),
    [
        ('objective.returns.discount', 'no such field'),
        ('objective.terms.actor_critic.returns', 'neither a number'),
        ('objective.terms.actor_critic.value_head', 'neither a number'),
        ('stop_bootstrap_values', 'neither a number'),
        ('optimiser.transform', 'neither a number'),
    ],
)
def test_a_wrong_path_is_named_with_the_paths_that_exist(path, reason):
    with pytest.raises(ValueError, match=reason) as error:
        MetaParameterSet({path: Scalar()}).init(jax.random.key(0), nested_rule(), SPEC)
    assert repr(path) in str(error.value)
    assert all(existing in str(error.value) for existing in learnable_paths(nested_rule()))


@pytest.mark.parametrize(
    ('bijector', 'value'), [(Sigmoid(), 1.0), (Sigmoid(), 0.0), (Sigmoid(0.9, 1.0), 0.8), (Exp(), 0.0), (Exp(), -1.0)]
)
def test_an_initial_value_on_or_beyond_a_bound_is_refused(bijector, value):
    path = 'optimiser.learning_rate'
    with pytest.raises(ValueError, match=path):
        MetaParameterSet({path: Scalar(bijector, value)}).init(jax.random.key(0), nested_rule(), SPEC)


def test_binding_does_not_run_constructors():
    @dataclasses.dataclass(frozen=True)
    class Checked:
        number: float

        def __post_init__(self):
            if self.number < 0:  # Would fail on a traced value.
                raise ValueError

    parameters = MetaParameterSet({'number': Scalar(Identity())})
    assert jax.jit(lambda x: parameters.bind(Checked(1.0), {'number': x}).number)(-1.0) == -1.0
