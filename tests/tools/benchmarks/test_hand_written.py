"""The loops that the learner's speed is compared with: they train the same agent."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from components.inner_loop import acting_loop
from components.meta_optimisers.base import LearnerState
from components.replay import Replay, ReplaySource
from tools.benchmarks.hand_written import lpg, lpg_parts, meta_discount, parts
from tools.benchmarks.hand_written.actor_critic import HandWrittenActorCritic
from tools.benchmarks.hand_written.recurrent import HandWrittenRecurrentActorCritic


def agent_of(file, *bindings):
    gin_config.load([file], bindings)
    return gin_config.build(Experiment).agent


def by_shape(params):
    """A network of which each layer has weights of another shape than all others."""
    leaves = {leaf.shape: np.asarray(leaf) for leaf in jax.tree.leaves(params)}
    assert len(leaves) == len(jax.tree.leaves(params)) == 6
    return leaves


def test_the_recurrent_loop_learns_what_the_learner_does():
    """Also from later trajectories: by then Adam has moments, and both schedules have moved."""
    learner = Learner(agent_of('gin/bandits/independent.gin', 'NUM_ENVS = 8'))
    loop = HandWrittenRecurrentActorCritic(8, 1)
    agent = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
    params = jax.tree.map(lambda x: jnp.asarray(by_shape(agent.params)[x.shape]), loop.params)
    opt_state = optax.adam(optax.linear_schedule(3e-3, 0.0, 7_500)).init(params)
    for num_updates in range(3):
        before, seen = by_shape(agent.params), agent.trajectory
        params, opt_state = loop.learn(params, opt_state, num_updates, seen.action, seen.reward)
        learner.advance(1)
        agent = jax.tree.map(lambda x: x[0, 0], learner.state.agents)
        for shape, expected in by_shape(agent.params).items():
            np.testing.assert_allclose(by_shape(params)[shape], expected, atol=2e-6)
            assert np.abs(expected - before[shape]).max() > 2e-4


def test_the_recurrent_loop_acts_in_the_same_bandits():
    """Untrained agents hardly prefer an arm, so that an episode pays half of its pulls; 1.3 is the error of 512 of
    them."""
    loop = HandWrittenRecurrentActorCritic(512, 1)
    assert abs(loop.run().mean() - 50) < 4
    assert loop.run().mean() != loop.run().mean()


SMALL = ('NUM_ENVS = 3', 'UNROLL_LENGTH = 4')


def made_up(agent, num_trajectories, masked=False):
    """Weights and trajectories of random numbers, and a meta-step of the agent that learns from one after the other."""
    random = np.random.default_rng(0)
    num_actions = agent.environment.spec().actions.num_values

    def like(x):
        if jnp.issubdtype(x.dtype, jnp.floating):
            return random.normal(scale=0.3, size=x.shape).astype(x.dtype)
        return random.integers(2 if x.dtype == bool else num_actions, size=x.shape).astype(x.dtype)

    inner_loop, init = acting_loop(
        agent.network_functions(),
        agent.environment,
        agent.policy,
        agent.behaviour,
        agent.update_rule,
        agent.meta_parameters,
        agent.unroll_length,
    )
    shapes = jax.eval_shape(jax.vmap(init), jax.random.split(jax.random.key(0), agent.num_lifetimes))
    agents = shapes._replace(
        learning=jax.vmap(agent.update_rule.init)(jax.tree.map(like, shapes.params)),
        num_updates=jnp.zeros(agent.num_lifetimes, jnp.int32),
        actor_state=(),
        trajectory=trajectory_like(shapes.trajectory, like, random, masked),
        key=jax.random.split(jax.random.key(0), agent.num_lifetimes),
    )
    trajectory = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_trajectories, *x.shape[1:]), x.dtype), shapes.trajectory
    )
    acted = jax.tree.map(jnp.asarray, trajectory_like(trajectory, like, random, masked))
    source = ReplaySource(Replay(acted), jnp.int32(0))
    inner_loop = dataclasses.replace(inner_loop, source=source)
    meta_params = agent.meta_parameters.init(jax.random.key(0), agent.update_rule, agent.environment.spec())
    state = LearnerState(agents, meta_params, agent.meta_optimiser.init(meta_params, agents))
    return state, acted, jax.jit(lambda state: agent.meta_optimiser.step(state, inner_loop)[0])


def trajectory_like(shapes, like, random, masked):
    """Episodes end here and there; those that are cut off restart with a step that is masked."""
    found = jax.tree.map(like, shapes)
    mask = random.random(found.mask.shape) > 0.2 if masked else np.ones(found.mask.shape)
    return found._replace(discount=1.0 * (random.random(found.discount.shape) > 0.2), mask=1.0 * mask)


def replay(params, actor, trajectory):
    """Acts what was acted before."""
    return actor, trajectory


def assert_close(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-12), found, expected)


def snake_weights(params, *heads):
    """The weights of these heads' networks, as the loop by hand names them."""

    def number(name, i):
        return f'{name}_{i}' if i else name

    found = {}
    for i, head in enumerate(heads):
        names = {number('linear', 2 * i): 'convolution_0', number('linear', 2 * i + 1): 'convolution_1'}
        names |= {f'{number("mlp", i)}/~/linear_{j}': f'linear_{j}' for j in range(2)}
        found |= {ours: params[f'network/{head}/{theirs}'] for ours, theirs in names.items()}
        found[number('head', i)] = params[f'network/{head}_head']
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]) if x.ndim > 1 else x, found)


