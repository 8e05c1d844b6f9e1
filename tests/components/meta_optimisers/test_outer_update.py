import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.learner import Learner
from components.environments.batch import Batch
from components.environments.catch import Catch
from components.inner_loop import AgentState
from components.meta_optimisers import outer_update
from components.meta_optimisers.base import LearnerState
from components.meta_optimisers.gradient_estimators.base import Estimate
from components.meta_optimisers.outer_loss import UnrollResult
from components.meta_parameters.bijectors import Sigmoid
from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.networks.cores import LSTM
from components.networks.network import Network
from components.networks.torsos import MLP
from components.types import CompositionError
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient


class Stub:
    """A learner's lifetimes whose meta-gradients are given."""

    def __init__(self, num_lifetimes=3):
        learner = Learner(make_agent(num_lifetimes=num_lifetimes))
        self.inner_loop = learner.inner_loop
        state = jax.tree.map(lambda x: x[0], learner.state)
        agent = jax.tree.map(lambda x: x[0], state.agents)
        _, self.metrics = jax.jit(learner.inner_loop.advance)(state.meta_params, agent)
        self.optimiser = optax.sgd(0.5)
        meta_params = {'scalar': jnp.float32(1.0), 'network': {'w': jnp.zeros(2), 'b': jnp.zeros(())}}
        gradients = jnp.arange(float(num_lifetimes))  # Of each lifetime, through the memory that it keeps.
        opt_state = outer_update.init(self.optimiser, meta_params, gradients)
        self.state = LearnerState(state.agents, meta_params, opt_state)

    def descend(self, scale=1.0):
        def estimate(agent: AgentState, lifetime_state):
            x = scale * (lifetime_state + 1)
            gradient = {'scalar': x, 'network': {'w': jnp.array([3.0, 0.0]) * x, 'b': 4 * x}}
            per_update = jax.tree.map(lambda g: jnp.stack([0.25 * g, 0.75 * g]), gradient)
            metrics = self.metrics._replace(logs={})
            return Estimate(gradient, per_update, UnrollResult(agent, metrics, None, None, lifetime_state + 10))

        self.state, metrics = outer_update.outer_update(estimate, self.optimiser, self.state, self.inner_loop, {})
        return {str(name): float(x) for name, x in metrics.logs.items()}


def test_a_step_follows_the_mean_over_lifetimes_and_keeps_their_memories():
    stub = Stub()
    logs = stub.descend()
    assert float(stub.state.meta_params['scalar']) == pytest.approx(1 - 0.5 * 2)  # Mean of 1, 2 and 3.
    np.testing.assert_allclose(stub.state.meta_opt_state.lifetime_state, [10, 11, 12])
    assert logs['meta_gradient/scalar'] == pytest.approx(2)
    assert logs['meta_gradient/network'] == pytest.approx(10)  # Norm of (6, 0, 8).
    assert logs['meta_gradient_by_update/scalar/1'] == pytest.approx(0.5)
    assert logs['meta_gradient_by_update/network/2'] == pytest.approx(7.5)


def test_signal_to_noise_is_the_mean_over_the_spread_of_lifetimes():
    logs = Stub().descend()
    assert logs['meta_gradient_signal_to_noise/scalar'] == pytest.approx(2 / 1)  # Standard deviation of 1, 2, 3.
    assert logs['meta_gradient_signal_to_noise/network'] == pytest.approx(10 / 5)
    assert not [name for name in Stub(1).descend() if 'signal_to_noise' in name]


def test_the_cosine_compares_with_the_previous_meta_gradient():
    stub = Stub()
    assert stub.descend()['meta_gradient_cosine/scalar'] == 0  # There was none before.
    assert stub.descend()['meta_gradient_cosine/network'] == pytest.approx(1)
    assert stub.descend(scale=-3.0)['meta_gradient_cosine/scalar'] == pytest.approx(-1)


@pytest.mark.parametrize('network', [Network(MLP((16,))), Network(MLP((8,)), LSTM(8))])
def test_policy_kl_is_that_of_the_acting_policy_from_the_new_one(network):
    learner = Learner(make_agent(environment=Batch(Catch(4, 3), 40), network=network))
    agent = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    kl = jax.jit(lambda params: outer_update.policy_kl(learner.inner_loop, params, agent.trajectory))
    assert abs(kl(agent.params)) < 1e-6
    moved = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), agent.params)
    logits = learner.network.outputs(moved, agent.trajectory)['logits'][:-1, : outer_update.MAX_KL_ENVS]
    p = np.asarray(jax.nn.softmax(agent.trajectory.behaviour_policy.logits[:, : outer_update.MAX_KL_ENVS]), float)
    expected = (p * np.log(p / np.asarray(jax.nn.softmax(logits), float))).sum(-1).mean()
    assert float(kl(moved)) == pytest.approx(expected, rel=1e-3)
    assert expected > 1e-4


def test_a_run_logs_what_is_known_of_its_meta_gradients():
    rows = []
    agent = make_agent(meta_optimiser=meta_gradient(num_inner_steps=2), num_lifetimes=2)
    learner = Learner(agent, num_seeds=3)
    learner._logger.write = rows.append
    learner.advance(4)
    (row,) = rows
    gradient = row[f'meta_gradient/{DISCOUNT}']
    parts = [row[f'meta_gradient_by_update/{DISCOUNT}/{k}'] for k in (1, 2)]
    np.testing.assert_allclose(sum(parts), gradient, rtol=1e-4)
    expected = abs(gradient.mean()) / gradient.std(ddof=1)
    assert row[f'meta_gradient_signal_to_noise_over_seeds/{DISCOUNT}'] == pytest.approx(expected)
    assert np.all(row[f'meta_gradient_signal_to_noise/{DISCOUNT}'] > 0)
    assert np.all(np.abs(row[f'meta_gradient_cosine/{DISCOUNT}']) <= 1)
    assert np.all(row['inner_update/norm'] > 0)
    assert np.all(row['inner_loop/policy_kl'] > 0)


class Overflowing:
    """A value whose derivative is not a number."""

    low = high = None

    def forward(self, x):
        return 0.9 + 0 * jnp.sqrt(x - x)

    def inverse(self, y):
        return y


def test_a_meta_gradient_that_is_not_a_number_stops_the_run_and_names_the_path():
    parameters = MetaParameterSet({DISCOUNT: Scalar(Overflowing()), 'objective.returns.lambda_': Scalar(Sigmoid())})
    with pytest.raises(CompositionError, match=f"'{DISCOUNT}': its meta-gradient is not a finite number"):
        Learner(make_agent(meta_parameters=parameters)).advance(1)
