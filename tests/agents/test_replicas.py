"""Agents that differ in numbers and train side by side, against agents that train alone."""

import csv

import jax
import numpy as np
import optax
import pytest

from agents import replicas
from agents.experiments.experiment import Experiment
from agents.experiments.loggers import CSVLogger, Run
from agents.learner import Learner
from components.component_tree import replace_all
from components.meta_optimisers.base import Fixed
from components.meta_parameters.bijectors import Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar, Weights
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum
from components.objectives.entropy_bonus import EntropyBonus
from components.objectives.learned_returns import LearnedReturn
from components.objectives.returns import LambdaReturn
from components.optimisers import Optimiser
from components.types import CompositionError
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient

RATE = 'optimiser.learning_rate'
META_RATE = 'meta_optimiser.optimiser.learning_rate'
OUTER_DISCOUNT = 'meta_optimiser.outer_loss.objective.returns.discount'


class Rows:
    def __init__(self):
        self.rows = []

    def write(self, row):
        self.rows.append(row)


def agent_with(learning_rate=1e-3, discount=0.9, **of_meta_optimiser):
    """Lifetimes of four updates, two in a meta-step, so that some end in ten."""
    agent = make_agent(
        meta_parameters=MetaParameterSet({DISCOUNT: Scalar(Sigmoid(), initial_value=discount)}),
        meta_optimiser=meta_gradient(num_inner_steps=2, optimiser=Optimiser(optax.scale_by_adam(), 1e-2)),
        num_lifetimes=2,
        lifetime_length=4,
    )
    return replace_all(agent, {f'update_rule.{RATE}': learning_rate, **of_meta_optimiser})


def test_each_replica_is_the_agent_that_trains_alone(x64):
    varied = {RATE: [1e-3, 2e-2], DISCOUNT: [0.5, 0.95], META_RATE: [1e-2, 5e-2], OUTER_DISCOUNT: [1.0, 0.9]}
    rows = Rows()
    together = Learner(agent_with(), num_seeds=2, seed=3, logger=rows, varied=varied)
    together.advance(10)
    assert together.num_replicas == 4
    assert together.state.agents.num_updates.max() < 20
    for i, (rate, discount, *of_meta_optimiser) in enumerate(zip(*varied.values(), strict=True)):
        alone_rows = Rows()
        agent = agent_with(rate, discount, **dict(zip((META_RATE, OUTER_DISCOUNT), of_meta_optimiser, strict=True)))
        alone = Learner(agent, num_seeds=2, seed=3, logger=alone_rows)
        alone.advance(10)
        ours = jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], together.state)
        for a, b in zip(jax.tree.leaves(ours.agents.params), jax.tree.leaves(alone.state.agents.params), strict=True):
            assert a.dtype == np.float64
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ours.meta_params[DISCOUNT], alone.state.meta_params[DISCOUNT], rtol=1e-9)
        (row,), (alone_row,) = rows.rows, alone_rows.rows
        for name in ('episode_return', f'meta/{DISCOUNT}', f'meta_gradient/{DISCOUNT}'):
            np.testing.assert_allclose(row[name][2 * i : 2 * i + 2], alone_row[name], rtol=1e-9)
        ratio = f'meta_gradient_signal_to_noise_over_seeds/{DISCOUNT}'
        np.testing.assert_allclose(row[ratio][2 * i : 2 * i + 2], alone_row[ratio], rtol=1e-6)
    np.testing.assert_array_equal(rows.rows[0][f'replica/{RATE}'], [1e-3, 1e-3, 2e-2, 2e-2])


