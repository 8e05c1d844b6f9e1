"""What is said of a learned objective: figures of known cases by hand, and the tool on a small run of FRODO."""

import argparse
import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.analysis import learned_objectives, reference_returns
from agents.analysis.learned_objectives import Inspector
from agents.analysis.reference_returns import NStepReturn, ReturnInputs, known_returns
from agents.experiments.restore import RestoredRun
from agents.learner import Learner
from components.acting.action_distributions import Categorical
from components.acting.behaviours import Behaviour
from components.acting.policies import log_rho
from components.environments.adapters.host import HostEnvironment
from components.environments.catch import HostCatch
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar, Weights
from components.networks.cores import GRU
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum, Unroll
from components.objectives.learned_policy_gradient import LearnedPolicyGradient
from components.objectives.learned_returns import LearnedReturn
from components.objectives.returns import LambdaReturn, LeakyVTrace
from components.objectives.value_regression import ValueRegression
from components.optimisers import Optimiser
from components.types import CompositionError, Trajectory
from components.update_rule import UpdateRule
from tests.helpers.agents_for_tests import make_agent
from tools import inspect_objective, run

NUM_STEPS, BATCH_SIZE = 7, 4
# A termination after step 2 of column 0, a truncation after step 2 of column 1 and both in column 2; nothing in column
# 3.
DISCOUNT = np.ones((NUM_STEPS, BATCH_SIZE), np.float32)
MASK = np.ones((NUM_STEPS, BATCH_SIZE), np.float32)
DISCOUNT[2, 0] = DISCOUNT[0, 2] = DISCOUNT[6, 2] = 0
DISCOUNT[3, 1] = MASK[3, 1] = DISCOUNT[4, 2] = MASK[4, 2] = 0


def make_inputs():
    random = np.random.default_rng(0)
    shape = NUM_STEPS, BATCH_SIZE
    trajectory = Trajectory(
        observation=np.zeros((NUM_STEPS + 1, BATCH_SIZE, 4, 3), np.float32),
        first=np.zeros((NUM_STEPS + 1, BATCH_SIZE), bool),
        action=random.integers(3, size=shape),
        reward=(random.normal(size=shape) * MASK).astype(np.float32),
        discount=DISCOUNT,
        mask=MASK,
        behaviour_policy=Categorical(np.zeros((*shape, 3), np.float32)),
        core_state={},
    )
    values = random.normal(size=(NUM_STEPS + 1, BATCH_SIZE)).astype(np.float32)
    return ReturnInputs(*jax.tree.map(jnp.asarray, (values, random.normal(size=shape).astype(np.float32), trajectory)))


def goes_on(t, b):
    """Whether step t + 1, if there is one, is of the same episode as step t."""
    return DISCOUNT[t, b] == 1 and (t + 1 == NUM_STEPS or MASK[t + 1, b] == 1)


def n_step_by_hand(n, discount, values, reward, t, b):
    target, weight = 0.0, 1.0
    for k in range(t, min(t + n, NUM_STEPS)):
        target += weight * reward[k, b]
        weight *= discount * DISCOUNT[k, b]
        if not goes_on(k, b):
            break
    return target + weight * values[k + 1, b]


@pytest.mark.parametrize('n', [1, 2, 3, 5, NUM_STEPS, NUM_STEPS + 3])
def test_n_step_returns_are_those_of_a_plain_loop(n):
    inputs = make_inputs()
    values, reward = np.asarray(inputs.values), np.asarray(inputs.trajectory.reward)
    estimate = NStepReturn(n, 0.9)(*inputs)
    expected = [[n_step_by_hand(n, 0.9, values, reward, t, b) for b in range(BATCH_SIZE)] for t in range(NUM_STEPS)]
    np.testing.assert_allclose(estimate.target, expected, atol=1e-5)
    np.testing.assert_allclose(estimate.advantage, expected - values[:-1], atol=1e-5)


def test_n_step_returns_that_are_lambda_returns():
    inputs = make_inputs()
    for n, lambda_ in ((1, 0.0), (NUM_STEPS, 1.0)):
        expected = LambdaReturn(0.95, lambda_)(*inputs).target
        np.testing.assert_allclose(NStepReturn(n, 0.95)(*inputs).target, expected, atol=1e-5)


