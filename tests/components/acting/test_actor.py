import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import acme
import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme import specs
from acme.utils import loggers

from components.acting.action_distributions import Categorical, select_action
from components.acting.actor import Actor
from components.acting.host_actor import HostActor
from components.acting.policies import Softmax
from components.acting.rewards import Clipped, Raw, SignedLog
from components.environments.adapters.ale import Atari
from components.environments.base import make_timestep
from components.environments.batch import Batch
from components.environments.catch import HostCatch
from components.networks.cores import GRU, LSTM
from components.networks.network import Network, NetworkFunctions
from components.networks.torsos import MLP

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
NUM_ACTIONS = 3
HEADS = {'logits': (NUM_ACTIONS,), 'value': ()}


class ProbeState(NamedTuple):
    length: jax.Array
    last_discount: jax.Array
    count: jax.Array


@dataclasses.dataclass(frozen=True)
class Probe:
    """Random observations; an episode ends after one of `lengths` steps with one of `last_discounts`, drawn at random.

    A reward is the count of steps in the episode, plus a tenth of the action.
    """

    lengths: Sequence[int]
    last_discounts: Sequence[float]

    def spec(self):
        return specs.EnvironmentSpec(
            observations=specs.Array((2,), np.float32),
            actions=specs.DiscreteArray(NUM_ACTIONS),
            rewards=specs.Array((), np.float32),
            discounts=specs.BoundedArray((), np.float32, 0, 1),
        )

    def reset(self, key):
        length_key, discount_key, observation_key = jax.random.split(key, 3)
        length = jax.random.choice(length_key, jnp.asarray(self.lengths))
        last_discount = jax.random.choice(discount_key, jnp.asarray(self.last_discounts))
        observation = jax.random.normal(observation_key, (2,))
        return ProbeState(length, last_discount, jnp.int32(0)), make_timestep(observation, first=True)

    def step(self, state, action, key):
        state = state._replace(count=state.count + 1)
        last = state.count == state.length
        reward, discount = state.count + action / 10, jnp.where(last, state.last_discount, 1)
        return state, make_timestep(jax.random.normal(key, (2,)), reward, discount, last=last)


MIXED = Probe((1, 2, 3, 5), (0.0, 1.0))
RECURRENT = pytest.mark.parametrize('core', [LSTM(4), GRU(4)], ids=['lstm', 'gru'])
STREAMS = pytest.mark.parametrize(
    ('core', 'shared'), [(LSTM(4), True), (GRU(4), False)], ids=['lstm_shared', 'gru_per_head']
)


@functools.cache
def make_network(core, shared: bool = True) -> NetworkFunctions:
    return Network(MLP((6,)), core, shared).functions(MIXED.spec(), HEADS)


@functools.cache
def make_params(network: NetworkFunctions):
    """Weights large enough for the recurrent state to matter."""
    return jax.tree.map(lambda w: 2 * w, jax.jit(network.init)(jax.random.key(1)))


def constant_network(logits_of=lambda params: params) -> NetworkFunctions:
    """Logits that are the parameters, whatever is seen."""

    def step(params, observation, first, core_state):
        logits = logits_of(params)
        return {'policy': jnp.broadcast_to(logits, (*first.shape, *logits.shape))}, core_state

    return NetworkFunctions(
        lambda key: jnp.zeros(NUM_ACTIONS), lambda batch_size: {}, step, lambda *args: step(*args)[0]
    )


def counting_network() -> NetworkFunctions:
    """Its state counts the steps since the last reset; the action it prefers is that count, modulo 3."""

    def step(params, observation, first, core_state):
        count = jnp.where(first, 0, core_state)
        return {'logits': params * jax.nn.one_hot(count % NUM_ACTIONS, NUM_ACTIONS)}, count + 1

    return NetworkFunctions(lambda key: jnp.ones(()), lambda batch_size: jnp.zeros(batch_size, int), step, None)


