import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.analysis.meta_rl.harlow import performance_by_trial
from components.environments.as_dm_env import DmEnvironment
from components.environments.batch import Batch
from components.environments.harlow.common import object_vectors
from components.environments.harlow.pixels import Harlow, HarlowState
from components.environments.harlow.ring import RingHarlow, RingHarlowState
from components.environments.harlow.symbolic import SymbolicHarlow

FIRST, MID, LAST = (int(step_type) for step_type in dm_env.StepType)
KEY = jax.random.key(0)
LEFT, RIGHT, NOTHING = range(3)
FIXATION, CHOICE, INTERVAL = range(3)


def play(environment, num_episodes, num_steps, choose, carry):
    """Steps episodes, none of which is longer, by actions `choose` draws: states and timesteps `[num_steps,
    num_episodes]`.

    Args:
      environment: a form of the task.
      num_episodes: episodes at once.
      num_steps: of each; after an end they mean nothing.
      choose: a function (carry, state, timestep, key) -> (action, carry) of one episode.
      carry: of `choose`, at first.
    """

    def episode(key):
        key, reset_key = jax.random.split(key)

        def step(before, key):
            state, timestep, carry = before
            action_key, key = jax.random.split(key)
            action, carry = choose(carry, state, timestep, action_key)
            state, timestep = environment.step(state, action, key)
            return (state, timestep, carry), (state, timestep._replace(observation=()), action)

        start = environment.reset(reset_key)
        return start[0], jax.lax.scan(step, (*start, carry), jax.random.split(key, num_steps))[1]

    start, out = jax.jit(jax.vmap(episode, out_axes=(0, 1)))(jax.random.split(KEY, num_episodes))
    return jax.device_get(start), *jax.device_get(out)


def at_random(carry, state, timestep, key):
    return jax.random.bernoulli(key).astype(jnp.int32), carry


def win_stay(carry, state, timestep, key):
    """Sees nothing but observations and rewards: remembers the vector that paid, or the other one than that which did
    not."""
    known, latest = carry
    known = jnp.where(timestep.first(), 0, jnp.where(timestep.reward > 0, latest[0], latest[1]))
    left, right = timestep.observation.reshape(2, -1)
    is_known = ~timestep.first() & (abs(known - right).max() < 1e-4)
    action = jnp.where(timestep.first(), jax.random.bernoulli(key), is_known).astype(jnp.int32)
    return action, (known, jnp.where(action == 1, jnp.stack([right, left]), jnp.stack([left, right])))


def test_who_remembers_is_right_from_the_second_trial_on():
    environment, num_episodes = SymbolicHarlow(object_size=3), 2000
    nothing = jnp.zeros(3), jnp.zeros((2, 3))
    _, states, timesteps, _ = play(environment, num_episodes, 10, win_stay, nothing)
    performance = performance_by_trial(states, 10)
    assert abs(performance[0] - 0.5) < 5 * 0.5 / np.sqrt(num_episodes)
    np.testing.assert_array_equal(performance[1:], 1)
    np.testing.assert_array_equal(timesteps.reward, np.where(states.correct, 1, -1))
    returns = timesteps.reward.sum(0)
    assert set(returns) == {8, 10}
    assert states.selected.all()
    assert states.trial.tolist() == [[t + 1] * num_episodes for t in range(10)]
    assert timesteps.step_type.tolist() == [[MID] * num_episodes] * 9 + [[LAST] * num_episodes]
    assert timesteps.discount.tolist() == [[1] * num_episodes] * 9 + [[0] * num_episodes]


def test_shuffled_rewards_tell_nothing():
    environment, num_episodes = SymbolicHarlow(object_size=3, shuffle_rewards=True), 2000
    _, states, timesteps, _ = play(environment, num_episodes, 10, win_stay, (jnp.zeros(3), jnp.zeros((2, 3))))
    close = 5 * 0.5 / np.sqrt(num_episodes)
    assert (abs(performance_by_trial(states, 10) - 0.5) < close).all()
    assert (abs((timesteps.reward > 0).mean(1) - 0.5) < close).all()
    assert abs(((timesteps.reward > 0) == states.correct).mean() - 0.5) < close


