"""Checkpoints: every bit of a state comes back, or it is refused."""

import contextlib
import gc
import math
import os
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.experiments import checkpoints
from agents.experiments.checkpoints import Checkpointer, CheckpointError


class Inner(NamedTuple):
    key: Any
    keys: Any
    count: Any


class Outer(NamedTuple):
    params: Any
    opt_state: Any
    inner: Inner
    core_state: Any


def make_state(seed):
    """A state like a learner's, with the floats that are easiest to lose."""
    params = {'network/linear': {'w': jax.random.normal(jax.random.key(seed), (3, 4)), 'b': jnp.zeros(4)}}
    special = jnp.array([np.nan, -np.inf, -0.0, 1e-45, 3.4e38, 1 / 3, seed], jnp.float32)
    optimiser = optax.chain(optax.scale_by_adam(), optax.identity())
    return {
        'outer': Outer(
            params=params,
            opt_state=jax.tree.map(lambda x: x + seed, optimiser.init(params)),
            inner=Inner(
                key=jax.random.key(seed),
                keys=jax.random.split(jax.random.key(seed + 1), (2, 3)),
                count=jnp.int32(seed),
            ),
            core_state={},
        ),
        'arrays': [special, special.astype(jnp.bfloat16), jnp.array([0, 2**32 - 1, seed], jnp.uint32)],
        'flags': (jnp.array([True, False, seed > 0]), np.arange(3) + seed),
        'nothing': {'observation': jnp.zeros((3, 0), jnp.bfloat16)},  # That of a bandit, which shows nothing.
        'env_steps': 10 * seed + 7,
    }


def bits(x):
    is_key = isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    x = np.asarray(jax.random.key_data(x) if is_key else x)
    return x.shape, str(x.dtype), x.tobytes()


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert getattr(a, 'dtype', type(a)) == getattr(e, 'dtype', type(e))
        assert bits(a) == bits(e)


@pytest.fixture
def open_checkpointer(tmp_path):
    """Opens checkpointers in one folder and closes them in the end."""
    opened = []

    def open_one(**kwargs):
        opened.append(Checkpointer(tmp_path / 'checkpoints', **kwargs))
        return opened[-1]

    yield open_one
    for checkpointer in opened:
        checkpointer.close()


def test_round_trip_is_bitwise(open_checkpointer):
    checkpointer = open_checkpointer()
    state = make_state(5)
    checkpointer.save(3, state)
    assert_same(checkpointer.restore(make_state(0)).state, state)


def test_restored_keys_draw_the_same_numbers(open_checkpointer):
    checkpointer = open_checkpointer()
    state = {
        'key': jax.random.key(7),
        'keys': jax.random.split(jax.random.key(8), 2),
        'rbg': jax.random.key(9, impl='rbg'),
    }
    checkpointer.save(0, state)
    template = {
        'key': jax.random.key(0),
        'keys': jax.random.split(jax.random.key(0)),
        'rbg': jax.random.key(0, impl='rbg'),
    }
    restored = checkpointer.restore(template).state
    for name in ('key', 'rbg'):
        assert restored[name].dtype == state[name].dtype
        np.testing.assert_array_equal(jax.random.normal(restored[name], (3,)), jax.random.normal(state[name], (3,)))
    draw = jax.vmap(lambda key: jax.random.normal(key, (3,)))
    np.testing.assert_array_equal(draw(restored['keys']), draw(state['keys']))


def test_another_checkpointer_reads_what_was_written(open_checkpointer):
    writer = open_checkpointer()
    writer.save(3, make_state(5))
    writer.close()
    reader = open_checkpointer()
    assert reader.latest() == 3
    assert_same(reader.restore(make_state(0)).state, make_state(5))


def test_newest_or_given_step(open_checkpointer):
    checkpointer = open_checkpointer()
    for step in (1, 4, 6):
        checkpointer.save(step, make_state(step))
    assert checkpointer.latest() == 6
    assert_same(checkpointer.restore(make_state(0)).state, make_state(6))
    for step in (4, 1, 6):
        assert_same(checkpointer.restore(make_state(0), step).state, make_state(step))