def unrolls(actor: Actor, params, lengths: Sequence[int]):
    """States, trajectories and totals of consecutive unrolls."""
    unroll = jax.jit(actor.unroll, static_argnums=3)
    state, results = jax.jit(actor.init)(jax.random.key(0)), []
    for i, length in enumerate(lengths):
        state, trajectory, episodes = unroll(params, state, jax.random.key(100 + i), length)
        results.append((state, trajectory, episodes))
    return results


def assert_close(actual, expected, **tolerances):
    tolerances = {'rtol': 1e-5, 'atol': 1e-6, **tolerances}
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerances), actual, expected)


def chi_square(counts, probabilities) -> float:
    expected = np.sum(counts) * np.asarray(probabilities)
    return float(np.sum((np.asarray(counts) - expected) ** 2 / expected))


# Unrolls inside the compiled learner.


def loop_unroll(environment, network, params, state, key, unroll_length, running, transform):
    """Acts in a plain loop; `running` holds returns and length so far of each member, as Python lists."""
    step, environment_step = jax.jit(network.step), jax.jit(environment.step)
    environment_state, timestep, core_state = state.environment, state.timestep, state.core_state
    records = {name: [] for name in ('observation', 'first', 'action', 'reward', 'discount', 'mask', 'logits')}
    totals = {'num_steps': 0, 'num_episodes': 0, 'return_sum': 0.0, 'length_sum': 0, 'transformed_return_sum': 0.0}
    for step_key in jax.random.split(key, unroll_length):
        action_key, environment_key = jax.random.split(step_key)
        first = timestep.step_type == FIRST
        records['observation'].append(timestep.observation)
        records['first'].append(first)
        outputs, core_state = step(params, timestep.observation, first, core_state)
        action = jax.random.categorical(action_key, outputs['logits'])
        previous = timestep
        environment_state, timestep = environment_step(environment_state, action, environment_key)
        records['logits'].append(outputs['logits'])
        records['action'].append(action)
        records['reward'].append(transform(timestep.reward))
        records['discount'].append(timestep.discount)
        rewards, before, after = map(np.asarray, (timestep.reward, previous.step_type, timestep.step_type))
        mask = []
        for i in range(environment.batch_size):
            if before[i] == LAST:
                mask.append(0.0)
                continue
            mask.append(1.0)
            totals['num_steps'] += 1
            running['return'][i] += float(rewards[i])
            running['transformed'][i] += float(transform(rewards)[i])
            running['length'][i] += 1
            if after[i] != MID:
                totals['num_episodes'] += 1
                totals['return_sum'] += running['return'][i]
                totals['length_sum'] += running['length'][i]
                totals['transformed_return_sum'] += running['transformed'][i]
                running['return'][i], running['length'][i], running['transformed'][i] = 0.0, 0, 0.0
        records['mask'].append(mask)
    records['observation'].append(timestep.observation)
    records['first'].append(timestep.step_type == FIRST)
    state = state._replace(environment=environment_state, timestep=timestep, core_state=core_state)
    return state, {name: np.stack(values) for name, values in records.items()}, totals