def test_pairs_are_uniform_and_sides_independent_of_what_is_rewarded():
    """24 ordered pairs of 3 objects by the sides of two trials; the sides of a trial do not follow from those
    before."""
    num_episodes = 12_000
    environment = SymbolicHarlow(num_trials=3, num_objects=3, first_object=5, object_size=1)
    start, states, _, _ = play(environment, num_episodes, 1, at_random, ())
    objects = start.objects - 5
    assert set(objects.flat) == {0, 1, 2}
    codes = objects[:, 0] * 12 + objects[:, 1] * 4 + start.rewarded_right * 2 + states.rewarded_right[0]
    counts = np.bincount(codes, minlength=36).reshape(3, 3, 4)
    assert (counts[np.eye(3, dtype=bool)] == 0).all()
    assert (abs(counts[~np.eye(3, dtype=bool)] - 500) < 5 * np.sqrt(500 * 23 / 24)).all()


def test_a_symbolic_episode_by_hand():
    environment = SymbolicHarlow(num_trials=2, object_size=4, fixation=True)
    state, timestep = environment.reset(KEY)
    state = state._replace(objects=jnp.int32([7, 3]), rewarded_right=jnp.asarray(True))
    assert timestep.first()
    np.testing.assert_array_equal(timestep.observation, np.zeros(8))
    rewarded, other = object_vectors(jnp.array([7, 3]), 4, 0)
    shown, rows = [], []
    for t, action in enumerate([1, 1, 1, 0]):
        before = state
        state, timestep = environment.step(state, jnp.int32(action), jax.random.key(t))
        rows.append((int(timestep.step_type), float(timestep.reward), float(timestep.discount)))
        shown.append(np.asarray(timestep.observation))
        assert (int(state.trial), bool(state.selected)) == (t // 2 + t % 2, t % 2 == 1)
    right = bool(before.rewarded_right)
    assert rows == [(MID, 0, 1), (MID, 1, 1), (MID, 0, 1), (LAST, -1 if right else 1, 0)]
    np.testing.assert_allclose(shown[0], np.concatenate([other, rewarded]), atol=1e-6)
    sides = [other, rewarded] if right else [rewarded, other]
    np.testing.assert_allclose(shown[2], np.concatenate(sides), atol=1e-6)
    np.testing.assert_array_equal([shown[1], shown[3]], 0)
    assert bool(state.correct) != right


def test_vectors_are_those_of_their_number_and_seed():
    vectors = np.asarray(object_vectors(jnp.arange(2000), 16, 0))
    np.testing.assert_allclose(vectors[1234:1236], object_vectors(jnp.array([1234, 1235]), 16, 0), atol=1e-6)
    assert len(np.unique(vectors, axis=0)) == 2000
    assert abs(vectors.mean()) < 5 / np.sqrt(32_000)
    assert abs(vectors.var() - 1) < 5 * np.sqrt(2 / 32_000)
    assert (vectors[:100] != object_vectors(jnp.arange(100), 16, 1)).all()


@pytest.mark.parametrize('form', [SymbolicHarlow, RingHarlow])
def test_held_out_objects_are_others_than_those_of_training(form):
    def drawn(environment):
        return np.asarray(jax.jit(jax.vmap(environment.reset))(jax.random.split(KEY, 500))[0].objects)

    training, held_out = drawn(form()), drawn(form(first_object=1000))
    assert 0 <= training.min() < 100 < 900 < training.max() < 1000
    np.testing.assert_array_equal(training + 1000, held_out)


def test_a_batch_draws_a_new_task_for_every_episode_and_copy():
    environment, batch_size = SymbolicHarlow(num_trials=2, object_size=1), 32
    batch = Batch(environment, batch_size)
    step = jax.jit(batch.step)
    state, _ = batch.reset(KEY)
    pairs = [np.asarray(state.environment.objects)]
    for t in range(4):
        state, timestep = step(state, jnp.zeros(batch_size, jnp.int32), jax.random.key(t))
        assert timestep.step_type.tolist() == [FIRST if t % 2 else MID] * batch_size
        assert timestep.discount.tolist() == [0 if t % 2 else 1] * batch_size
        pairs.append(np.asarray(state.environment.objects))
    np.testing.assert_array_equal(pairs[0], pairs[1])
    np.testing.assert_array_equal(pairs[2], pairs[3])
    assert (
        len({tuple(pair) for episode in pairs[::2] for pair in episode}) > 90
    )  # Of 96; two may be the same by chance.


def on_ring(gaze=0, choosing=False, right=True, trial=0, num_steps=0):
    no = jnp.zeros((), bool)
    return RingHarlowState(
        jnp.int32(gaze),
        jnp.int32([7, 3]),
        jnp.asarray(right),
        jnp.asarray(choosing),
        *(jnp.int32(num_steps), jnp.int32(trial), no, no),
    )


def test_a_trial_on_the_ring_by_hand():
    environment = RingHarlow(object_size=2)
    step = jax.jit(environment.step)
    rewarded, other = np.asarray(object_vectors(jnp.array([7, 3]), 2, 0))
    state, rows, cells = on_ring(2), [], []
    for t, action in enumerate([LEFT, LEFT, NOTHING, RIGHT, RIGHT, RIGHT]):
        state, timestep = step(state, jnp.int32(action), jax.random.key(t))
        rows.append((int(timestep.step_type), float(timestep.reward), float(timestep.discount)))
        cells.append(np.asarray(timestep.observation).reshape(9, 3))
        assert (bool(state.selected), bool(state.correct), int(state.trial)) == ((t == 5), (t == 5), int(t == 5))
        assert (int(state.gaze), int(state.num_steps)) == ([1, 0, 0, 1, 2, 3][t], t + 1)
    assert rows == [(MID, 0, 1), (MID, np.float32(0.2), 1), (MID, 0, 1), (MID, 0, 1), (MID, 0, 1), (MID, 1, 1)]
    empty = np.zeros((9, 3), np.float32)
    seen = empty.copy()
    seen[3, 0] = 1  # The target, one cell on the left.
    np.testing.assert_array_equal(cells[0], seen)
    for t, gaze in enumerate([0, 0, 1, 2], 1):
        seen = empty.copy()
        seen[4 + 3 - gaze, 1:] = rewarded
        if gaze < 2:  # From there the other one, five cells away, is out of sight.
            seen[4 - 3 - gaze, 1:] = other
        np.testing.assert_allclose(cells[t], seen, atol=1e-6)
    seen = empty.copy()
    seen[1, 0] = 1
    np.testing.assert_array_equal(cells[5], seen)


def test_the_ring_closes_and_episodes_on_it_end():
    step = jax.jit(RingHarlow(object_size=1).step)
    for gaze, action, after in (8, RIGHT, -8), (-8, LEFT, 8), (-8, RIGHT, -7):
        assert int(step(on_ring(gaze), jnp.int32(action), KEY)[0].gaze) == after
    # Who looks at an object's cell while there is none selects nothing.
    state, timestep = step(on_ring(2), jnp.int32(RIGHT), KEY)
    assert (bool(state.selected), float(timestep.reward), int(timestep.step_type)) == (False, 0, MID)
    state, timestep = step(on_ring(-2, choosing=True, trial=5), jnp.int32(LEFT), KEY)
    assert (int(timestep.step_type), float(timestep.reward), float(timestep.discount)) == (LAST, -1, 0)
    _, timestep = step(on_ring(6, num_steps=249), jnp.int32(LEFT), KEY)
    assert (int(timestep.step_type), float(timestep.reward), float(timestep.discount)) == (LAST, 0, 0)
    _, timestep = step(on_ring(6, num_steps=248), jnp.int32(LEFT), KEY)
    assert (int(timestep.step_type), float(timestep.discount)) == (MID, 1)


def test_who_remembers_on_the_ring():
    """Six steps a trial at most: to the target, and to the object that is known to pay, if any is."""

    def choose(carry, state, timestep, key):
        target = jnp.where(state.choosing, jnp.where((state.trial == 0) | state.rewarded_right, 3, -3), 0)
        return jnp.where(target > state.gaze, RIGHT, LEFT), carry

    num_episodes = 2000
    start, states, timesteps, _ = play(RingHarlow(object_size=1), num_episodes, 36, choose, ())
    counts = np.bincount(start.gaze + 3, minlength=7)
    assert counts[3] == 0
    assert (abs(np.delete(counts, 3) - num_episodes / 6) < 5 * np.sqrt(num_episodes * 5 / 36)).all()
    num_steps = 1 + (timesteps.step_type == LAST).argmax(0)
    np.testing.assert_array_equal(num_steps, 33 + abs(start.gaze))
    valid = np.arange(36)[:, None] < num_steps
    states = states._replace(selected=states.selected & valid)
    performance = performance_by_trial(states, 6)
    assert abs(performance[0] - 0.5) < 5 * 0.5 / np.sqrt(num_episodes)
    np.testing.assert_array_equal(performance[1:], 1)
    returns = (timesteps.reward * valid).sum(0)
    np.testing.assert_allclose(np.unique(np.round(returns, 3)), [5.2, 7.2], rtol=1e-5)
    # The next trial's side does not follow from where one is: at the object that paid, from the second trial on.
    later = states.selected & (states.trial > 1)
    same = states.rewarded_right[later] == (states.gaze[later] > 0)
    assert abs(same.mean() - 0.5) < 5 * 0.5 / np.sqrt(later.sum())


def looking(yaw=0.0, velocity=0.0, phase=FIXATION, phase_steps=0, trial=0, num_steps=0, images=(7, 3), right=True):
    return HarlowState(
        *(jnp.float32(yaw), jnp.float32(velocity)),
        *map(jnp.int32, (phase, phase_steps, num_steps)),
        images=jnp.int32(images),
        rewarded_right=jnp.asarray(right),
        trial=jnp.int32(trial),
        selected=jnp.zeros((), bool),
        correct=jnp.zeros((), bool),
    )


@functools.cache
def unseen(step):
    """A step without its observation, which takes most of the time to compile."""

    def without(*arguments):
        state, timestep = step(*arguments)
        return state, timestep._replace(observation=())

    return jax.jit(without)


@functools.cache
def compiled(environment):
    """The step without its view, and the view."""
    return unseen(environment.step), jax.jit(environment.view)


def turn(state, actions, environment=Harlow()):  # noqa: B008
    rows = []
    for t, action in enumerate(actions):
        state, timestep = compiled(environment)[0](state, jnp.int32(action), jax.random.key(t))
        rows.append((state, timestep))
    return rows


def test_momentum_by_hand():
    states = [row[0] for row in turn(looking(phase=INTERVAL), [RIGHT, RIGHT, NOTHING, LEFT])]
    np.testing.assert_allclose([s.velocity for s in states], [4.4, 6.6, 3.3, -2.75], rtol=1e-6)
    np.testing.assert_allclose([s.yaw for s in states], [4.4, 11, 14.3, 11.55], atol=1e-4)
    assert [int(s.num_steps) for s in states] == [4, 8, 12, 16]
    (state, _), *_ = turn(looking(yaw=178, phase=CHOICE), [RIGHT])
    np.testing.assert_allclose(state.yaw, -177.6, atol=1e-4)


@pytest.mark.parametrize('right', [False, True])
def test_a_trial_by_hand(right):
    """Fixation in one step, selection in three more, and an interval of 10 environment steps."""
    rows = turn(looking(right=right), [NOTHING, RIGHT, RIGHT, RIGHT, NOTHING, NOTHING])
    phases = [int(state.phase) for state, _ in rows]
    assert phases == [CHOICE, CHOICE, CHOICE, INTERVAL, INTERVAL, FIXATION]
    selection = 1 if right else -1
    np.testing.assert_allclose([t.reward for _, t in rows], [0.2, 0, 0, selection, 0, 0], rtol=1e-6)
    assert [bool(s.selected) for s, _ in rows] == [False] * 3 + [True] + [False] * 2
    assert [bool(s.correct) for s, _ in rows] == [False] * 3 + [right] + [False] * 2
    assert [int(s.trial) for s, _ in rows] == [0, 0, 0, 1, 1, 1]
    # 11 + 7.7 * n / 4 degrees reach 13 after the second environment step: 2 of the interval's pass in the same step.
    assert int(rows[3][0].phase_steps) == 2
    np.testing.assert_array_equal([t.discount for _, t in rows], 1)


def test_the_cross_has_to_be_held():
    (state, timestep), *_ = turn(looking(), [RIGHT])  # 3.3 degrees after three environment steps, 4.4 after the fourth.
    assert (int(state.phase), float(timestep.reward)) == (FIXATION, 0)
    assert int(state.phase_steps) == 0
    (state, timestep), *_ = turn(looking(yaw=-3.4), [NOTHING])
    assert (int(state.phase), float(timestep.reward)) == (CHOICE, np.float32(0.2))
    (state, timestep), *_ = turn(looking(yaw=3.6), [NOTHING])
    assert (int(state.phase), float(timestep.reward)) == (FIXATION, 0)
    # Looking at where it comes does not count: 2 environment steps after an interval's end, and 2 of the next 4.
    rows = turn(looking(phase=INTERVAL, phase_steps=8), [NOTHING, NOTHING])
    assert [int(state.phase_steps) for state, _ in rows] == [2, 0]
    assert [int(state.phase) for state, _ in rows] == [FIXATION, CHOICE]
    (state, _), *_ = turn(looking(phase_steps=3, velocity=40.0), [NOTHING])  # 5 degrees after the first one.
    assert int(state.phase) == FIXATION


def test_only_images_that_are_there_are_selected_and_only_near_their_centre():
    for yaw, phase, selected in [
        (13.1, CHOICE, True),
        (12.9, CHOICE, False),
        (26.9, CHOICE, True),
        (27.1, CHOICE, False),
        (20.0, FIXATION, False),
        (20.0, INTERVAL, False),
        (-13.1, CHOICE, True),
        (-12.9, CHOICE, False),
        (-27.1, CHOICE, False),
    ]:
        (state, timestep), *_ = turn(looking(yaw, phase=phase), [NOTHING])
        assert bool(state.selected) == selected, yaw
        assert bool(state.correct) == (selected and yaw > 0)
        assert float(timestep.reward) == (np.sign(yaw) if selected else 0)


def test_ends_of_an_episode():
    (_, timestep), *_ = turn(looking(20, phase=CHOICE, trial=9, num_steps=100), [NOTHING])
    assert (int(timestep.step_type), float(timestep.reward), float(timestep.discount)) == (LAST, 1, 0)
    (_, timestep), *_ = turn(looking(phase=INTERVAL, num_steps=3596), [NOTHING])
    assert (int(timestep.step_type), float(timestep.reward), float(timestep.discount)) == (LAST, 0, 0)
    (_, timestep), *_ = turn(looking(phase=INTERVAL, trial=9, num_steps=3592), [NOTHING])
    assert (int(timestep.step_type), float(timestep.discount)) == (MID, 1)


def controller(carry, state, timestep, key):
    """Keeps on the cross, and turns to the image that is known to pay, if any is: what a perfect agent does."""
    known_right = jnp.where(state.trial > 0, state.rewarded_right, True)  # The sides are to be seen.
    target = jnp.where(state.phase == CHOICE, jnp.where(known_right, 20, -20), 0)
    # Where one comes to rest without turning any more.
    error = target - (state.yaw + state.velocity)
    return jnp.where(abs(error) < 2.3, NOTHING, jnp.where(error > 0, RIGHT, LEFT)), carry


def test_a_perfect_agent_on_the_screen():
    """The source says that it needs 20 to 30 environment steps a trial: 5 to 8 of the agent's."""
    num_episodes = 16
    _, states, timesteps, _ = play(Harlow(), num_episodes, 90, controller, ())
    over = timesteps.step_type == LAST
    assert over.any(0).all()
    num_steps = 1 + over.argmax(0)
    assert ((num_steps >= 50) & (num_steps <= 80)).all(), num_steps
    valid = np.arange(90)[:, None] < num_steps
    np.testing.assert_array_equal(timesteps.discount[valid], np.where(over, 0, 1)[valid])
    states = states._replace(selected=states.selected & valid, correct=states.correct & valid)
    assert (states.selected.sum(0) == 10).all()
    performance = performance_by_trial(states, 10)
    assert 0 < performance[0] < 1
    np.testing.assert_array_equal(performance[1:], 1)
    # Ten fixations, and ten selections of which the first may be wrong.
    expected = 10 * 0.2 + 2 * states.correct.sum(0) - 10
    np.testing.assert_allclose((timesteps.reward * valid).sum(0), expected, rtol=1e-5)


def test_turning_shifts_columns():
    _, view = compiled(Harlow())
    pixel = 65 / 84
    still = np.asarray(view(looking(phase=CHOICE)))
    for columns in 1, 7, 30:
        to_the_right = np.asarray(view(looking(columns * pixel, phase=CHOICE)))
        np.testing.assert_array_equal(to_the_right[:, :-columns], still[:, columns:])
        to_the_left = np.asarray(view(looking(-columns * pixel, phase=CHOICE)))
        np.testing.assert_array_equal(to_the_left[:, columns:], still[:, :-columns])


def test_what_is_seen():
    environment = Harlow()
    _, view = compiled(environment)
    cross, choice, nothing = (np.array(view(looking(phase=phase))) for phase in range(3))
    environment.spec().observations.validate(choice)
    image = jax.jit(environment.image)
    rewarded, other = np.asarray(image(7)), np.asarray(image(3))
    # Centres are at 20 degrees, 26 pixels: 34 pixels reach from 9 to 43 of the 42 that are in sight.
    np.testing.assert_allclose(choice[25:59, 51:], rewarded[:, :33], atol=1e-6)
    np.testing.assert_allclose(choice[25:59, :33], other[:, 1:], atol=1e-6)
    swapped = np.asarray(view(looking(phase=CHOICE, right=False)))
    np.testing.assert_allclose(swapped[25:59, 51:], other[:, :33], atol=1e-6)
    choice[25:59, 51:] = choice[25:59, :33] = 0.75
    np.testing.assert_array_equal(choice, nothing)
    np.testing.assert_array_equal(nothing, np.float32(0.75))
    rows, columns, _ = np.nonzero(cross != nothing)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (37, 46, 37, 46)
    far_left, far_right = (np.asarray(view(looking(yaw))) for yaw in (-120, 120))
    assert (np.unique(far_left), np.unique(far_right)) == ([0.25], [0.5])
    # Who looks at an image has it in the centre.
    centred = np.asarray(view(looking(20, phase=CHOICE)))
    np.testing.assert_allclose(centred[25:59, 25:59], rewarded, atol=1e-6)


def test_the_first_observation_is_the_view_of_the_first_state():
    environment = Harlow()
    state, timestep = jax.jit(environment.reset)(KEY)
    np.testing.assert_array_equal(timestep.observation, compiled(environment)[1](state))


def test_images_are_the_sum_of_waves_that_they_are_said_to_be():
    keys = jax.random.split(jax.random.fold_in(jax.random.key(4), 9), 3)
    amplitudes = np.asarray(jax.random.normal(keys[0], (3, 6)), float)
    f_x, f_y = np.asarray(jax.random.randint(keys[1], (2, 3, 6), np.array([0, -4]).reshape(2, 1, 1), 5))
    phases = np.asarray(jax.random.uniform(keys[2], (3, 6), maxval=2 * np.pi), float)
    y, x = np.mgrid[:34, :34][..., None, None] / 34
    waves = (amplitudes * np.cos(2 * np.pi * (f_x * x + f_y * y) + phases)).sum(-1)
    np.testing.assert_allclose(Harlow(seed=4).image(9), 1 / (1 + np.exp(-waves)), atol=1e-5)


def test_no_two_images_look_alike_in_training_or_held_out():
    from scipy.spatial.distance import pdist

    images = np.asarray(jax.jit(jax.vmap(Harlow().image))(jnp.arange(2000)))
    distances = pdist(images[:, 1::4, 1::4].reshape(2000, -1), 'cityblock') / (8 * 8 * 3)
    assert distances.min() > 0.15
    state, _ = jax.jit(jax.vmap(Harlow(first_image=1000, num_images=5).reset))(jax.random.split(KEY, 100))
    assert set(np.asarray(state.images).flat) == set(range(1000, 1005))


@pytest.mark.parametrize('form', [RingHarlow, Harlow])
def test_shuffled_rewards_with_a_gaze(form):
    before = on_ring(3, choosing=True) if form is RingHarlow else looking(20, phase=CHOICE)
    step = jax.vmap(unseen(form(shuffle_rewards=True).step), (None, None, 0))
    state, timestep = step(before, jnp.int32(NOTHING), jax.random.split(KEY, 2000))
    assert state.correct.all()
    assert set(timestep.reward.tolist()) == {-1, 1}
    assert abs((timestep.reward > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)
    # The coin tells nothing about the side of the next trial, which is drawn with the selection.
    close = 5 * 0.5 / np.sqrt(2000)
    assert abs(state.rewarded_right.mean() - 0.5) < close
    assert abs(((timestep.reward > 0) == state.rewarded_right).mean() - 0.5) < close


def test_sides_stay_until_a_selection():
    step = jax.vmap(compiled(Harlow())[0], (None, None, 0))
    for right in False, True:
        state, _ = step(looking(phase=CHOICE, right=right), jnp.int32(LEFT), jax.random.split(KEY, 20))
        assert state.rewarded_right.tolist() == [right] * 20


def test_a_batch_on_the_screen_ends_and_draws_anew():
    batch = Batch(Harlow(max_steps=8), 4)
    state = jax.jit(lambda key: batch.reset(key)[0])(KEY)
    images = [np.asarray(state.environment.images)]
    for step_type, discount in (MID, 1), (FIRST, 0):
        state, timestep = unseen(batch.step)(state, jnp.full(4, NOTHING), KEY)
        assert timestep.step_type.tolist() == [step_type] * 4
        assert timestep.discount.tolist() == [discount] * 4
        images.append(np.asarray(state.environment.images))
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[1] != images[2]).any(-1).all()


def test_episodes_can_be_drawn(tmp_path):
    from PIL import Image

    environment = DmEnvironment(Harlow(max_steps=8))
    environment.reset()
    states = [environment.state]
    while not environment.step(NOTHING).last():
        states.append(environment.state)
    environment.animator()([*states, environment.state], tmp_path / 'episode.gif')
    with Image.open(tmp_path / 'episode.gif') as drawn:
        assert (drawn.n_frames, drawn.size) == (
            2,
            (336, 336),
        )  # The interval is over before anything else is to be seen.


def test_performance_leaves_out_what_is_no_selection():
    states = looking()._replace(
        trial=np.array([[0, 1, 1, 2], [1, 1, 2, 2]]),
        selected=np.array([[0, 1, 0, 1], [1, 0, 1, 0]], bool),
        correct=np.array([[0, 1, 0, 0], [0, 0, 0, 0]], bool),
    )
    np.testing.assert_array_equal(performance_by_trial(states, 3), [0.5, 0, np.nan])


@pytest.mark.parametrize(
    ('form', 'arguments', 'message'),
    [
        (SymbolicHarlow, {'num_trials': 0}, r'SymbolicHarlow.num_trials must be at least 1, got 0'),
        (
            SymbolicHarlow,
            {'num_objects': 1},
            r'SymbolicHarlow.num_objects must be at least 2, got 1',
        ),
        (SymbolicHarlow, {'first_object': -1}, r'SymbolicHarlow.first_object must be at least 0, got -1'),
        (SymbolicHarlow, {'object_size': 0}, r'SymbolicHarlow.object_size must be at least 1, got 0'),
        (
            RingHarlow,
            {'num_objects': 1},
            r'RingHarlow.num_objects must be at least 2, got 1',
        ),
        (RingHarlow, {'max_steps': 0}, r'RingHarlow.max_steps must be at least 1, got 0'),
        (Harlow, {'num_images': 1}, r'Harlow.num_images must be at least 2, got 1'),
        (Harlow, {'first_image': -1}, r'Harlow.first_image must be at least 0, got -1'),
        (Harlow, {'action_repeat': 0}, r'Harlow.action_repeat must be at least 1, got 0'),
        (Harlow, {'max_steps': 0}, r'Harlow.max_steps must be at least 1, got 0'),
        (Harlow, {'turn': 0.0}, r'Harlow.turn must be positive, got 0.0'),
    ],
)
def test_bad_arguments_are_refused(form, arguments, message):
    with pytest.raises(ValueError, match=message):
        form(**arguments)