def test_keeps_the_newest(open_checkpointer):
    checkpointer = open_checkpointer(max_to_keep=2)
    for step in range(5):
        checkpointer.save(step, {'x': jnp.float32(step)})
    checkpointer.close()
    checkpointer = open_checkpointer(max_to_keep=2)
    template = {'x': jnp.float32(0)}
    assert checkpointer.latest() == 4
    for step in (3, 4):
        assert checkpointer.restore(template, step).state['x'] == step
    for step in (0, 1, 2):
        with pytest.raises(FileNotFoundError):
            checkpointer.restore(template, step)


def test_nothing_to_restore(open_checkpointer):
    checkpointer = open_checkpointer()
    assert checkpointer.latest() is None
    with pytest.raises(FileNotFoundError, match='checkpoints'):
        checkpointer.restore({'x': jnp.zeros(())})


@pytest.mark.parametrize('step', [5, 4])
def test_a_step_is_written_once_and_in_order(open_checkpointer, step):
    checkpointer = open_checkpointer()
    checkpointer.save(5, {'x': jnp.float32(1)})
    with pytest.raises(CheckpointError, match=f'checkpoint {step}'):
        checkpointer.save(step, {'x': jnp.float32(2)})
    assert checkpointer.restore({'x': jnp.float32(0)}).state['x'] == 1


def test_notes_come_back(open_checkpointer):
    notes = {'loggers': {'train': [{'rows': 3}, None]}, 'wall_time': 1.25, 'text': 'a "b" ü'}
    checkpointer = open_checkpointer()
    checkpointer.save(1, {'x': jnp.float32(1)}, notes)
    checkpointer.save(2, {'x': jnp.float32(1)})
    assert checkpointer.restore({'x': jnp.float32(0)}, 1).notes == notes
    assert checkpointer.restore({'x': jnp.float32(0)}).notes == {}


def test_the_best_stays_beside_the_newest_also_after_reopening(open_checkpointer):
    template = {'x': jnp.float32(0)}
    checkpointer = open_checkpointer(max_to_keep=2)
    for step, score in enumerate((math.nan, -1.0, 3.0, 2.0, 3.0, math.nan)):
        checkpointer.save(step, template, score=score)
    assert checkpointer.best() is not None
    checkpointer.close()
    checkpointer = open_checkpointer(max_to_keep=2)
    assert checkpointer.restore_newest(template, pytest.fail).step == 5
    for step in (6, 7):
        checkpointer.save(step, template, score=2.5)
    checkpointer.wait()
    assert checkpointer.best() == 2  # The first of those with the highest score.
    assert [step for step in range(8) if _is_there(checkpointer, step)] == [2, 6, 7]


def _is_there(checkpointer, step):
    try:
        return checkpointer.restore({'x': jnp.float32(0)}, step).step == step
    except FileNotFoundError:
        return False


def test_no_best_without_scores(open_checkpointer):
    checkpointer = open_checkpointer()
    assert checkpointer.best() is None
    checkpointer.save(1, {'x': jnp.float32(0)})
    checkpointer.wait()
    assert checkpointer.best() is None


@pytest.mark.parametrize(
    ('template', 'message'),
    [
        ({'w': jnp.zeros((3, 4)), 'n': 1}, r'w is float32\[2, 3\] in it and float32\[3, 4\] here'),
        ({'w': jnp.zeros((2, 3), jnp.bfloat16), 'n': 1}, r'w is float32\[2, 3\] in it and bfloat16'),
        ({'w': jnp.zeros((2, 3))}, r'n is int\[\] in it and missing here'),
        ({'w': jnp.zeros((2, 3)), 'n': 1, 'z': 2}, r'z is missing in it and int\[\] here'),
        ({'w': jax.random.key(0), 'n': 1}, r'w is float32\[2, 3\] in it and key<fry>\[\] here'),
    ],
)
def test_another_structure_is_refused_by_its_first_leaf_and_left_alone(open_checkpointer, template, message):
    checkpointer = open_checkpointer()
    checkpointer.save(1, {'w': jnp.zeros((2, 3)), 'n': 1})
    for restore in (checkpointer.restore, lambda template: checkpointer.restore_newest(template, pytest.fail)):
        with pytest.raises(CheckpointError, match=message):
            restore(template)
    assert checkpointer.latest() == 1