@pytest.mark.parametrize(
    ('core', 'reward', 'transform'),
    [
        (LSTM(4), Raw(), lambda reward: reward),
        (GRU(4), Clipped(1.05, 2.5), lambda reward: np.clip(reward, 1.05, 2.5)),
        (GRU(4), SignedLog(), lambda reward: np.log(1 + np.asarray(reward))),
    ],
    ids=['lstm_raw', 'gru_clipped', 'gru_signed_log'],
)
def test_unroll_equals_a_plain_loop(core, reward, transform):
    environment, network = Batch(MIXED, 4), make_network(core)
    params = make_params(network)
    actor = Actor(environment, network, reward=reward)
    unroll = jax.jit(actor.unroll, static_argnums=3)
    state = looped = jax.jit(actor.init)(jax.random.key(0))
    running = {'return': [0.0] * 4, 'length': [0] * 4, 'transformed': [0.0] * 4}
    endings = {'terminated': 0, 'truncated': 0}
    for seed in range(3):
        key, core_state = jax.random.key(100 + seed), looped.core_state
        looped, records, totals = loop_unroll(environment, network, params, looped, key, 9, running, transform)
        state, trajectory, episodes = unroll(params, state, key, 9)

        np.testing.assert_array_equal(trajectory.first, records['first'])
        np.testing.assert_array_equal(trajectory.action, records['action'])
        np.testing.assert_array_equal(trajectory.mask, records['mask'])
        np.testing.assert_array_equal(trajectory.discount, records['discount'])
        assert_close(trajectory.observation, records['observation'])
        assert_close(trajectory.reward, records['reward'])
        assert_close(trajectory.behaviour_policy.logits, records['logits'])
        assert_close(trajectory.core_state, core_state)
        assert_close(state.core_state, looped.core_state)
        assert_close(state.timestep, looped.timestep)
        assert_close(state.episode_return, np.asarray(running['return']))
        assert_close(
            jax.tree.leaves(state.transformed_return), [np.asarray(running['transformed'])] * (reward != Raw())
        )
        np.testing.assert_array_equal(state.episode_length, running['length'])
        assert_close(episodes._asdict(), totals)

        assert trajectory.action.dtype == jnp.int32
        assert trajectory.first.dtype == jnp.bool_
        endings['truncated'] += int(np.sum(records['mask'] == 0))
        endings['terminated'] += int(np.sum((records['mask'] == 1) & (records['discount'] == 0)))
    assert endings['truncated'] > 5
    assert endings['terminated'] > 5


def test_on_atari_restarts_alone_are_masked_and_lost_lives_reset_nothing():
    environment = Atari('breakout', 2, height=12, width=12, stack=1, max_frames=800)
    network = Network(MLP((6,)), LSTM(4)).functions(environment.spec(), {'logits': (4,), 'value': ()})
    actor, params = Actor(environment, network), network.init(jax.random.key(1))

    def step(state, key):
        after, taken = actor.step(params, state, key)
        return after, (state.timestep, state.environment.lives, after.timestep, after.environment.lives, taken)

    start = jax.jit(actor.init)(jax.random.key(0))
    state, trajectory, episodes = jax.jit(actor.unroll, static_argnums=3)(params, start, jax.random.key(2), 300)
    environment.close(state.environment)
    start = jax.jit(actor.init)(jax.random.key(0))
    _, records = jax.jit(lambda *args: jax.lax.scan(step, *args))(start, jax.random.split(jax.random.key(2), 300))
    before, lives_before, after, lives, taken = jax.device_get(records)

    restarts = before.step_type == LAST
    np.testing.assert_array_equal(trajectory.mask, ~restarts)
    np.testing.assert_array_equal(trajectory.first[1:], restarts)
    lost = (lives < lives_before) & (after.step_type == MID)
    assert lost.sum() > 5
    assert not trajectory.first[1:][lost].any()

    # Returns are the scores between restarts; an episode goes on over a lost life.
    returns, lengths = [], []
    for i in range(2):
        (ends,) = np.nonzero(after.step_type[:, i] == LAST)
        parts = np.split(after.reward[:, i], ends + 1)[: len(ends)]
        returns += [part.sum() for part in parts]
        lengths += [len(part) - (j > 0) for j, part in enumerate(parts)]  # Later ones begin with a restart.
    assert episodes.num_episodes == len(returns) >= 2
    assert episodes.return_sum == sum(returns) > 0
    assert episodes.length_sum == sum(lengths)
    assert_close(taken.episode_return[taken.ended].sum(), sum(returns))

    # Along the trajectory, the network does what it did when it acted.
    outputs = jax.jit(network.unroll)(params, trajectory.observation, trajectory.first, trajectory.core_state)
    assert_close(outputs['logits'][:-1], trajectory.behaviour_policy.logits, rtol=1e-4, atol=1e-5)


