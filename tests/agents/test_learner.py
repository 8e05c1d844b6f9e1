import copy
import functools

import acme
import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from acme.utils import counting, loggers

from agents.experiments.checkpoints import Checkpointer
from agents.learner import Learner
from components.acting.host_actor import HostActor
from components.component import component
from components.environments.adapters.ale import Atari
from components.environments.adapters.host import HostEnvironment
from components.environments.base import make_timestep
from components.environments.batch import Batch
from components.environments.catch import Catch, HostCatch
from components.meta_optimisers.base import Fixed
from components.meta_optimisers.validation_data import FreshTrajectory
from components.meta_parameters.meta_parameters import MetaParameterSet
from components.networks.cores import GRU
from components.networks.network import Network
from components.networks.torsos import MLP, Convolutional
from components.types import CompositionError
from tests.helpers.agents_for_tests import DISCOUNT, make_agent, meta_gradient


@component
class NumUpdates:
    """Monitors how many updates an agent has taken."""

    def heads(self, spec):
        return {}

    def check(self, environment):
        pass

    def __call__(self, agent, network, environment):
        return agent.num_updates.astype(jnp.float32)


class Rows(loggers.Logger):
    """Keeps what it is given."""

    def __init__(self):
        self.rows = []

    def write(self, data):
        self.rows.append(data)

    def close(self):
        pass


def assert_equal(x, y):
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_rows_hold_counts_returns_losses_and_meta_parameters():
    rows, counter = Rows(), counting.Counter()
    agent = make_agent(meta_optimiser=meta_gradient(num_inner_steps=2))
    learner = Learner(agent, num_seeds=2, num_meta_steps=3, logger=rows, counter=counter)
    learner.run(2)
    row = rows.rows[-1]
    # 2 calls x 3 meta-steps x 2 updates of 4 steps in 5 environments.
    np.testing.assert_array_equal(row['env_steps'], [240, 240])
    assert (row['learner_updates'], row['meta_updates']) == (12, 6)
    np.testing.assert_array_equal(row['episode_length'], [3, 3])  # Of a grid with 4 rows.
    assert set(row) >= {
        'episode_return', 'loss/policy', 'loss/value', 'loss/entropy', f'meta/{DISCOUNT}', f'meta_gradient/{DISCOUNT}',
        'outer_loss/total',
    }  # fmt: skip
    assert all(np.shape(value) in ((), (2,)) for value in row.values())
    assert counter.get_counts()['meta_updates'] == 6


def test_fresh_validation_is_counted_apart():
    rows = Rows()
    agent = make_agent(meta_optimiser=meta_gradient(num_inner_steps=2, outer_data=FreshTrajectory(7)))
    Learner(agent, num_meta_steps=3, logger=rows).step()
    np.testing.assert_array_equal(rows.rows[0]['env_steps'], [3 * 2 * 4 * 5])
    np.testing.assert_array_equal(rows.rows[0]['validation_env_steps'], [3 * 7 * 5])


def test_episode_statistics_do_not_depend_on_how_often_the_host_is_asked():
    def returns(calls, num_meta_steps):
        rows = Rows()
        Learner(make_agent(), num_meta_steps=num_meta_steps, logger=rows).run(calls)
        return [row['episode_return'][0] for row in rows.rows]

    # Four steps in five environments, episodes of three: every meta-step ends 5 to 10 episodes.
    every, once = returns(6, 1), returns(1, 6)
    assert len(every) == 6
    assert min(every) <= once[0] <= max(every)


def test_a_seed_does_not_depend_on_the_seeds_beside_it():
    alone = [Learner(make_agent(), seed=seed, num_meta_steps=4) for seed in (3, 4)]
    together = Learner(make_agent(), seed=3, num_seeds=2, num_meta_steps=4)
    for learner in (*alone, together):
        learner.step()
    for i, learner in enumerate(alone):
        for a, b in zip(
            jax.tree.leaves(learner.state.agents.params), jax.tree.leaves(together.state.agents.params), strict=True
        ):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-6)


def test_plain_agents_have_seeds_and_lifetimes_too():
    agent = make_agent(meta_optimiser=Fixed(), meta_parameters=MetaParameterSet(), num_lifetimes=2)
    rows = Rows()
    learner = Learner(agent, num_seeds=3, num_meta_steps=4, logger=rows)
    learner.step()
    np.testing.assert_array_equal(rows.rows[0]['env_steps'], 3 * [4 * 4 * 5 * 2])
    weights = learner.state.agents.params['network/logits_head']['w']
    assert len({float(weight.sum()) for row in weights for weight in row}) == 6  # All different.