@pytest.mark.parametrize('at_once', [1, 2])
def test_replicas_in_groups_are_those_side_by_side(at_once, x64):
    agent = make_agent(meta_parameters=MetaParameterSet(), meta_optimiser=Fixed())
    rows, states = [], []
    for replicas_at_once in (None, at_once):
        logger = Rows()
        learner = Learner(
            agent, num_seeds=2, logger=logger, varied={RATE: [1e-3, 2e-2]}, replicas_at_once=replicas_at_once
        )
        learner.advance(3)
        learner.advance(2)
        rows.append(logger.rows)
        states.append(learner.state)
    for x, y in zip(*(jax.tree.leaves(state.agents.params) for state in states), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
    for side_by_side, in_groups in zip(*rows, strict=True):
        assert side_by_side.keys() == in_groups.keys()
        for name, x in side_by_side.items():
            np.testing.assert_allclose(in_groups[name], x, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_table_has_the_seeds_of_each_variant(tmp_path):
    logger = CSVLogger('train', Run(tmp_path, seed=7, num_seeds=2, num_replicas=4))
    logger.write({'replica/x': np.array([0.1, 0.1, 0.2, 0.2]), 'env_steps': 3})
    with (tmp_path / 'train.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(row['seed'], row['replica/x']) for row in rows] == [('7', '0.1'), ('8', '0.1'), ('7', '0.2'), ('8', '0.2')]


LEARNED = ActorCritic(LearnedReturn())
SIZED = Sum({'actor_critic': ActorCritic(LambdaReturn()), 'entropy': EntropyBonus('logits', 3)})


@pytest.mark.parametrize(
    ('varied', 'message'),
    [
        ({RATE: [0.1, 0.2], DISCOUNT: [0.9]}, f'as many values for each path, .* 2 for {RATE}, 1 for {DISCOUNT}'),
        ({RATE: []}, f'at least one; got 0 for {RATE}'),
        ({'optimiser.rate': [0.1]}, "'optimiser.rate': no such field; there is .*learning_rate"),
        ({'optimiser': [0.1]}, "'optimiser': the field is neither a number"),
        ({RATE: [0.1, -1.0]}, f"'{RATE}' must be in .*, got -1.0"),
        ({RATE: [0.1, float('nan')]}, f"'{RATE}' must be .*, got nan"),
        ({RATE: ['0.1']}, f"'{RATE}' must be a number, got '0.1'"),
        ({RATE: [True]}, f"'{RATE}' must be a number, got True"),
        ({DISCOUNT: [1.5]}, rf"'{DISCOUNT}' must be in \[0, 1\], got 1.5"),
        ({DISCOUNT: [1.0]}, 'the initial value 1.0 is not strictly between the bounds'),
    ],
)
def test_what_cannot_be_varied_is_one_line(varied, message):
    with pytest.raises(CompositionError, match=message) as error:
        replicas.check(varied, agent_with())
    assert '\n' not in str(error.value)


def test_an_integer_is_varied_in_runs_of_their_own():
    rule = UpdateRule(SIZED, Optimiser(optax.identity(), 0.1))
    agent = make_agent(update_rule=rule, meta_parameters=MetaParameterSet(), meta_optimiser=Fixed())
    with pytest.raises(CompositionError, match='is an integer, which shapes may depend on'):
        replicas.check({'objective.terms.entropy.size': [2, 3]}, agent)


def test_weights_of_a_network_are_no_number():
    rule = UpdateRule(LEARNED, Optimiser(optax.scale_by_rms(), 0.1))
    agent = make_agent(update_rule=rule, meta_parameters=MetaParameterSet({'objective.returns.weights': Weights()}))
    with pytest.raises(CompositionError, match='weights of a network; there is meta_optimiser'):
        replicas.check({'objective.returns.weights': [1.0]}, agent)


def test_an_experiment_refuses_replicas_before_it_trains():
    with pytest.raises(CompositionError, match='must be in'):
        Experiment(agent_with(), total_env_steps=1_000, replicas={RATE: [-1.0]})
    experiment = Experiment(agent_with(), total_env_steps=1_000, num_seeds=3, replicas={RATE: [0.1, 0.2]})
    assert experiment.num_replicas == 6
    with pytest.raises(CompositionError, match=r'replicas_at_once \(4\) must divide the 6 replicas'):
        Experiment(agent_with(), total_env_steps=1_000, num_seeds=3, replicas={RATE: [0.1, 0.2]}, replicas_at_once=4)