@STREAMS
def test_running_the_network_again_reproduces_the_logits(core, shared):
    network = make_network(core, shared)
    params = make_params(network)
    outputs = jax.jit(network.outputs)
    restarts, changed = 0, 0
    for _, trajectory, _ in unrolls(Actor(Batch(MIXED, 4), network), params, [7] * 4):
        logits = outputs(params, trajectory)['logits']
        assert logits.shape == (8, 4, NUM_ACTIONS)
        assert_close(logits[:-1], trajectory.behaviour_policy.logits, rtol=1e-4, atol=1e-5)
        log_ratios = jax.nn.log_softmax(logits[:-1]) - jax.nn.log_softmax(trajectory.behaviour_policy.logits)
        assert_close(jnp.exp(log_ratios), jnp.ones_like(log_ratios), rtol=1e-4)
        restarts += int(np.sum(trajectory.first[1:-1]))
        never_reset = trajectory._replace(first=jnp.zeros_like(trajectory.first))
        without = outputs(params, never_reset)['logits'][:-1]
        changed += float(np.abs(without - trajectory.behaviour_policy.logits).max()) > 1e-2
    assert restarts > 10
    assert changed == 4


@STREAMS
def test_recurrent_unroll_resets_where_first_says(core, shared):
    network = make_network(core, shared)
    params = make_params(network)
    keys = jax.random.split(jax.random.key(0), 2)
    observation = jax.random.normal(keys[0], (12, 5, 2))
    first = jax.random.bernoulli(keys[1], 0.3, (12, 5))
    assert 0 < jnp.sum(first[0]) < 5
    carry = jax.tree.map(lambda x: 1 + 0.1 * jnp.arange(x.size).reshape(x.shape), network.initial_state(5))

    unroll, step = jax.jit(network.unroll), jax.jit(network.step)
    unrolled = unroll(params, observation, first, carry)
    stepped, core_state = [], carry
    for t in range(12):
        outputs, core_state = step(params, observation[t], first[t], core_state)
        stepped.append(outputs)
    assert_close(unrolled, jax.tree.map(lambda *xs: jnp.stack(xs), *stepped), rtol=1e-4, atol=1e-5)

    # After a reset nothing is left of what came before.
    for t in range(12):
        fresh, _ = step(params, observation[t], jnp.zeros(5, bool), network.initial_state(5))
        assert_close(unrolled['logits'][t, first[t]], fresh['logits'][first[t]], rtol=1e-4, atol=1e-5)

    for wrong in (~first, jnp.roll(first, 1, 0), jnp.roll(first, -1, 0)):
        logits = unroll(params, observation, wrong, carry)['logits']
        assert float(jnp.abs(logits - unrolled['logits']).max()) > 1e-2


def totals_of(probe: Probe, lengths: Sequence[int]) -> list[list[float]]:
    """Steps, episodes, returns and lengths of consecutive unrolls of a policy that always takes action 0, in one
    environment.
    """
    actor = Actor(Batch(probe, 1), constant_network(), policy=Softmax('policy'), greedy=True)
    return [[x.item() for x in episodes[:4]] for _, _, episodes in unrolls(actor, jnp.array([1.0, 0.0, 0.0]), lengths)]


def test_totals_of_terminated_episodes_by_hand():
    # Rewards 1, 2, 3 in each episode; episodes end with steps 3 and 6 and 9, unrolls with 5 and 10.
    assert totals_of(Probe((3,), (0.0,)), [5, 5]) == [[5, 1, 6, 3], [5, 2, 12, 6]]


def test_totals_of_truncated_episodes_by_hand():
    # Steps 4 and 8 are restarts; episodes end with steps 3 and 7.
    assert totals_of(Probe((3,), (1.0,)), [5, 5]) == [[4, 1, 6, 3], [4, 1, 6, 3]]