def test_known_returns_have_no_more_steps_than_there_are():
    assert list(dict.fromkeys(known.name for known in known_returns(3))) == [
        '1-step', '2-step', '3-step', 'lambda-return', 'V-trace', 'rewards alone'
    ]  # fmt: skip
    labels = [str(known) for known in known_returns(20)]
    assert len(set(labels)) == len(labels)
    assert {'20-step, discount 0.99', 'lambda-return, discount 1, lambda 0.8', 'V-trace, discount 0.9'} <= set(labels)


def test_known_returns_are_those_that_they_say():
    inputs, known = make_inputs(), known_returns(3)
    found = reference_returns.known_estimates(known, inputs)
    for name in dict.fromkeys(label.name for label in known):
        index = max(i for i, label in enumerate(known) if label.name == name)
        expected = known[index].returns(*inputs)
        np.testing.assert_allclose(found.target[index], expected.target, atol=1e-5)
        np.testing.assert_allclose(found.advantage[index], expected.advantage, atol=1e-5)


def test_pairs_are_of_one_episode():
    pairs = learned_objectives.pairs_within_episodes(make_inputs().trajectory)
    for b in range(BATCH_SIZE):
        for t in range(NUM_STEPS):
            for k in range(NUM_STEPS):
                same = t <= k and MASK[t, b] == 1 and all(goes_on(i, b) for i in range(t, k))
                assert pairs['reward'][t, k, b] == pairs['log_rho'][t, k, b] == same
                assert pairs['value'][t, k, b] == (same and DISCOUNT[k, b] == 1)


def test_the_sensitivity_of_lambda_returns_is_known():
    """Every pair of one episode has derivative (gamma lambda)^j, every other one 0."""
    inputs, decay = make_inputs(), 0.9 * 0.7
    found = learned_objectives.return_derivatives(LambdaReturn(0.9, 0.7), inputs)
    pairs = learned_objectives.pairs_within_episodes(inputs.trajectory)
    assert set(found) == {'reward', 'value'}
    steps = np.arange(NUM_STEPS)
    ahead = np.maximum(steps - steps[:, None], 0)[..., None]
    np.testing.assert_allclose(np.where(MASK[:, None], found['reward'], 0), pairs['reward'] * decay**ahead, atol=1e-6)
    means, counts = learned_objectives.mean_by_steps_ahead(found['reward'], pairs['reward'])
    np.testing.assert_allclose(means, decay**steps, rtol=1e-5)
    assert counts[0] == MASK.sum()
    assert counts[-1] == 1  # Only column 3 has no end.
    # Where a value is the last there is, it stands for all that follows.
    is_last = np.array([[t + 1 == NUM_STEPS or not goes_on(t, b) for b in range(BATCH_SIZE)] for t in steps])
    expected = pairs['value'] * 0.9 * np.where(is_last, 1, 1 - 0.7) * decay**ahead
    np.testing.assert_allclose(found['value'], expected, atol=1e-6)


def test_means_where_no_two_steps_are_so_far_apart_are_not_given():
    derivative, pairs = np.ones((3, 3, 2)), np.zeros((3, 3, 2), bool)
    derivative[0, 1], derivative[1, 2] = [2, 4], [6, 100]
    pairs[0, 1], pairs[1, 2, 0] = True, True
    means, counts = learned_objectives.mean_by_steps_ahead(derivative, pairs)
    np.testing.assert_array_equal(means, [np.nan, 4, np.nan])
    np.testing.assert_array_equal(counts, [0, 3, 0])


def bound(returns, seed=0):
    return dataclasses.replace(
        returns, weights=returns.init_weights(jax.random.key(seed), make_agent().environment.spec())
    )


@pytest.mark.parametrize(
    'returns',
    [
        LeakyVTrace(0.9, 0.8),
        LearnedReturn(('reward', 'next_value', 'value', 'log_rho'), GRU(4)),
        LearnedReturn(('reward', 'next_value', 'value', 'log_rho'), GRU(4), stop_value_inputs=True),
    ],
    ids=['v_trace', 'learned', 'learned_with_stopped_values'],
)
def test_derivatives_are_those_of_finite_differences(x64, returns):
    returns = bound(returns) if isinstance(returns, LearnedReturn) else returns
    inputs = jax.tree.map(lambda x: jnp.asarray(x, float) if x.dtype == jnp.float32 else x, make_inputs())
    target = jax.jit(lambda *inputs: returns(*inputs).target)

    def moved(name, k, by):
        values, ratio, trajectory = inputs
        if name == 'reward':
            trajectory = trajectory._replace(reward=trajectory.reward.at[k].add(by))
        values = values.at[k + 1].add(by) if name == 'value' else values
        return target(values, ratio.at[k].add(by) if name == 'log_rho' else ratio, trajectory)

    found = learned_objectives.return_derivatives(returns, inputs)
    assert set(found) == {'reward', 'value', 'log_rho'}
    for name, derivative in found.items():
        for k in range(NUM_STEPS):
            expected = (moved(name, k, 1e-5) - moved(name, k, -1e-5)) / 2e-5
            np.testing.assert_allclose(derivative[:, k], expected, atol=2e-6, err_msg=f'{name} of step {k}')
        assert np.any(derivative)


