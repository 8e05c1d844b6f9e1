"""Objectives against NumPy, and the semi-gradient that an update rule takes of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from acme import specs

from components.acting.action_distributions import Categorical
from components.acting.policies import Softmax, log_rho
from components.component_tree import learnable_paths
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.metrics import Group
from components.networks.network import Network
from components.networks.torsos import MLP
from components.objectives.actor_critic import ActorCritic
from components.objectives.base import Sum, masked_mean, weighted_or_zero
from components.objectives.returns import LambdaReturn, LeakyVTrace
from components.objectives.value_regression import ValueRegression
from components.optimisers import Optimiser
from components.types import Trajectory
from components.update_rule import UpdateRule
from tests.helpers.trajectories_for_tests import targets_of, without_last

NUM_STEPS, BATCH_SIZE, NUM_ACTIONS, OBSERVATION_SIZE = 5, 3, 4, 6

SPEC = specs.EnvironmentSpec(
    observations=specs.Array((OBSERVATION_SIZE,), np.float32),
    actions=specs.DiscreteArray(NUM_ACTIONS),
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
)
MASK = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]])
TERMINATED = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 1]])

OBJECTIVE = Sum(
    {
        'actor_critic': ActorCritic(LeakyVTrace(0.9, 0.8, 0.7, 1.3), 1.1, 0.6, 0.05),
        'outer_critic': ValueRegression(LambdaReturn(0.95, 0.7), 0.4),
    }
)
RULE = UpdateRule(OBJECTIVE, Optimiser(optax.scale_by_rms(), 0.02))


def make_trajectory(dtype=np.float32):
    """With a restart at the very start and one within, and terminations."""
    random = np.random.default_rng(0)
    shape = (NUM_STEPS, BATCH_SIZE)
    observation = random.normal(size=(NUM_STEPS + 1, BATCH_SIZE, OBSERVATION_SIZE))
    mask = MASK.astype(dtype)
    return Trajectory(
        observation=jnp.asarray(observation, dtype),
        first=jnp.zeros((NUM_STEPS + 1, BATCH_SIZE), bool),
        action=jnp.asarray(random.integers(NUM_ACTIONS, size=shape), jnp.int32),
        reward=jnp.asarray(random.normal(size=shape) * mask, dtype),
        discount=jnp.asarray(mask * (1 - TERMINATED), dtype),
        mask=jnp.asarray(mask),
        behaviour_policy=Categorical(jnp.asarray(random.normal(size=(*shape, NUM_ACTIONS)), dtype)),
        core_state={},
    )


def make_outputs(dtype=np.float32):
    random = np.random.default_rng(1)
    return {
        'logits': jnp.asarray(random.normal(size=(NUM_STEPS + 1, BATCH_SIZE, NUM_ACTIONS)), dtype),
        'value': jnp.asarray(random.normal(size=(NUM_STEPS + 1, BATCH_SIZE)), dtype),
        'outer_value': jnp.asarray(random.normal(size=(NUM_STEPS + 1, BATCH_SIZE)), dtype),
    }


def make_network(dtype=np.float32):
    spec = SPEC._replace(observations=specs.Array((OBSERVATION_SIZE,), dtype))
    network = Network(MLP((8,))).functions(spec, OBJECTIVE.heads(spec))
    random = np.random.default_rng(2)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return network, jax.tree.map(lambda s: jnp.asarray(random.normal(scale=0.5, size=s.shape), s.dtype), shapes)


def updated_by(rule, network, params, trajectory):
    """Parameters after one compiled update."""
    return jax.jit(lambda p, t: rule.update(network, rule.init(p), t)[0].params)(params, trajectory)


def assert_trees_close(actual, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=rtol, atol=atol), actual, expected)


def largest_difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


# --- Objectives -------------------------------------------------------------------------------------------------------


def test_actor_critic_loss_per_step():
    objective, trajectory, outputs = ActorCritic(LambdaReturn(), 1.5, 0.25, 0.1), make_trajectory(), make_outputs()
    targets = targets_of(objective, outputs, trajectory)
    loss, logs = objective.loss(without_last(outputs), targets, trajectory)
    log_pi = log_softmax(outputs['logits'])
    for t in range(NUM_STEPS):
        for b in range(BATCH_SIZE):
            policy = -log_pi[t, b, trajectory.action[t, b]] * float(targets.advantage[t, b])
            value = (float(targets.target[t, b]) - float(outputs['value'][t, b])) ** 2
            entropy = -sum(np.exp(log_pi[t, b, a]) * log_pi[t, b, a] for a in range(NUM_ACTIONS))
            np.testing.assert_allclose(loss[t, b], 1.5 * policy + 0.25 * value - 0.1 * entropy, rtol=1e-4, atol=1e-5)
            for name, expected in {'policy': policy, 'value': value, 'entropy': entropy}.items():
                np.testing.assert_allclose(logs[name][t, b], expected, rtol=1e-4, atol=1e-5)
    assert loss.shape == (NUM_STEPS, BATCH_SIZE)


def test_actor_critic_targets_are_its_returns():
    trajectory, outputs = make_trajectory(), make_outputs()
    returns = LeakyVTrace(0.9, 0.8, 0.7, 1.3)
    ratio = np.zeros((NUM_STEPS, BATCH_SIZE), np.float32)
    for t in range(NUM_STEPS):
        for b in range(BATCH_SIZE):
            action = trajectory.action[t, b]
            ratio[t, b] = log_softmax(outputs['logits'])[t, b, action]
            ratio[t, b] -= log_softmax(trajectory.behaviour_policy.logits)[t, b, action]
    np.testing.assert_allclose(log_rho(Categorical(outputs['logits']), trajectory), ratio, rtol=1e-4, atol=1e-5)
    actual = targets_of(ActorCritic(returns), outputs, trajectory)
    assert_trees_close(actual, returns(outputs['value'], ratio, trajectory), rtol=1e-4, atol=1e-5)
    regression = ValueRegression(returns)
    expected = returns(outputs['outer_value'], ratio, trajectory).target
    assert_trees_close(targets_of(regression, outputs, trajectory), expected, rtol=1e-4, atol=1e-5)


def test_value_regression_loss_per_step():
    objective, trajectory, outputs = ValueRegression(LambdaReturn(), 0.3), make_trajectory(), make_outputs()
    targets = targets_of(objective, outputs, trajectory)
    loss, logs = objective.loss(without_last(outputs), targets, trajectory)
    squared_error = (np.asarray(targets) - np.asarray(outputs['outer_value'])[:-1]) ** 2
    np.testing.assert_allclose(loss, 0.3 * squared_error, rtol=1e-5)
    np.testing.assert_allclose(logs['value'], squared_error, rtol=1e-5)


def test_heads_can_be_named():
    trajectory, outputs = make_trajectory(), make_outputs()
    objective = ActorCritic(LambdaReturn(), policy=Softmax('pi'), value_head='v')
    assert objective.heads(SPEC) == {'pi': (NUM_ACTIONS,), 'v': ()}
    assert ActorCritic(LambdaReturn()).heads(SPEC) == {'logits': (NUM_ACTIONS,), 'value': ()}
    renamed = {'pi': outputs['logits'], 'v': outputs['value']}
    expected = ActorCritic(LambdaReturn())
    assert_trees_close(
        objective.loss(without_last(renamed), targets_of(objective, renamed, trajectory), trajectory),
        expected.loss(without_last(outputs), targets_of(expected, outputs, trajectory), trajectory),
    )


@pytest.mark.parametrize(
    ('field', 'part', 'sign'),
    [('policy_cost', 'policy', 1), ('value_cost', 'value', 1), ('entropy_cost', 'entropy', -1)],
)
def test_weight_of_zero_leaves_its_part_out(field, part, sign):
    trajectory, outputs = make_trajectory(), make_outputs()
    objective = ActorCritic(LambdaReturn(), 1.5, 0.25, 0.1)
    without = dataclasses.replace(objective, **{field: 0})
    targets = targets_of(objective, outputs, trajectory)
    loss, logs = objective.loss(without_last(outputs), targets, trajectory)
    rest, same_logs = without.loss(without_last(outputs), targets, trajectory)
    np.testing.assert_allclose(loss - rest, sign * getattr(objective, field) * logs[part], rtol=1e-4, atol=1e-5)
    assert_trees_close(same_logs, logs)


def test_weigh_leaves_out_what_a_constant_zero_weighs():
    x = jnp.array([1.0, jnp.inf, jnp.nan])
    for zero in (0, 0.0):
        np.testing.assert_array_equal(weighted_or_zero(zero, x), jnp.zeros(3))
    np.testing.assert_array_equal(weighted_or_zero(2, x[:1]), [2.0])
    # A traced zero is a value like any other: it has a derivative.
    assert jax.jit(jax.grad(lambda cost: weighted_or_zero(cost, 3.0)))(0.0) == 3


def test_log_rho_is_zero_on_policy():
    trajectory, outputs = make_trajectory(), make_outputs()
    # Logits are unnormalised: a constant added to all of them changes nothing.
    on_policy = trajectory._replace(behaviour_policy=Categorical(outputs['logits'][:-1] + 3))
    np.testing.assert_allclose(
        log_rho(Categorical(outputs['logits']), on_policy), np.zeros((NUM_STEPS, BATCH_SIZE)), atol=1e-6
    )
    assert np.abs(log_rho(Categorical(outputs['logits']), trajectory)).min() > 1e-3


def test_sum_adds_losses_and_keeps_logs_apart():
    trajectory, outputs = make_trajectory(), make_outputs()
    assert OBJECTIVE.heads(SPEC) == {'logits': (NUM_ACTIONS,), 'value': (), 'outer_value': ()}
    targets = targets_of(OBJECTIVE, outputs, trajectory)
    loss, logs = OBJECTIVE.loss(without_last(outputs), targets, trajectory)
    expected_loss, expected_logs = 0, {}
    for name, term in OBJECTIVE.terms.items():
        term_targets = targets_of(term, outputs, trajectory)
        assert_trees_close(targets[name], term_targets)
        term_loss, term_logs = term.loss(without_last(outputs), term_targets, trajectory)
        expected_loss += term_loss
        expected_logs |= {f'{name}/{key}': value for key, value in term_logs.items()}
    assert set(logs) == {
        'actor_critic/policy',
        'actor_critic/value',
        'actor_critic/entropy',
        'outer_critic/value',
    }
    assert_trees_close((loss, logs), (expected_loss, expected_logs))
    assert (
        np.abs(
            loss - OBJECTIVE.terms['actor_critic'].loss(without_last(outputs), targets['actor_critic'], trajectory)[0]
        ).max()
        > 0.1
    )


def test_sum_of_one_term_is_that_term():
    trajectory, outputs = make_trajectory(), make_outputs()
    term = ActorCritic(LambdaReturn())
    alone = Sum({'only': term})
    assert_trees_close(
        alone.loss(without_last(outputs), targets_of(alone, outputs, trajectory), trajectory)[0],
        term.loss(without_last(outputs), targets_of(term, outputs, trajectory), trajectory)[0],
    )


def test_sum_refuses_heads_of_two_shapes():
    objective = Sum(
        {'actor_critic': ActorCritic(LambdaReturn()), 'critic': ValueRegression(LambdaReturn(), value_head='logits')}
    )
    with pytest.raises(ValueError, match=r"critic asks for head 'logits' with shape \(\), another with \(4,\)"):
        objective.heads(SPEC)


def test_sum_refuses_no_terms():
    with pytest.raises(ValueError, match='terms is empty'):
        Sum({})


@pytest.mark.parametrize('objective', [ActorCritic(LambdaReturn()), ValueRegression(LambdaReturn()), OBJECTIVE])
@pytest.mark.parametrize(
    'actions',
    [
        specs.BoundedArray((2,), np.float32, -1.0, 1.0),
        specs.BoundedArray((), np.int32, 0, 3),
        specs.Array((), np.int32),
    ],
)
def test_other_actions_than_one_discrete_are_refused(objective, actions):
    with pytest.raises(ValueError, match='one discrete action'):
        objective.heads(SPEC._replace(actions=actions))


def test_masked_mean_ignores_masked_transitions():
    x = jnp.array([[1.0, 1e6], [3.0, 5.0]])
    mask = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    assert masked_mean(x, mask) == 3
    assert masked_mean(x, jnp.ones((2, 2))) == x.mean()
    gradient = jax.grad(masked_mean)(x, mask)
    np.testing.assert_allclose(gradient, mask / 3)


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(jnp.full((2, 3), 7.0), jnp.zeros((2, 3))) == 0


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('path', sorted(set(learnable_paths(OBJECTIVE))))
def test_targets_and_loss_have_derivatives_in_every_field(path):
    trajectory, outputs = make_trajectory(np.float64), make_outputs(np.float64)
    entries = MetaParameterSet({path: Scalar()})

    @jax.jit
    def loss(value):
        objective = entries.bind(OBJECTIVE, {path: value})
        return masked_mean(
            objective.loss(without_last(outputs), targets_of(objective, outputs, trajectory), trajectory)[0],
            trajectory.mask,
        )

    value, step = learnable_paths(OBJECTIVE)[path], 1e-6
    expected = (loss(value + step) - loss(value - step)) / (2 * step)
    assert abs(expected) > 1e-4
    np.testing.assert_allclose(jax.grad(loss)(value), expected, rtol=1e-6)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('head', ['logits', 'value', 'outer_value'])
def test_targets_have_derivatives_in_the_outputs(head):
    trajectory, outputs = make_trajectory(np.float64), make_outputs(np.float64)
    random = np.random.default_rng(3)
    weights = jax.tree.map(lambda x: random.normal(size=x.shape) * MASK, targets_of(OBJECTIVE, outputs, trajectory))

    @jax.jit
    def projection(output):
        targets = targets_of(OBJECTIVE, {**outputs, head: output}, trajectory)
        return sum(jax.tree.leaves(jax.tree.map(lambda w, x: (w * x).sum(), weights, targets)))

    direction, step = random.normal(size=outputs[head].shape), 1e-6
    difference = projection(outputs[head] + step * direction) - projection(outputs[head] - step * direction)
    derivative = (jax.grad(projection)(outputs[head]) * direction).sum()
    assert abs(derivative) > 1e-2
    np.testing.assert_allclose(derivative, difference / (2 * step), rtol=1e-6)


# --- The update rule --------------------------------------------------------------------------------------------------


def test_update_is_the_semi_gradient_step():
    network, params = make_network()
    trajectory = make_trajectory()
    reference = optax.rmsprop(0.02)

    def loss(params, targets):
        outputs = network.unroll(params, trajectory.observation, trajectory.first, {})
        per_step, _ = OBJECTIVE.loss(without_last(outputs), targets, trajectory)
        return (per_step * trajectory.mask).sum() / MASK.sum()

    def targets_at(params):
        outputs = network.unroll(params, trajectory.observation, trajectory.first, {})
        return targets_of(OBJECTIVE, outputs, trajectory)

    @jax.jit
    def expected_step(params, state):
        targets = jax.lax.stop_gradient(targets_at(params))
        updates, state = reference.update(jax.grad(loss)(params, targets), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(lambda learning: RULE.update(network, learning, trajectory)[0])
    learning, expected, expected_state = RULE.init(params), params, reference.init(params)
    for _ in range(3):
        learning = step(learning)
        expected, expected_state = expected_step(expected, expected_state)
        assert_trees_close(learning.params, expected, rtol=1e-4, atol=1e-5)

    residual = jax.jit(jax.grad(lambda params: loss(params, targets_at(params))))(params)
    updates, _ = reference.update(residual, reference.init(params), params)
    assert (
        largest_difference(updated_by(RULE, network, params, trajectory), optax.apply_updates(params, updates)) > 1e-2
    )


def test_update_reports_masked_means():
    network, params = make_network()
    trajectory = make_trajectory()
    outputs = network.outputs(params, trajectory)
    _, expected = OBJECTIVE.loss(without_last(outputs), targets_of(OBJECTIVE, outputs, trajectory), trajectory)
    logs = jax.jit(lambda p: RULE.update(network, RULE.init(p), trajectory)[1])(params)
    assert set(logs) == {Group.LOSS(name) for name in expected}
    for name, per_step in expected.items():
        mean = np.asarray(per_step)[MASK == 1].mean()
        np.testing.assert_allclose(logs[Group.LOSS(name)], mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    'objective',
    [ActorCritic(LambdaReturn()), ActorCritic(LeakyVTrace(alpha=0.5)), OBJECTIVE],
    ids=['lambda_return', 'leaky_vtrace', 'sum'],
)
def test_masked_transitions_do_not_move_the_weights(objective):
    network, params = make_network()
    trajectory = make_trajectory()
    rule = UpdateRule(objective, Optimiser(optax.identity(), 0.1))
    update = jax.jit(lambda trajectory: rule.update(network, rule.init(params), trajectory)[0].params)
    expected = update(trajectory)
    masked = MASK == 0
    # What only the restart at the very start was chosen from. (Observations of later restarts are bootstrapped from.)
    observation = trajectory.observation.at[0, 0].add(1.0)
    changes = {
        'reward': trajectory.reward + 5 * masked,
        'discount': trajectory.discount + 0.5 * masked,
        'action': (trajectory.action + masked) % NUM_ACTIONS,
        'behaviour_policy': Categorical(trajectory.behaviour_policy.logits.at[..., 0].add(2.0 * masked)),
        'observation': observation,
    }
    for name, value in changes.items():
        changed = trajectory._replace(**{name: value})
        assert largest_difference(getattr(changed, name), getattr(trajectory, name)) > 0
        assert_trees_close(update(changed), expected, rtol=1e-6, atol=1e-7)
    # The same changes count where there is no mask.
    unmasked = trajectory._replace(mask=jnp.ones_like(trajectory.mask))
    for name in ('reward', 'action', 'observation'):
        assert largest_difference(update(unmasked._replace(**{name: changes[name]})), update(unmasked)) > 1e-4


def test_batch_of_nothing_but_restarts_moves_nothing():
    network, params = make_network()
    trajectory = make_trajectory()
    nothing = trajectory._replace(mask=jnp.zeros_like(trajectory.mask))
    rule = UpdateRule(OBJECTIVE, Optimiser(optax.identity(), 0.1))
    jax.tree.map(np.testing.assert_array_equal, updated_by(rule, network, params, nothing), params)


def test_learnable_paths_of_the_rule():
    assert set(learnable_paths(RULE)) == {
        'objective.terms.actor_critic.returns.discount',
        'objective.terms.actor_critic.returns.lambda_',
        'objective.terms.actor_critic.returns.alpha',
        'objective.terms.actor_critic.returns.rho_bar',
        'objective.terms.actor_critic.policy_cost',
        'objective.terms.actor_critic.value_cost',
        'objective.terms.actor_critic.entropy_cost',
        'objective.terms.outer_critic.returns.discount',
        'objective.terms.outer_critic.returns.lambda_',
        'objective.terms.outer_critic.cost',
        'optimiser.learning_rate',
    }


@pytest.mark.parametrize('stop_bootstrap_values', [False, True])
def test_traced_fields_give_the_update_of_constant_ones(stop_bootstrap_values):
    network, params = make_network()
    trajectory = make_trajectory()
    rule = dataclasses.replace(RULE, stop_bootstrap_values=stop_bootstrap_values)
    expected = updated_by(rule, network, params, trajectory)
    # Starts from other values, so that a field that were not replaced would show.
    other = MetaParameterSet({path: Scalar() for path in learnable_paths(RULE)}).bind(
        rule, {path: 0.5 for path in learnable_paths(RULE)}
    )
    for paths in ([*learnable_paths(rule)], *([path] for path in learnable_paths(rule))):
        entries = MetaParameterSet({path: Scalar() for path in paths})
        base = other if len(paths) > 1 else rule

        @jax.jit
        def update(meta_params, entries=entries, base=base):
            bound = entries.bind(base, meta_params)
            return bound.update(network, bound.init(params), trajectory)[0].params

        assert_trees_close(update(entries.init(jax.random.key(0), rule, SPEC)), expected)
        moved = entries.init(jax.random.key(0), rule, SPEC)
        moved[paths[0]] = moved[paths[0]] * 0.5
        assert largest_difference(update(moved), expected) > 1e-6


def test_traced_zero_costs_give_the_update_of_constant_ones():
    network, params = make_network()
    trajectory = make_trajectory()
    names = ('policy_cost', 'value_cost', 'entropy_cost')
    for kept in names:
        objective = ActorCritic(LambdaReturn(), **{name: 0.5 if name == kept else 0 for name in names})
        rule = UpdateRule(objective, Optimiser(optax.identity(), 0.1))
        entries = MetaParameterSet({f'objective.{name}': Scalar() for name in names})

        @jax.jit
        def update(meta_params, entries=entries, rule=rule):
            bound = entries.bind(rule, meta_params)
            return bound.update(network, bound.init(params), trajectory)[0].params

        expected = updated_by(rule, network, params, trajectory)
        assert_trees_close(update(entries.init(jax.random.key(0), rule, SPEC)), expected)
        assert largest_difference(expected, params) > 1e-4


@pytest.mark.usefixtures('x64')
def test_derivative_of_updates_with_respect_to_every_field():
    network, params = make_network(np.float64)
    trajectory = make_trajectory(np.float64)
    paths = learnable_paths(RULE)
    entries = MetaParameterSet({path: Scalar() for path in paths})

    @jax.jit
    def outcome(meta_params):
        bound = entries.bind(RULE, meta_params)
        learning = bound.init(params)
        for _ in range(2):
            learning, _ = bound.update(network, learning, trajectory)
        outputs = network.outputs(learning.params, trajectory)
        return sum(jnp.sin(output).sum() for output in outputs.values())

    meta_params = entries.init(jax.random.key(0), RULE, SPEC)
    gradient = jax.jit(jax.grad(outcome))(meta_params)
    step = 1e-6
    for path in paths:
        ahead, behind = ({**meta_params, path: meta_params[path] + s} for s in (step, -step))
        expected = (outcome(ahead) - outcome(behind)) / (2 * step)
        assert abs(expected) > 1e-5, path
        np.testing.assert_allclose(gradient[path], expected, rtol=1e-4, err_msg=path)


def test_stopped_bootstrap_values_change_the_meta_gradient_and_not_the_update():
    network, params = make_network()
    trajectory = make_trajectory()
    # Without a normalisation of the gradient, and with steps that move the values a good way.
    rule = UpdateRule(ActorCritic(LambdaReturn()), Optimiser(optax.identity(), 0.3))
    stopping = dataclasses.replace(rule, stop_bootstrap_values=True)
    path = 'objective.returns.discount'
    entries = MetaParameterSet({path: Scalar()})
    assert_trees_close(
        updated_by(stopping, network, params, trajectory), updated_by(rule, network, params, trajectory), 1e-6, 1e-7
    )

    def meta_gradient(rule, num_steps):
        def outcome(discount):
            bound = entries.bind(rule, {path: discount})
            learning = bound.init(params)
            for _ in range(num_steps):
                learning, _ = bound.update(network, learning, trajectory)
            return network.outputs(learning.params, trajectory)['value'].sum()

        return jax.jit(jax.grad(outcome))(0.9)

    # One step: the weights behind the targets do not depend on the field yet.
    np.testing.assert_allclose(meta_gradient(stopping, 1), meta_gradient(rule, 1), rtol=1e-4)
    assert abs(meta_gradient(stopping, 2) / meta_gradient(rule, 2) - 1) > 1e-3