def test_unrolls_that_end_or_start_with_a_restart():
    # Episodes end with steps 3, 7 and 11; unrolls with 3, 4, 5, 8 and 11.
    assert totals_of(Probe((3,), (1.0,)), [3, 1, 1, 3, 3]) == [
        [3, 1, 6, 3],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
        [2, 1, 6, 3],
        [3, 1, 6, 3],
    ]


def test_an_episode_longer_than_an_unroll_counts_once():
    assert totals_of(Probe((7,), (0.0,)), [3, 3, 3]) == [[3, 0, 0, 0], [3, 0, 0, 0], [3, 1, 28, 7]]


def test_totals_are_scalars_of_their_types():
    actor = Actor(Batch(MIXED, 2), constant_network(), policy=Softmax('policy'))
    state = jax.eval_shape(actor.init, jax.random.key(0))
    unroll = functools.partial(actor.unroll, unroll_length=4)
    _, _, episodes = jax.eval_shape(unroll, jnp.zeros(NUM_ACTIONS), state, jax.random.key(0))
    assert [x.dtype for x in episodes] == [jnp.int32, jnp.int32, jnp.float32, jnp.int32, jnp.float32]
    assert all(x.shape == () for x in episodes)


# Actions.


def test_greedy_takes_the_mode():
    logits = jnp.array([[0.0, 0.1, -1.0], [3.0, -2.0, 2.9], [-5.0, -4.0, -3.0]])
    for seed in range(5):
        action = select_action(Categorical(logits), jax.random.key(seed), greedy=True)
        assert action.dtype == jnp.int32
        assert action.tolist() == [1, 0, 2]


def test_a_greedy_actor_takes_the_mode():
    network = make_network(LSTM(4))
    ((_, trajectory, _),) = unrolls(Actor(Batch(MIXED, 4), network, greedy=True), make_params(network), [20])
    np.testing.assert_array_equal(trajectory.action, np.argmax(trajectory.behaviour_policy.logits, -1))
    assert len(np.unique(trajectory.action)) > 1


def test_actions_are_drawn_from_the_softmax():
    logits = jnp.array([[1.0, 0.0, -1.0], [-0.5, 2.0, -0.5]])
    actions = select_action(Categorical(jnp.broadcast_to(logits, (5000, 2, 3))), jax.random.key(0))
    assert actions.shape == (5000, 2)
    assert actions.dtype == jnp.int32
    for i in range(2):
        # Two degrees of freedom: above 14 once in a thousand.
        assert chi_square(np.bincount(actions[:, i], minlength=3), jax.nn.softmax(logits[i])) < 14


def test_an_actor_draws_every_action_afresh():
    logits = jnp.array([1.0, 0.0, -1.0])
    actor = Actor(Batch(MIXED, 50), constant_network(), policy=Softmax('policy'))
    ((_, one, _), (_, two, _)) = unrolls(actor, logits, [40, 40])
    assert_close(one.behaviour_policy.logits, jnp.broadcast_to(logits, (40, 50, 3)))
    actions = np.concatenate([one.action, two.action])
    probabilities = np.asarray(jax.nn.softmax(logits))
    assert chi_square(np.bincount(actions.ravel(), minlength=3), probabilities) < 14
    # Neighbours in time and in the batch, and equal places of the two unrolls, are independent: 8 degrees of freedom.
    pairs = (actions[1:], actions[:-1]), (actions[:, 1:], actions[:, :-1]), (one.action, two.action)
    for left, right in pairs:
        counts = np.bincount(np.ravel(3 * left + right), minlength=9)
        assert chi_square(counts, np.outer(probabilities, probabilities).ravel()) < 27


