"""Returns against forward-view loops, rlax, tables computed by hand, and finite differences.

Termination at `t`: the transition has discount 0, and the next observation starts another episode.

Truncation at `t`: the transition is an ordinary one with discount 1, and the next observation is the last of the
episode, whose value stands for the rewards that were cut off. Transition `t + 1` only leads from there to the first
observation of another episode; it has mask, reward and discount 0. It may follow a termination, too.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from components.meta_parameters.meta_parameters import MetaParameterSet, Scalar
from components.objectives.returns import LambdaReturn, LeakyVTrace
from components.types import Trajectory

NUM_STEPS, BATCH_SIZE = 8, 3

# What happens in each environment: `.` an ordinary transition, `e` one that terminates, `t` one that is truncated, `_`
# the restart after it.
CASES = {
    'no_end': ['........', '........', '........'],
    'termination': ['...e....', '....e...', '.....e..'],
    'termination_at_the_first_and_last_transition': ['e.......', '.......e', 'e......e'],
    'terminations_in_a_row': ['..ee....', '..eee...', 'eeeeeeee'],
    'truncation': ['...t_...', '.....t_.', '..t_....'],
    'truncation_at_the_first_and_last_transition': ['t_......', '.......t', 't_.....t'],
    'restart_at_the_first_and_last_transition': ['_.......', '......t_', '_.....t_'],
    'truncations_in_a_row': ['..t_t_..', 't_t_t_t_', '_t_t_t_t'],
    'truncation_after_termination': ['..et_...', '..e.t_..', '.eet_...'],
    'termination_after_truncation': ['..t_e...', '.t_.e...', '_e......'],
    'restart_after_termination': ['..e_....', 'e_....e_', 't_e_.e_e'],
    'mixed': ['.e.t_.e.', 't_e.t_et', '.t_ee.t_'],
}


def make_data(episodes, seed=0, dtype=np.float32):
    """Values `[T+1, B]`, log ratios `[T, B]` and the trajectory for strings as above."""
    kinds = np.array([list(episode) for episode in episodes]).T
    random = np.random.default_rng(seed)
    mask = (kinds != '_').astype(dtype)
    reward = random.normal(size=kinds.shape).astype(dtype) * mask
    discount = ((kinds != '_') & (kinds != 'e')).astype(dtype)
    values = random.normal(size=(kinds.shape[0] + 1, kinds.shape[1])).astype(dtype)
    log_rho = random.normal(size=kinds.shape).astype(dtype)
    return values, log_rho, make_trajectory(reward, discount, mask)


def make_trajectory(reward, discount, mask):
    zeros = np.zeros(reward.shape, np.int32)
    return Trajectory(
        observation=None,
        first=None,
        action=zeros,
        reward=jnp.asarray(reward),
        discount=jnp.asarray(discount),
        mask=jnp.asarray(mask),
        behaviour_policy=None,
        core_state={},
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _estimate(make, flags, numbers, values, log_rho, trajectory):
    bound = MetaParameterSet({name: Scalar() for name in numbers}).bind(make(**dict(flags)), numbers)
    return bound(values, log_rho, trajectory)


def estimate(returns, values, log_rho, trajectory):
    """`returns(values, log_rho, trajectory)`, compiled once for all values of the numeric fields."""
    fields = dataclasses.asdict(returns).items()
    flags = tuple((name, value) for name, value in fields if isinstance(value, bool))
    numbers = {name: value for name, value in fields if not isinstance(value, bool)}
    return _estimate(type(returns), flags, numbers, values, log_rho, trajectory)


def last_of_segment(trajectory, t, b):
    """The last transition that the return of transition `t` reaches."""
    end = t
    while (
        end + 1 < trajectory.reward.shape[0] and trajectory.discount[end, b] != 0 and trajectory.mask[end + 1, b] != 0
    ):
        end += 1
    return end


def forward_lambda_return(values, trajectory, discount, lambda_, t, b):
    """The weighted average of n-step returns."""
    reward = np.asarray(trajectory.reward, np.float64)
    num_steps = last_of_segment(trajectory, t, b) - t + 1
    average, rewards, cumulative_discount = 0.0, 0.0, 1.0
    for n in range(1, num_steps + 1):
        rewards += cumulative_discount * reward[t + n - 1, b]
        cumulative_discount *= discount * float(trajectory.discount[t + n - 1, b])
        weight = lambda_ ** (n - 1) * (1 - lambda_ if n < num_steps else 1)
        average += weight * (rewards + cumulative_discount * float(values[t + n, b]))
    return average


def lambda_return_loop(values, trajectory, discount, lambda_):
    target = np.zeros(trajectory.reward.shape)
    for t in range(target.shape[0]):
        for b in range(target.shape[1]):
            target[t, b] = forward_lambda_return(values, trajectory, discount, lambda_, t, b)
    return target, target - values[:-1]


def leaky_vtrace_loop(values, log_rho, trajectory, returns):
    """The sum of discounted, weighted temporal differences that the recursion unrolls to."""
    discount, lambda_, alpha, rho_bar = returns.discount, returns.lambda_, returns.alpha, returns.rho_bar
    shape = trajectory.reward.shape
    values, ratio = np.asarray(values, np.float64), np.exp(np.asarray(log_rho, np.float64))
    rho, c, gamma, delta = (np.zeros(shape) for _ in range(4))
    for t in range(shape[0]):
        for b in range(shape[1]):
            gamma[t, b] = discount * float(trajectory.discount[t, b])
            rho[t, b] = alpha * min(rho_bar, ratio[t, b]) + (1 - alpha) * ratio[t, b]
            c[t, b] = lambda_ * (alpha * min(1.0, ratio[t, b]) + (1 - alpha) * ratio[t, b])
            reward = float(trajectory.reward[t, b])
            delta[t, b] = rho[t, b] * (reward + gamma[t, b] * values[t + 1, b] - values[t, b])
    target, advantage = np.zeros(shape), np.zeros(shape)
    for b in range(shape[1]):
        for t in range(shape[0]):
            weight, target[t, b] = 1.0, values[t, b]
            end = last_of_segment(trajectory, t, b)
            for s in range(t, end + 1):
                target[t, b] += weight * delta[s, b]
                weight *= gamma[s, b] * c[s, b]
        for t in range(shape[0]):
            later = target[t + 1, b] if t < last_of_segment(trajectory, t, b) else values[t + 1, b]
            bootstrap = (1 - lambda_) * values[t + 1, b] + lambda_ * later
            advantage[t, b] = rho[t, b] * (float(trajectory.reward[t, b]) + gamma[t, b] * bootstrap - values[t, b])
    return target, advantage


def assert_close_where_unmasked(actual, expected, trajectory, rtol=1e-5, atol=1e-5):
    mask = np.asarray(trajectory.mask) != 0
    assert mask.any()
    for x, y in zip(actual, expected, strict=True):
        assert x.shape == mask.shape
        assert np.isfinite(x).all()
        np.testing.assert_allclose(np.asarray(x)[mask], np.asarray(y)[mask], rtol=rtol, atol=atol)


@pytest.mark.parametrize('case', CASES)
def test_without_bootstrapping_a_return_is_of_the_rewards_on_the_trajectory(case):
    values, log_rho, trajectory = make_data(CASES[case])
    target, advantage = estimate(LambdaReturn(0.9, 1.0, bootstrap=False), values, log_rho, trajectory)
    for t, b in np.ndindex(*trajectory.mask.shape):
        last = last_of_segment(trajectory, t, b)
        expected = sum(0.9 ** (i - t) * float(trajectory.reward[i, b]) for i in range(t, last + 1))
        if trajectory.mask[t, b]:
            assert target[t, b] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert advantage[t, b] == pytest.approx(expected - values[t, b], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize('case', CASES)
def test_lambda_return_equals_the_forward_view(case):
    values, log_rho, trajectory = make_data(CASES[case])
    for lambda_ in (0.0, 0.3, 0.95, 1.0):
        for discount in (0.9, 1.0):
            actual = estimate(LambdaReturn(discount, lambda_), values, log_rho, trajectory)
            assert_close_where_unmasked(actual, lambda_return_loop(values, trajectory, discount, lambda_), trajectory)


@pytest.mark.parametrize('case', CASES)
def test_leaky_vtrace_equals_the_forward_view(case):
    values, log_rho, trajectory = make_data(CASES[case])
    for fields in (
        {},
        {'alpha': 0.0},
        {'alpha': 0.4, 'lambda_': 0.7},
        {'alpha': 0.4, 'lambda_': 0.7, 'rho_bar': 2.0},
        {'alpha': 1.0, 'lambda_': 0.0, 'rho_bar': 0.5},
        {'alpha': 0.9, 'lambda_': 1.0, 'discount': 1.0},
    ):
        returns = LeakyVTrace(**fields)
        actual = estimate(returns, values, log_rho, trajectory)
        expected = leaky_vtrace_loop(values, log_rho, trajectory, returns)
        assert_close_where_unmasked(actual, expected, trajectory, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('case', CASES)
def test_on_policy_leaky_vtrace_is_the_lambda_return(case):
    values, _, trajectory = make_data(CASES[case])
    on_policy = np.zeros_like(trajectory.reward)
    for lambda_ in (0.0, 0.6, 1.0):
        expected = estimate(LambdaReturn(0.9, lambda_), values, on_policy, trajectory)
        for alpha in (0.0, 0.3, 1.0):
            actual = estimate(LeakyVTrace(0.9, lambda_, alpha), values, on_policy, trajectory)
            assert_close_where_unmasked(actual, expected, trajectory)


@pytest.mark.parametrize('lambda_', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('case', [case for case in CASES if '_' not in ''.join(CASES[case])])
def test_lambda_return_equals_rlax_without_masks(case, lambda_):
    values, log_rho, trajectory = make_data(CASES[case], seed=1)
    target, advantage = estimate(LambdaReturn(0.9, lambda_), values, log_rho, trajectory)
    for b in range(BATCH_SIZE):
        expected = jax.jit(rlax.lambda_returns)(
            trajectory.reward[:, b], 0.9 * trajectory.discount[:, b], values[1:, b], lambda_
        )
        np.testing.assert_allclose(target[:, b], expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(advantage[:, b], expected - values[:-1, b], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('lambda_', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('case', [case for case in CASES if '_' not in ''.join(CASES[case])])
def test_leaky_vtrace_equals_rlax_without_masks(case, lambda_):
    values, log_rho, trajectory = make_data(CASES[case], seed=1)
    for alpha, rho_bar in ((1.0, 1.0), (1.0, 1.7), (0.3, 1.0), (0.0, 1.0)):
        target, advantage = estimate(LeakyVTrace(0.9, lambda_, alpha, rho_bar), values, log_rho, trajectory)
        for b in range(BATCH_SIZE):
            arguments = (
                values[:-1, b],
                values[1:, b],
                trajectory.reward[:, b],
                0.9 * trajectory.discount[:, b],
                jnp.exp(log_rho[:, b]),
            )
            error = jax.jit(rlax.leaky_vtrace)(*arguments, alpha, lambda_, rho_bar)
            np.testing.assert_allclose(target[:, b], values[:-1, b] + error, rtol=1e-5, atol=1e-5)
            if alpha == 1:
                expected = jax.jit(rlax.vtrace_td_error_and_advantage)(*arguments, lambda_, rho_bar, rho_bar)
                np.testing.assert_allclose(target[:, b], values[:-1, b] + expected.errors, rtol=1e-5, atol=1e-5)
                np.testing.assert_allclose(advantage[:, b], expected.pg_advantage, rtol=1e-5, atol=1e-5)


def rlax_lambda_return(values, log_rho, trajectory, fields):
    discount = fields['discount'] * trajectory.discount
    batched = jax.vmap(rlax.lambda_returns, in_axes=(1, 1, 1, None), out_axes=1)
    return batched(trajectory.reward, discount, values[1:], fields['lambda_'])


def rlax_leaky_vtrace(values, log_rho, trajectory, fields):
    discount = fields['discount'] * trajectory.discount
    batched = jax.vmap(rlax.leaky_vtrace, in_axes=(1, 1, 1, 1, 1, None, None, None, None), out_axes=1)
    numbers = fields['alpha'], fields['lambda_'], fields['rho_bar'], False  # Stops no gradient.
    return values[:-1] + batched(values[:-1], values[1:], trajectory.reward, discount, jnp.exp(log_rho), *numbers)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(
    ('returns', 'reference'),
    [(LambdaReturn(0.9, 0.7), rlax_lambda_return), (LeakyVTrace(0.9, 0.7, 0.6, 1.5), rlax_leaky_vtrace)],
)
def test_targets_and_their_gradients_equal_those_of_rlax(returns, reference):
    values, log_rho, trajectory = make_data(CASES['termination'], dtype=np.float64)
    fields = {name: x for name, x in dataclasses.asdict(returns).items() if not isinstance(x, bool)}
    meta_parameters = MetaParameterSet({name: Scalar() for name in fields})

    def ours(values, log_rho, trajectory, fields):
        return meta_parameters.bind(returns, fields)(values, log_rho, trajectory).target

    def value_and_gradients(target):
        def projection(values, log_rho, fields):
            return (jnp.sin(1 + jnp.arange(NUM_STEPS))[:, None] * target(values, log_rho, trajectory, fields)).sum()

        gradients = jax.jit(jax.grad(projection, argnums=(0, 1, 2)))(values, log_rho, fields)
        return target(values, log_rho, trajectory, fields), gradients

    actual, expected = value_and_gradients(ours), value_and_gradients(reference)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12), actual, expected)


def column(*numbers):
    return np.array(numbers, np.float32)[:, None]


def test_lambda_return_by_hand():
    # G_2 = 3 + 32 / 2; G_1 = 2 + (16 + 19) / 4; G_0 = 1 + (8 + 10.75) / 4.
    trajectory = make_trajectory(column(1, 2, 3), column(1, 1, 1), column(1, 1, 1))
    target, advantage = LambdaReturn(0.5, 0.5)(column(4, 8, 16, 32), column(0, 0, 0), trajectory)
    np.testing.assert_array_equal(target, column(5.6875, 10.75, 19))
    np.testing.assert_array_equal(advantage, column(1.6875, 2.75, 3))


def test_leaky_vtrace_by_hand():
    # Ratios 2, 1/2, 4 give rho = 2, 1/2, 7/2 and c = 3/4, 1/4, 5/4; temporal differences 1, 2, 3, times rho and then
    # with what follows 2 + 3/8 (1 + 1/8 10.5), 1 + 1/8 10.5, 10.5.
    trajectory = make_trajectory(column(1, 2, 3), column(1, 1, 1), column(1, 1, 1))
    log_rho = np.log(column(2, 0.5, 4))
    target, advantage = LeakyVTrace(0.5, 0.5, 0.5, 3.0)(column(4, 8, 16, 32), log_rho, trajectory)
    np.testing.assert_allclose(target, column(6.8671875, 10.3125, 26.5), rtol=1e-6)
    np.testing.assert_allclose(advantage, column(3.15625, 2.3125, 10.5), rtol=1e-6)


def test_truncation_by_hand():
    # Truncated at t = 1, restart at t = 2. G_1 = 2 + 16 / 2, from the value of the last observation; then as above.
    trajectory = make_trajectory(column(1, 2, 0, 3), column(1, 1, 0, 1), column(1, 1, 0, 1))
    values = column(4, 8, 16, 128, 32)
    for returns in (LambdaReturn(0.5, 0.5), LeakyVTrace(0.5, 0.5)):
        target, _ = returns(values, column(0, 0, 0, 0), trajectory)
        np.testing.assert_array_equal(target[np.array([0, 1, 3])], column(1 + (8 + 10) / 4, 10, 3 + 16))


def test_termination_by_hand():
    # Terminated at t = 1, where the next value belongs to another episode.
    trajectory = make_trajectory(column(1, 2, 3), column(1, 0, 1), column(1, 1, 1))
    values = column(4, 8, 128, 32)
    for returns in (LambdaReturn(0.5, 0.5), LeakyVTrace(0.5, 0.5)):
        target, _ = returns(values, column(0, 0, 0), trajectory)
        np.testing.assert_array_equal(target, column(1 + (8 + 2) / 4, 2, 3 + 16))


@pytest.mark.parametrize('returns', [LambdaReturn(0.9, 0.95), LambdaReturn(1.0, 1.0), LeakyVTrace(0.9, 1.0, 0.5)])
def test_nothing_from_beyond_a_restart_reaches_earlier_targets(returns):
    values, log_rho, trajectory = make_data(['..t_....', '..t_.e..', '..t_.t_.'])
    restart = 3  # Its observation is the last one of the old episode.

    def earlier(values, log_rho, reward):
        return [x[:restart] for x in returns(values, log_rho, trajectory._replace(reward=reward))]

    unchanged = earlier(values, log_rho, trajectory.reward)
    later_values, later_log_rho, later_reward = values.copy(), log_rho.copy(), np.array(trajectory.reward)
    later_values[restart + 1 :] += 10
    later_log_rho[restart:] += 1
    later_reward[restart:] += 10
    for x, y in zip(unchanged, earlier(later_values, later_log_rho, later_reward), strict=True):
        np.testing.assert_array_equal(x, y)
    # But the value of the last observation does reach them, and so do rewards where no restart is in between.
    last_values = values.copy()
    last_values[restart] += 10
    assert (np.abs(earlier(last_values, log_rho, trajectory.reward)[0] - unchanged[0]) > 0.1).all()
    own_reward = np.array(trajectory.reward)
    own_reward[restart - 1] += 10
    assert (np.abs(earlier(values, log_rho, own_reward)[0] - unchanged[0]) > 0.1).all()


@pytest.mark.parametrize('returns', [LambdaReturn(0.9, 0.95), LeakyVTrace(0.9, 0.95, 0.5)])
def test_nothing_from_beyond_a_termination_reaches_earlier_targets(returns):
    values, log_rho, trajectory = make_data(['..e.....', '..e..e..', '..e..t_.'])
    later = np.arange(NUM_STEPS + 1)[:, None] > 2
    changed = returns(
        values + 10 * later, log_rho + later[:-1], trajectory._replace(reward=trajectory.reward + later[:-1])
    )
    unchanged = returns(values, log_rho, trajectory)
    for x, y in zip(unchanged, changed, strict=True):
        np.testing.assert_array_equal(x[:3], y[:3])
    assert (np.abs(unchanged.target[3:5] - changed.target[3:5]) > 0.1).all()


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(
    ('returns', 'field'),
    [
        (LambdaReturn(0.9, 0.7), 'discount'),
        (LambdaReturn(0.9, 0.7), 'lambda_'),
        (LeakyVTrace(0.9, 0.7, 0.6, 1.5), 'discount'),
        (LeakyVTrace(0.9, 0.7, 0.6, 1.5), 'lambda_'),
        (LeakyVTrace(0.9, 0.7, 0.6, 1.5), 'alpha'),
        (LeakyVTrace(0.9, 0.7, 0.6, 1.5), 'rho_bar'),
    ],
)
@pytest.mark.parametrize('case', ['no_end', 'mixed'])
def test_gradient_of_fields(returns, field, case):
    values, log_rho, trajectory = make_data(CASES[case], dtype=np.float64)
    weights = np.random.default_rng(2).normal(size=(2, NUM_STEPS, BATCH_SIZE)) * np.asarray(trajectory.mask)
    meta_parameters = MetaParameterSet({field: Scalar()})

    @jax.jit
    def projections(value):
        bound = meta_parameters.bind(returns, {field: value})
        return jnp.stack([(w * x).sum() for w, x in zip(weights, bound(values, log_rho, trajectory), strict=True)])

    value, step = getattr(returns, field), 1e-6
    expected = (projections(value + step) - projections(value - step)) / (2 * step)
    assert (np.abs(expected) > 1e-3).all()
    np.testing.assert_allclose(jax.jacobian(projections)(value), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('returns', [LambdaReturn(0.9, 0.7), LeakyVTrace(0.9, 0.7, 0.6, 1.5)])
def test_gradient_of_values_and_ratios(returns):
    values, log_rho, trajectory = make_data(CASES['mixed'], dtype=np.float64)
    random = np.random.default_rng(3)
    weights = random.normal(size=(2, NUM_STEPS, BATCH_SIZE)) * np.asarray(trajectory.mask)

    @jax.jit
    def projection(values, log_rho):
        return sum((w * x).sum() for w, x in zip(weights, returns(values, log_rho, trajectory), strict=True))

    gradient = jax.grad(projection, argnums=(0, 1))(values, log_rho)
    direction = random.normal(size=values.shape), random.normal(size=log_rho.shape)
    step = 1e-6
    for i in (0, 1):
        moves = [step * d if i == j else np.zeros_like(d) for j, d in enumerate(direction)]
        difference = projection(values + moves[0], log_rho + moves[1]) - projection(
            values - moves[0], log_rho - moves[1]
        )
        actual = (gradient[i] * direction[i]).sum()
        np.testing.assert_allclose(actual, difference / (2 * step), rtol=1e-6, atol=1e-8)
        assert (abs(actual) > 1e-3) == (i == 0 or isinstance(returns, LeakyVTrace))


@pytest.mark.parametrize(
    ('make', 'field', 'value'),
    [
        *(
            (make, field, value)
            for make in (LambdaReturn, LeakyVTrace)
            for field in ('discount', 'lambda_')
            for value in (-0.25, 1.25)
        ),
        (LeakyVTrace, 'alpha', -0.25),
        (LeakyVTrace, 'alpha', 1.25),
        (LeakyVTrace, 'rho_bar', 0.0),
        (LeakyVTrace, 'rho_bar', -0.25),
    ],
)
def test_field_out_of_range_is_refused(make, field, value):
    with pytest.raises(ValueError, match=f'{make.__name__}.{field} must be .*{value}'):
        make(**{field: value})


def test_bounds_themselves_are_accepted():
    for bound in (0.0, 1.0):
        assert LambdaReturn(bound, bound).discount == bound
        assert LeakyVTrace(bound, bound, bound).alpha == bound


def test_whole_numbers_will_do_for_lambda():
    trajectory = Trajectory(
        observation=None, first=None, action=None, behaviour_policy=None, core_state=None,
        reward=jnp.ones((3, 2)), discount=jnp.ones((3, 2)), mask=jnp.ones((3, 2)),
    )  # fmt: skip
    values, log_rho = jnp.arange(8.0).reshape(4, 2), jnp.zeros((3, 2))
    for returns in (LambdaReturn, LeakyVTrace):
        whole, real = (returns(1, 1 * x)(values, log_rho, trajectory) for x in (1, 1.0))
        np.testing.assert_array_equal(whole.target, real.target)