def test_comparisons_by_hand():
    target = np.array([[1.0, 2.0], [4.0, 1e9]], np.float32)
    mask = np.array([[1, 1], [1, 0]])
    distance, correlation = learned_objectives.compare(target, np.array([[1.0, 4.0], [0.0, 3.0]]), mask)
    assert distance == pytest.approx(np.sqrt((0 + 4 + 16) / 3))
    assert correlation == pytest.approx(np.corrcoef([1, 2, 4], [1, 4, 0])[0, 1])
    for slope in (0.01, -7.0):  # R^2 is 1 whatever scale and offset are.
        assert learned_objectives.compare(target, slope * target + 3, mask)[1] == pytest.approx(
            np.sign(slope), abs=1e-6
        )
    assert learned_objectives.compare(target, np.full((2, 2), 5.0), mask)[1] == 0
    assert np.isnan(learned_objectives.compare(np.full((2, 2), 5.0), target, mask)[1])
    assert np.isnan(learned_objectives.compare(target, target, np.zeros((2, 2)))).all()


def test_the_nearest_is_the_first_of_those_that_tie():
    def summary(distance, correlation):
        return learned_objectives.ObjectiveSummary(
            np.array(distance), np.square(correlation), np.array(correlation), {}, {}
        )

    near = summary([0.5, 0.2 + 1e-7, 0.2], [-0.9, 0.1, 0.3])
    assert (learned_objectives.nearest(near), learned_objectives.best_fit(near)) == (1, 0)
    without_scale = summary([np.nan] * 3, [-0.9, 0.1, 0.3])
    assert learned_objectives.nearest(without_scale) == 2
    constant = summary([np.nan] * 3, [np.nan] * 3)
    assert learned_objectives.nearest(constant) is learned_objectives.best_fit(constant) is None


def learned_agent(objective, *paths):
    return make_agent(
        update_rule=UpdateRule(objective, Optimiser(optax.scale_by_rms(), 0.01)),
        meta_parameters=MetaParameterSet({f'{path}.weights': Weights() for path in paths}),
    )


def look(learner, path, change=lambda x: x):
    """What an inspector sees in the first seed's agent, its meta-parameters changed."""
    meta_params, agent = jax.tree.map(lambda x: x[0], (learner.state.meta_params, learner.state.agents))
    inspector = Inspector(learner.inner_loop, path, 6, 12)
    seen = inspector(jax.tree.map(change, meta_params), jax.tree.map(lambda x: x[0], agent), jax.random.key(1))
    assert seen.target.shape == (6, 12)
    assert seen.known.shape == (len(inspector.known), 6, 12)
    return inspector, seen


@pytest.fixture(scope='module')
def learner():
    """Its learned return is a network's output added to a lambda-return."""
    return Learner(
        learned_agent(ActorCritic(LearnedReturn(core=GRU(4), base=LambdaReturn(0.95, 0.8))), 'objective.returns')
    )


def test_a_learned_return_that_is_a_known_one_is_told_to_be_it(learner):
    """A network of zeros adds nothing."""
    inspector, seen = look(learner, 'objective.returns', change=jnp.zeros_like)
    summary = learned_objectives.summarise_objective(seen)
    index = learned_objectives.nearest(summary)
    assert str(inspector.known[index]) == 'lambda-return, discount 0.95, lambda 0.8'
    assert learned_objectives.best_fit(summary) == index
    assert summary.distance[index] == pytest.approx(0, abs=1e-6)
    assert summary.r_squared[index] == pytest.approx(1)
    assert min(np.delete(summary.distance, index)) > 1e-3
    length = 3  # Of an episode on a grid of four rows: nothing in it is further apart.
    np.testing.assert_allclose(summary.sensitivity['reward'][:length], 0.76 ** np.arange(length), rtol=1e-5)
    assert np.isnan(summary.sensitivity['reward'][length:]).all()