def test_a_later_format_is_refused(open_checkpointer, monkeypatch):
    checkpointer = open_checkpointer()
    monkeypatch.setattr('agents.experiments.checkpoints.FORMAT', 2)
    checkpointer.save(1, {'x': jnp.float32(0)})
    checkpointer.wait()
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r'format 2.* up to 1'):
        checkpointer.restore_newest({'x': jnp.float32(0)}, pytest.fail)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_one_bit(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize('damage', [_truncate, _flip_one_bit, lambda path: path.unlink()])
def test_damage_to_any_file_of_the_newest_never_gives_another_state(tmp_path, damage):
    """It is read as it was written, or the one before it is taken, or the error is clear."""
    written = tmp_path / 'written'
    checkpointer = Checkpointer(written)
    for step in (1, 2):
        checkpointer.save(step, make_state(step), {'step': step})
    checkpointer.close()
    files = sorted(path.relative_to(written) for path in (written / '2').rglob('*') if path.is_file())
    assert len(files) > 5
    fell_back = 0
    for i, file in enumerate(files):
        copy = tmp_path / str(i)
        shutil.copytree(written, copy)
        damage(copy / file)
        checkpointer, told = Checkpointer(copy), []
        try:
            found = checkpointer.restore_newest(make_state(0), told.append)
        except CheckpointError as error:
            clear = 'checkpoint 2' in str(error)
            assert clear
        else:
            assert found.notes == {'step': found.step}
            assert_same(found.state, make_state(found.step))
            assert len(told) == (found.step == 1)
            fell_back += found.step == 1
            # It goes on from there, where the damaged one was as well.
            checkpointer.save(found.step + 1, make_state(7))
            assert_same(checkpointer.restore(make_state(0)).state, make_state(7))
        checkpointer.close()
    assert fell_back >= 3


def test_with_all_of_them_damaged_nothing_is_touched(open_checkpointer, tmp_path):
    checkpointer = open_checkpointer()
    for step in (1, 2):
        checkpointer.save(step, {'x': jnp.float32(step)})
    checkpointer.close()
    for path in list((tmp_path / 'checkpoints').rglob('*')):
        if path.is_file():
            _truncate(path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r'no checkpoint in .* is whole'):
            open_checkpointer().restore_newest({'x': jnp.float32(0)}, pytest.fail)
    assert {path.name for path in (tmp_path / 'checkpoints').iterdir()} == {'1', '2'}


def test_without_a_template_the_numbers_are_the_same(open_checkpointer, tmp_path):
    writer = open_checkpointer()
    writer.save(3, make_state(5))
    writer.wait()
    reader = open_checkpointer(read_only=True)
    raw = reader.read()
    assert bits(raw['outer']['params']['network/linear']['w']) == bits(
        make_state(5)['outer'].params['network/linear']['w']
    )
    assert bits(raw['arrays'][1]) == bits(make_state(5)['arrays'][1])
    for path in (tmp_path / 'checkpoints' / '3' / 'state').rglob('*'):
        if path.is_file():
            _flip_one_bit(path)
    with pytest.raises(CheckpointError, match=r'checkpoint 3 .*is damaged'):
        open_checkpointer(read_only=True).read()


def test_reading_leaves_alone_what_another_process_is_writing(open_checkpointer, tmp_path):
    writer = open_checkpointer()
    writer.save(1, {'x': jnp.float32(1)})
    writer.wait()
    under_way = tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp'
    under_way.mkdir()
    assert open_checkpointer(read_only=True).restore({'x': jnp.float32(0)}).state['x'] == 1
    assert under_way.exists()


@pytest.mark.parametrize(
    'name', ['a[b]', 'a\\b', 'a*b?', 'a{b}', '[0-9]', 'with space', 'é', '-x', "quo'te", 'new\nline']
)
def test_a_folder_of_any_name_can_be_read_again(name, tmp_path):
    folder = tmp_path / name / 'checkpoints'
    with contextlib.closing(Checkpointer(folder)) as writer:
        for step in (1, 2):
            writer.save(step, {'x': jnp.float32(step)}, score=1.0)
    with contextlib.closing(Checkpointer(folder, read_only=True)) as reader:
        assert reader.steps() == [1, 2]
        assert reader.restore({'x': jnp.float32(0)}, 1).state['x'] == 1
    with contextlib.closing(Checkpointer(folder)) as again:
        assert again.restore_newest({'x': jnp.float32(0)}, pytest.fail).state['x'] == 2


def test_a_first_checkpoint_that_cannot_be_read_back_is_told_at_once(open_checkpointer, monkeypatch):
    checkpointer = open_checkpointer()
    monkeypatch.setattr('agents.experiments.checkpoints._digest', lambda data: os.urandom(4).hex())
    with pytest.raises(CheckpointError, match=r'was written to .* but cannot be read back'):
        checkpointer.save(1, {'x': jnp.float32(1)})


def swap(folder):
    for a, b in (('2', 'x'), ('3', '2'), ('x', '3')):
        (folder / a).rename(folder / b)


def copy_over(folder):
    shutil.rmtree(folder / '3')
    shutil.copytree(folder / '2', folder / '3')


def mix(folder):
    shutil.rmtree(folder / '3' / 'state')
    shutil.copytree(folder / '2' / 'state', folder / '3' / 'state')


@pytest.mark.parametrize(
    ('damage', 'found'),
    [
        (swap, 1),
        (copy_over, 2),
        (mix, 2),
        (lambda folder: (folder / '3').rename(folder / '99999999'), 2),
        (lambda folder: shutil.copytree(folder / '1', folder / '7'), 3),
        (lambda folder: (folder / '2').rename(folder / '0'), 3),
    ],
)
def test_a_checkpoint_is_never_taken_for_one_of_another_number(damage, found, open_checkpointer, tmp_path):
    checkpointer = open_checkpointer()
    for step in (1, 2, 3):
        checkpointer.save(step, {'x': jnp.float32(step)})
    checkpointer.close()
    damage(tmp_path / 'checkpoints')
    lines = []
    checkpoint = open_checkpointer().restore_newest({'x': jnp.float32(0)}, lines.append)
    assert (checkpoint.step, float(checkpoint.state['x'])) == (found, found)
    assert all('\n' not in line for line in lines)


def test_a_record_without_a_number_is_of_an_earlier_version_and_is_read(open_checkpointer, monkeypatch):
    checkpointer = open_checkpointer()
    digest = checkpoints._digest_of_json
    monkeypatch.setattr(checkpoints, '_digest_of_json', lambda record: (record.pop('step', None), digest(record))[1])
    checkpointer.save(1, {'x': jnp.float32(1)})
    monkeypatch.undo()
    assert open_checkpointer().restore_newest({'x': jnp.float32(0)}, pytest.fail).state['x'] == 1


def test_a_folder_that_was_removed_is_made_again(open_checkpointer, tmp_path):
    checkpointer = open_checkpointer()
    checkpointer.save(1, {'x': jnp.float32(1)})
    checkpointer.wait()
    assert not checkpointer.make_directory()
    shutil.rmtree(tmp_path / 'checkpoints')
    assert checkpointer.make_directory()
    checkpointer.save(2, {'x': jnp.float32(2)})
    checkpointer.close()
    assert open_checkpointer().restore_newest({'x': jnp.float32(0)}, pytest.fail).step == 2


def empty(path):
    path.write_bytes(b'')


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize('damage', [empty, cut, flip, os.remove], ids=lambda damage: damage.__name__)
def test_damage_to_any_file_gives_the_state_or_the_one_before_in_one_line(damage, tmp_path, capfd):
    whole = tmp_path / 'whole'
    with contextlib.closing(Checkpointer(whole)) as writer:
        for step in (1, 2):
            writer.save(step, {'x': jnp.arange(1_000.0) + step, 'key': jax.random.key(step)})
    template = {'x': jnp.zeros(1_000), 'key': jax.random.key(0)}
    files = sorted(path.relative_to(whole) for path in (whole / '2').rglob('*') if path.is_file())
    assert len(files) > 4
    taken = []
    for i, file in enumerate(files):
        folder = tmp_path / f'{i}'
        shutil.copytree(whole, folder)
        damage(folder / file)
        lines = []
        with contextlib.closing(Checkpointer(folder)) as reader:
            checkpoint = reader.restore_newest(template, lines.append)
        assert len(lines) == (checkpoint.step == 1)
        np.testing.assert_array_equal(checkpoint.state['x'], np.arange(1_000.0) + checkpoint.step)
        taken.append(checkpoint.step)
    assert 1 in taken
    gc.collect()
    assert 'Traceback' not in capfd.readouterr().err