def catch_weights(params):
    names = {'mlp/~/linear_0': 'shared/linear_0', 'mlp/~/linear_1': 'shared/linear_1', 'linear': 'logits_head'}
    return {ours: params[f'network/{theirs}'] for ours, theirs in {**names, 'linear_1': 'value_head'}.items()}


def seen(trajectory, index):
    trajectory = jax.tree.map(lambda x: x[index], trajectory)
    return parts.Trajectory(trajectory.observation, trajectory.action, trajectory.reward, trajectory.discount)


def test_the_loop_on_catch_learns_the_discount_as_the_learner_does(x64):
    check_learned_discount(
        agent_of('gin/catch/meta_discount.gin', *SMALL),
        meta_discount.on_catch(1),
        catch_weights,
        lambda params: {},
    )


@pytest.mark.slow
def test_the_loop_on_snake_learns_the_discount_and_the_outer_critic_as_the_learner_does(x64):
    agent = agent_of('gin/snake/meta_discount_outer_critic.gin', *SMALL)
    check_learned_discount(
        agent,
        meta_discount.on_snake(agent.environment.environment.environment, 1, bootstrap_apart=True),
        lambda params: snake_weights(params, 'logits', 'value'),
        lambda params: snake_weights(params, 'outer_value'),
    )


@pytest.mark.slow
def test_the_loop_of_the_actor_critic_learns_as_the_learner_does(x64):
    agent = agent_of('gin/snake/actor_critic.gin', *SMALL)
    state, acted, update = made_up(agent, 2)
    loop = HandWrittenActorCritic(agent.environment.environment.environment, 1)

    def weights(params):
        heads = {'policy': 'logits', 'critic': 'value'}
        return {name: snake_weights(jax.tree.map(lambda x: x[0], params), head) for name, head in heads.items()}

    params, trajectory = weights(state.agents.params), seen(state.agents.trajectory, 0)
    opt_state = optax.rmsprop(5e-4, decay=0.9).init(params)
    for i in range(2):
        params, opt_state = loop.learn(params, opt_state, trajectory)
        state, trajectory = update(state), seen(acted, i)
        assert_close(params, weights(state.agents.params))


def check_learned_discount(agent, loop, weights, critic_weights):
    """Two meta-steps of both from the same weights on the same trajectories: the second has optimiser states."""
    state, acted, meta_step = made_up(agent, 2)
    params = jax.tree.map(lambda x: x[0], state.agents.params)
    carry = loop.start(weights(params), critic_weights(params), None, seen(state.agents.trajectory, 0))
    for i in range(2):
        state = meta_step(state)
        params = jax.tree.map(lambda x: x[0], state.agents.params)
        assert_close(carry.critic, critic_weights(params))
        carry, gradient = loop.meta_step(carry, seen(acted, i), act=replay)
        ((expected_gradient,), (eta,)) = (x.values() for x in (state.meta_opt_state.gradient, state.meta_params))
        assert np.abs(gradient) > 1e-6
        assert_close((gradient, carry.eta, carry.agent.params), (expected_gradient, eta, weights(params)))


def test_the_loop_of_lpg_learns_the_rule_as_the_learner_does(x64):
    sizes = {'num_lifetimes': 2, 'num_inner_steps': 2}
    agent = agent_of('gin/grid_worlds/lpg.gin', *SMALL, *(f'{name.upper()} = {x}' for name, x in sizes.items()))
    loop = lpg.HandWrittenLPG(agent.environment, 1, **sizes)
    state, acted, meta_step = made_up(agent, 2, masked=True)
    eta = rule_weights(state.meta_params)
    xs = jax.tree.map(lambda x: np.stack([x, x]), lpg_trajectory(acted))
    eta, _, agents, gradient = loop.meta_step(eta, loop.outer.init(eta), lpg_agents(state.agents), xs, act=replay)
    state = meta_step(state)
    assert_close(gradient, rule_weights(state.meta_opt_state.gradient))
    assert all(np.abs(x).max() > 1e-9 for x in jax.tree.leaves(gradient))
    assert_close((eta, agents), (rule_weights(state.meta_params), lpg_agents(state.agents)))


def lpg_agents(agents):
    heads = [agents.params[f'network/{head}_head']['w'] for head in ('logits', 'value', 'prediction')]
    tables = {'linear': {'w': jnp.concatenate(heads, -1)}}
    return lpg.Agent(tables, agents.num_updates, None, lpg_trajectory(agents.trajectory))


def lpg_trajectory(seen):
    return lpg_parts.Trajectory(seen.observation, seen.action, seen.reward, seen.discount, seen.mask)


def rule_weights(meta_params):
    weights = dict(meta_params['objective.terms.lpg.weights'])
    return {'hidden': weights.pop('linear_0'), **weights}