def test_a_return_is_called_with_the_values_that_its_objective_gives_it():
    returns, path = bound(LearnedReturn(core=GRU(4))), 'objective.terms.b.returns'
    objective = Sum({'a': ActorCritic(LambdaReturn()), 'b': ValueRegression(returns)})
    values, ratio, trajectory = make_inputs()
    logits = jnp.concatenate([ratio, ratio[:1]])[..., None] * jnp.arange(3)
    outputs = {'value': values, 'outer_value': 2 * values, 'logits': logits}
    rule = UpdateRule(objective, Optimiser(optax.identity(), 0.1))
    inputs = learned_objectives.return_inputs(rule, path, Unroll(outputs, trajectory, None, None), {'a': (), 'b': ()})
    np.testing.assert_array_equal(inputs.values, 2 * values)
    np.testing.assert_allclose(inputs.log_rho, log_rho(Categorical(outputs['logits']), trajectory), atol=1e-6)
    assert inputs.trajectory is trajectory


def test_trajectories_go_on_from_where_the_agent_stands_and_are_not_all_at_one_step(learner):
    state = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    sample = jax.jit(lambda key: learned_objectives.sample_trajectories(learner.inner_loop, state, key, 2, 13))
    found = sample(jax.random.key(0))
    assert found.reward.shape == (2, 13)
    assert found.observation.shape == (3, 13, 4, 3)
    height = np.argmax(found.observation[..., :-1, :].any(-1), -1)  # Of the ball, above the paddle's row.
    assert len(np.unique(height[0])) > 1
    logits = learner.network.outputs(state.params, found)['logits']
    np.testing.assert_allclose(log_rho(Categorical(logits), found), 0, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found, sample(jax.random.key(0)))


def test_the_weights_that_act_while_the_agent_learns_act_here_too(learner):
    state = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    acting = jax.tree.map(jnp.zeros_like, state.params)
    acting['network/logits_head']['b'] = jnp.array([99.0, 0, 0])
    loop = learner.inner_loop
    source = dataclasses.replace(loop.source, behaviour=Behaviour(num_updates_behind=None))
    inner_loop = dataclasses.replace(loop, source=source)
    found = learned_objectives.sample_trajectories(
        inner_loop, state._replace(behaviour=acting), jax.random.key(0), 2, 8
    )
    assert not np.any(found.action)
    assert np.any(log_rho(Categorical(learner.network.outputs(state.params, found)['logits']), found))


def test_a_policy_target_is_compared_with_advantages():
    terms = {
        'lpg': LearnedPolicyGradient(GRU(4), MLP((4,)), 3),
        'critic': ValueRegression(LearnedReturn(core=GRU(4)), value_head='value'),
    }
    paths = ['objective.terms.lpg', 'objective.terms.critic.returns']
    agent = learned_agent(Sum(terms), *paths)
    assert learned_objectives.learned_objectives(agent) == paths
    _, seen = look(Learner(agent), paths[0])
    assert set(seen.derivatives) == {'reward'}
    assert np.any(seen.derivatives['reward'])
    summary = learned_objectives.summarise_objective(seen)
    assert np.isnan(summary.distance).all()
    index = learned_objectives.nearest(summary)
    assert summary.correlation[index] == pytest.approx(summary.correlation.max(), abs=1e-4)


def test_values_of_a_critic():
    heads = {'logits': jnp.ones((3, 2, 4)), 'b': jnp.full((3, 2), 2.0), 'a': jnp.full((3, 2), 1.0)}
    np.testing.assert_array_equal(learned_objectives.critic_values(heads), heads['a'])
    assert learned_objectives.critic_values({**heads, 'value': 3 * heads['a']})[0, 0] == 3
    np.testing.assert_array_equal(learned_objectives.critic_values({'logits': heads['logits']}), np.zeros((3, 2)))


def test_what_learns_no_objective_is_refused():
    with pytest.raises(CompositionError, match=r'no learned objective: what it learns is objective.returns.discount'):
        learned_objectives.learned_objectives(
            make_agent(meta_parameters=MetaParameterSet({'objective.returns.discount': Scalar()}))
        )