def test_the_same_seed_gives_the_same_run_and_another_gives_another():
    first, second, other = (Learner(make_agent(), seed=seed, num_meta_steps=3) for seed in (0, 0, 1))
    for learner in (first, second, other):
        learner.step()
    assert_equal(first.state, second.state)
    with pytest.raises(AssertionError):
        assert_equal(first.state, other.state)


def test_resuming_from_a_checkpoint_is_exact(tmp_path):
    agent = make_agent(num_lifetimes=2, network=Network(MLP((8,)), GRU(8)))
    learner = Learner(agent, num_seeds=2, num_meta_steps=3, counter=counting.Counter())
    learner.step()
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, learner.save())
    learner.step()
    state, counts = jax.tree.map(jnp.copy, learner.state), learner._counter.get_counts()

    other = Learner(agent, num_seeds=2, seed=7)
    learner.restore(checkpointer.restore({**other.save(), 'counts': counts}).state)
    checkpointer.close()
    learner.step()
    assert_equal(learner.state, state)
    jax.tree.map(np.testing.assert_array_equal, learner._counter.get_counts(), counts)


def test_it_is_a_variable_source_for_acme_actors():
    learner = Learner(make_agent(environment=Batch(Catch(), 4)), num_seeds=2)
    params, values = learner.get_variables(['params', 'meta_parameters'])
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
    assert values[DISCOUNT] == pytest.approx(0.9)
    result = acme.EnvironmentLoop(
        HostCatch(seed=0), HostActor(learner.network, learner), logger=loggers.NoOpLogger()
    ).run_episode()
    assert result['episode_length'] == 9


def test_plain_reinforcement_learning_learns_catch():
    learner = Learner(make_agent(environment=Batch(Catch(5, 3), 32), meta_optimiser=Fixed()), num_meta_steps=800)
    rows = Rows()
    learner._logger = rows
    learner.run(2)
    assert rows.rows[-1]['episode_return'][0] > 0.8


@pytest.mark.parametrize('num_seeds', [1, 2])
def test_an_environment_on_the_host_trains_in_the_same_learner(num_seeds):
    environment = HostEnvironment(functools.partial(HostCatch, 4, 3), 5, seed_argument='seed')
    rows = Rows()
    agent = make_agent(environment=environment, meta_optimiser=meta_gradient(num_inner_steps=2))
    learner = Learner(agent, num_seeds=num_seeds, num_meta_steps=5, logger=rows)
    learner.run(2)
    assert len(environment._batches) == num_seeds
    np.testing.assert_array_equal(rows.rows[-1]['env_steps'], [400] * num_seeds)
    np.testing.assert_array_equal(rows.rows[-1]['episode_length'], [3] * num_seeds)


def test_on_atari_a_seed_does_not_depend_on_the_seeds_beside_it_and_lifetimes_play_their_own_games():
    environment = Atari('breakout', 2, height=12, width=12, stack=1)
    agent = make_agent(environment=environment, num_lifetimes=2)
    together = Learner(agent, seed=3, num_seeds=2, num_meta_steps=8)
    jax.block_until_ready(together.state)
    assert len(environment._pool) == 4
    alone = Learner(agent, seed=4, num_meta_steps=8)
    jax.block_until_ready(alone.state)
    assert len(environment._pool) == 6
    for learner in (together, alone):
        learner.step()
    played, expected = (learner.state.agents.trajectory for learner in (together, alone))
    for ours, theirs in ((played.action, expected.action), (played.observation, expected.observation)):
        np.testing.assert_array_equal(ours[1], theirs[0])
    assert len({np.asarray(played.observation[i, j]).tobytes() for i in range(2) for j in range(2)}) == 4
    assert len(environment._pool) == 6


def test_masked_transitions_are_not_counted():
    """Episodes of three steps that end by truncation: every fourth step is a restart."""

    class Truncating(Catch):
        def step(self, state, action, key):
            state, timestep = super().step(state, action, key)
            last = timestep.last()
            return state, make_timestep(timestep.observation, timestep.reward, 1, last=last)

    rows = Rows()
    Learner(make_agent(environment=Batch(Truncating(4, 3), 5)), num_meta_steps=4, logger=rows).step()
    np.testing.assert_array_equal(rows.rows[0]['env_steps'], [4 * 5 * 3])
    np.testing.assert_array_equal(rows.rows[0]['episode_length'], [3])


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        ({'unroll_length': 0}, 'unroll_length must be at least 1'),
        ({'num_lifetimes': 0}, 'num_lifetimes must be at least 1'),
        ({'network': Network(Convolutional())}, r'takes observations \[H, W, C\], got shape \(4, 3\)'),
        ({'network': Network(MLP(), head_torsos={'q': MLP()})}, 'names q; the objectives ask for the heads logits'),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, message):
    with pytest.raises(CompositionError, match=message):
        make_agent(**parts)