def test_no_gradient_flows_through_acting():
    network = make_network(LSTM(4))
    params = make_params(network)
    actor = Actor(Batch(MIXED, 2), network)
    start = jax.jit(actor.init)(jax.random.key(0))

    def everything(params):
        state, one, _ = actor.unroll(params, start, jax.random.key(1), 4)
        state, two, episodes = actor.unroll(params, state, jax.random.key(2), 4)
        floating = [
            leaf
            for leaf in jax.tree.leaves((one, two, episodes, state.core_state, state.timestep, state.episode_return))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        return sum(jnp.sum(leaf**2) for leaf in floating), one

    (_, trajectory), gradient = jax.jit(jax.value_and_grad(everything, has_aux=True))(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))

    # The same logits, computed by the learner, do have one.
    gradient = jax.jit(jax.grad(lambda params: jnp.sum(network.outputs(params, trajectory)['logits'] ** 2)))(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 1e-3


# The actor on the host.


class Variables(acme.VariableSource):
    def __init__(self, params):
        self.params, self.num_calls = params, 0

    def get_variables(self, names):
        assert list(names) == ['params']
        self.num_calls += 1
        return [self.params]


def act(actor: HostActor, observations) -> list[int]:
    """Acts on one episode's observations."""
    actor.observe_first(dm_env.restart(observations[0]))
    actions = []
    for observation in observations:
        actions.append(int(actor.select_action(observation)))
        actor.observe(actions[-1], dm_env.transition(0.0, observation))
    return actions


def test_host_actor_runs_in_acmes_loop():
    environment = HostCatch(rows=5, columns=3, seed=0)
    spec = specs.make_environment_spec(environment)
    network = Network(MLP((8,)), LSTM(4)).functions(spec, HEADS)
    variables = Variables(jax.jit(network.init)(jax.random.key(0)))
    actor = HostActor(network, variables)
    assert variables.num_calls == 1
    loop = acme.EnvironmentLoop(environment, actor, logger=loggers.NoOpLogger())
    results = [loop.run_episode() for _ in range(3)]
    assert [result['episode_length'] for result in results] == [4] * 3
    assert all(abs(result['episode_return']) == 1 for result in results)
    assert variables.num_calls == 1 + 3 * 4
    action = actor.select_action(environment.reset().observation)
    assert isinstance(action, np.ndarray | np.int32)
    spec.actions.validate(action)


def test_host_actor_counts_from_each_reset():
    actor = HostActor(counting_network(), Variables(jnp.float32(1.0)), greedy=True)
    assert act(actor, np.zeros((5, 2), np.float32)) == [0, 1, 2, 0, 1]
    assert act(actor, np.zeros((4, 2), np.float32)) == [0, 1, 2, 0]
    assert int(actor.select_action(np.zeros(2, np.float32))) == 1  # No reset without `observe_first`.


@RECURRENT
def test_host_actor_equals_the_networks_unroll(core):
    network = make_network(core)
    params = make_params(network)
    actor = HostActor(network, Variables(params), greedy=True)
    observations = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    first = np.zeros((30, 1), bool)
    first[0] = True
    outputs = jax.jit(network.unroll)(params, observations[:, None], first, network.initial_state(1))
    expected = np.argmax(outputs['logits'][:, 0], -1).tolist()
    assert len(set(expected)) > 1
    assert act(actor, observations) == expected
    assert act(actor, observations) == expected


def test_host_actor_takes_new_weights_when_told():
    variables = Variables(jnp.array([0.0, 1.0, 0.0]))
    actor = HostActor(constant_network(), variables, policy=Softmax('policy'), greedy=True)
    observations = np.zeros((2, 2), np.float32)
    assert act(actor, observations) == [1, 1]
    variables.params = jnp.array([0.0, 1.0, 2.0])
    assert act(actor, observations) == [1, 1]
    actor.update()
    assert act(actor, observations) == [2, 2]


def test_host_actor_draws_from_the_softmax_by_its_seed():
    logits = jnp.array([1.0, 0.0, -1.0])
    observations = np.zeros((600, 2), np.float32)

    def draw(seed):
        return act(HostActor(constant_network(), Variables(logits), seed, policy=Softmax('policy')), observations)

    actions = draw(0)
    assert chi_square(np.bincount(actions, minlength=3), jax.nn.softmax(logits)) < 14
    assert draw(0) == actions
    assert draw(1) != actions