SMALL = [
    'catch.Catch.rows = 4',
    'catch.Catch.columns = 3',
    'torsos.MLP.hidden_sizes = (8,)',
    'NUM_ENVS = 4',
    'NUM_SEEDS = 2',
    'NUM_INNER_STEPS = 1',
    'LOG_EVERY = 80',
    'EVALUATE_EVERY = 0',
    'experiment.Experiment.loggers = []',
    'CHECKPOINT_EVERY = 80',
    'TOTAL_ENV_STEPS = 160',
]


def train(workdir, file, *bindings):
    arguments = [part for line in (*SMALL, *bindings) for part in ('--gin_bindings', line)]
    assert run.main(['--gin_file', file, '--workdir', str(workdir), *arguments]) == 0
    return workdir


@pytest.fixture(scope='module')
def frodo(tmp_path_factory):
    """A run of two seeds with checkpoints 10 and 20."""
    workdir = tmp_path_factory.mktemp('runs') / 'frodo'
    return train(
        workdir,
        'gin/catch/frodo.gin',
        'cores.LSTM.hidden_size = 8',
        'validation_data.FreshTrajectory.unroll_length = 3',
    )


def main(workdir, *arguments):
    return inspect_objective.main(['--workdir', str(workdir), '--num_trajectories', '24', *map(str, arguments)])


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_the_tool_shows_every_checkpoint_and_seed_of_a_run(frodo, capsys):
    assert main(frodo) == 0
    out = capsys.readouterr().out
    (title,) = [line for line in out.splitlines() if 'nearest known return' in line]
    assert 'to r[t+1]' in title
    assert sum('objective.returns' in line for line in out.splitlines()) == 2
    distances, sensitivity = (rows(frodo / 'objective' / f'{name}.csv') for name in ('distances', 'sensitivity'))
    assert len(distances) == 2 * 2 * len(known_returns(2))
    assert {(row['checkpoint'], row['seed']) for row in distances} == {(c, s) for c in ('10', '20') for s in '01'}
    assert all(float(row['distance']) > 0 and 0 <= float(row['r_squared']) <= 1 for row in distances)
    assert {row['lambda'] for row in distances if row['known_return'] == '1-step'} == {''}
    assert len(sensitivity) == 2 * 2 * 2 * 2  # Checkpoints, seeds, reward and value, steps ahead.
    assert len({row['sensitivity'] for row in sensitivity}) == len(sensitivity)
    assert (frodo / 'objective' / 'objective.png').stat().st_size > 10_000


def test_one_checkpoint_and_longer_trajectories(frodo, tmp_path, capsys):
    assert main(frodo, '--checkpoints', '20', '--unroll_length', '5', '--out', tmp_path / 'new' / 'folder') == 0
    assert 'results are in' in capsys.readouterr().out
    found = rows(tmp_path / 'new' / 'folder' / 'distances.csv')
    assert {row['checkpoint'] for row in found} == {'20'}
    assert '5-step' in {row['known_return'] for row in found}
    ahead = rows(tmp_path / 'new' / 'folder' / 'sensitivity.csv')
    # An episode has three steps.
    known = {row['steps_ahead'] for row in ahead if row['input'] == 'reward' and row['sensitivity']}
    assert known == {'0', '1', '2'}
    assert all(row['num_pairs'] == '0' for row in ahead if not row['sensitivity'])


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--checkpoints', '7'], 'there is no checkpoint 7'),
        (['--checkpoints', '10,newest'], 'numbers with commas'),
        (['--unroll_length', '0'], '--unroll_length must be at least 1, got 0'),
        (['--num_trajectories', '-1'], '--num_trajectories must be at least 1'),
    ],
)
def test_one_line_and_status_2_for_what_cannot_be_shown(frodo, arguments, part, capsys):
    assert main(frodo, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


def test_what_environments_outside_of_the_program_act_is_not_inspected():
    learner = Learner(make_agent(environment=HostEnvironment(HostCatch, 1)))
    arguments = argparse.Namespace(unroll_length=None, num_trajectories=4)
    with pytest.raises(CompositionError, match=r'those of HostEnvironment live outside of the program'):
        inspect_objective._inspectors(RestoredRun(None, learner, 0), arguments)


def test_runs_without_checkpoints_or_without_a_learned_objective_are_refused(tmp_path, capsys):
    assert main(tmp_path) == 2
    train(tmp_path / 'run', 'gin/catch/actor_critic.gin', 'NUM_SEEDS = 1')
    assert main(tmp_path / 'run') == 2
    *_, first, second = capsys.readouterr().err.splitlines()
    assert 'there are no checkpoints in' in first
    assert 'the run has no learned objective: what it learns is nothing' in second