def test_the_whole_agent_is_one_tree_of_plain_dataclasses():
    agent = make_agent()
    assert isinstance(agent.environment.reset(jax.random.key(0))[1], dm_env.TimeStep)
    assert agent.steps_per_meta_step == 4 * 5
    assert hash(agent.update_rule.objective) == hash(make_agent().update_rule.objective)


def test_diagnostics_of_some_meta_steps_are_means_over_these():
    def rows_of(every, num_meta_steps):
        rows = []
        learner = Learner(make_agent(monitors={'age': NumUpdates()}, diagnostics_every=every), num_seeds=2)
        learner._logger.write = lambda row: rows.append(copy.deepcopy(row))
        for n in num_meta_steps:
            learner.advance(n)
        return learner, rows

    every_step, singles = rows_of(1, [1] * 7)
    some, (first, second) = rows_of(3, [5, 2])
    names = 'inner_loop/policy_kl', 'monitor/age'
    for row, measured in ((first, (0, 3)), (second, (5,))):
        for name in names:
            np.testing.assert_allclose(row[name], np.mean([singles[i][name] for i in measured], 0), rtol=1e-5)
    np.testing.assert_allclose(first['loss/value'], np.mean([x['loss/value'] for x in singles[:5]], 0), rtol=1e-5)
    for ours, theirs in zip(*(jax.tree.leaves(x.state.agents.params) for x in (some, every_step)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_counts_of_a_log_period_are_exact_beyond_32_bits():
    class AsIfMany(Learner):
        """Counts each meta-step a hundred million times."""

        def meta_step(self, state, values=None, is_measured=True):
            state, metrics = super().meta_step(state, values, is_measured)
            many = jax.tree.map(
                lambda x: x * jnp.int32(100_000_000) if jnp.issubdtype(x.dtype, jnp.integer) else x, metrics.episodes
            )
            return state, metrics._replace(episodes=many._replace(num_episodes=jnp.int32(400_000_000)))

    rows = []
    learner = AsIfMany(make_agent())
    learner._logger.write = lambda row: rows.append(copy.deepcopy(row))
    for num_meta_steps in (3, 200, 1):
        learner.advance(num_meta_steps)
    steps = 100_000_000 * learner.agent.steps_per_meta_step  # 20 steps, 2e9.
    assert steps == 2_000_000_000
    assert [row['env_steps'].tolist() for row in rows] == [[3 * steps], [203 * steps], [204 * steps]]
    lengths = rows[1]['episode_length'] * 200 * 400_000_000 / 100_000_000
    np.testing.assert_allclose(lengths, np.round(lengths), rtol=1e-9)
    assert lengths > 200  # As many steps belonged to episodes that ended.


def test_a_meta_step_of_more_steps_than_can_be_counted_is_refused():
    with pytest.raises(CompositionError, match=r'a meta-step is 8,589,934,592 environment steps'):
        make_agent(environment=Batch(Catch(4, 3), 2**16), unroll_length=2**17)


def test_what_runs_and_resumes_are_the_programs_that_were_compiled(tmp_path, caplog):
    learner = Learner(make_agent())
    learner.compile()
    with jax.log_compiles():
        learner.advance(1)
        assert 'Finished XLA compilation' not in caplog.text
        jax.jit(lambda x: x + 1)(1)
        assert 'Finished XLA compilation' in caplog.text  # It would have been seen.
    checkpointer = Checkpointer(tmp_path / 'checkpoints')
    checkpointer.save(1, learner.save())
    checkpointer.close()
    learner.restore(Checkpointer(tmp_path / 'checkpoints').restore_newest(learner.save(), pytest.fail).state)
    learner.advance(1)
    assert learner._compiled_steps._cache_size() == 1


def test_a_learner_that_is_not_asked_for_its_state_compiles_nothing(caplog):
    agent = make_agent()  # Whose checks compile small programs of their own.
    with jax.log_compiles():
        learner = Learner(agent)
        learner.trace()
    assert 'Finished XLA compilation' not in caplog.text


def test_compiling_takes_no_step():
    once, compiled = Learner(make_agent()), Learner(make_agent())
    compiled.compile()
    for learner in (once, compiled):
        learner.advance(2)
    jax.tree.map(
        np.testing.assert_array_equal, *(jax.device_get(learner.state.agents.params) for learner in (once, compiled))
    )


@pytest.mark.parametrize('seed', [0, 5, 2**31, 2**32 - 1])
def test_seeds_have_32_bits(seed):
    state = Learner(make_agent(), seed=seed).state
    expected = jax.random.split(jax.random.key(np.uint32(seed)))
    assert state.agents.key.shape == (1, 1)
    assert expected.shape == (2,)
    with pytest.raises(ValueError, match=r'seed must be in'):
        Learner(make_agent(), seed=2**32)
