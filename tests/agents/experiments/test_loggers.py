"""Loggers: what is on disk after each write."""

import csv
import math
import struct
import sys

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from agents.experiments.loggers import CSVLogger, Run, TensorBoardLogger, WandbLogger, per_seed, seed_means


def read(directory, label='train'):
    with (directory / f'{label}.csv').open(newline='') as file:
        return list(csv.DictReader(file, strict=True))


def read_events(directory, label='train'):
    """All events of a label, from the records of its files: length, checksum, event, checksum."""
    events = []
    for path in sorted((directory / 'tensorboard' / label).iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack('<Q', data[:8])
            events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def read_scalars(directory, label='train'):
    """Tag -> list of (step, value)."""
    scalars = {}
    for event in read_events(directory, label):
        for value in event.summary.value:
            scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars


def test_one_line_per_seed_and_row(tmp_path):
    logger = CSVLogger('train', Run(tmp_path))
    logger.write({'env_steps': 10, 'return': np.array([1.5, -2.0, 3.25])})
    logger.write({'env_steps': 20, 'return': np.array([4.0, 5.0, 6.0])})
    assert (tmp_path / 'train.csv').read_text() == (
        'seed,env_steps,return\n0,10,1.5\n1,10,-2\n2,10,3.25\n0,20,4\n1,20,5\n2,20,6\n'
    )


def test_row_without_arrays_is_of_one_seed(tmp_path):
    CSVLogger('train', Run(tmp_path)).write({'env_steps': 10, 'return': 0.5})
    assert read(tmp_path) == [{'seed': '0', 'env_steps': '10', 'return': '0.5'}]


def test_labels_are_files_of_their_own(tmp_path):
    CSVLogger('train', Run(tmp_path)).write({'x': 1})
    CSVLogger('evaluation', Run(tmp_path)).write({'x': 2})
    assert [read(tmp_path, label)[0]['x'] for label in ('train', 'evaluation')] == ['1', '2']


def test_later_columns_extend_the_file(tmp_path):
    logger = CSVLogger('train', Run(tmp_path))
    logger.write({'a': 1, 'b': np.array([2.0, 3.0])})
    logger.write({'b': np.array([4.0, 5.0]), 'c': np.array([6.0, 7.0])})
    logger.write({'d': 8, 'a': 9})
    logger.write({'c': 10.0})
    columns = ['seed', 'a', 'b', 'c', 'd']
    assert (tmp_path / 'train.csv').read_text().splitlines()[0] == ','.join(columns)
    cells = [[row[column] for column in columns] for row in read(tmp_path)]
    assert cells == [
        ['0', '1', '2', '', ''],
        ['1', '1', '3', '', ''],
        ['0', '', '4', '6', ''],
        ['1', '', '5', '7', ''],
        ['0', '9', '', '', '8'],
        ['0', '', '', '10', ''],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ['train.csv']


def test_order_of_a_row_does_not_matter(tmp_path):
    logger = CSVLogger('train', Run(tmp_path))
    logger.write({'a': 1, 'b': 2})
    logger.write({'b': 4, 'a': 3})
    assert [(row['a'], row['b']) for row in read(tmp_path)] == [('1', '2'), ('3', '4')]


def test_reopening_goes_on_with_the_columns_of_the_file(tmp_path):
    CSVLogger('train', Run(tmp_path)).write({'a': 1, 'b': 2})
    CSVLogger('train', Run(tmp_path)).write({'b': 4, 'a': 3})
    CSVLogger('train', Run(tmp_path)).write({'c': 5, 'a': 6})
    CSVLogger('train', Run(tmp_path)).write({'a': 7})
    assert [tuple(row.values()) for row in read(tmp_path)] == [
        ('0', '1', '2', ''),
        ('0', '3', '4', ''),
        ('0', '6', '', '5'),
        ('0', '7', '', ''),
    ]


def test_text_with_commas_quotes_and_line_breaks_survives_new_columns(tmp_path):
    text = 'a, "b"\nc'
    logger = CSVLogger('train', Run(tmp_path))
    logger.write({'text': text})
    logger.write({'a,b': 1})
    assert [(row['text'], row['a,b']) for row in read(tmp_path)] == [(text, ''), ('', '1')]


def test_not_a_number_is_an_empty_cell(tmp_path):
    logger = CSVLogger('train', Run(tmp_path))
    logger.write({'a': np.array([1.0, np.nan], np.float32), 'b': math.nan, 'c': np.float64('nan'), 'd': np.inf})
    assert [tuple(row.values()) for row in read(tmp_path)] == [('0', '1', '', '', 'inf'), ('1', '', '', '', 'inf')]


def test_numbers_can_be_read_back(tmp_path):
    row = {
        'tiny': np.float32(1.234567e-30),
        'large': np.float64(-9.876543e20),
        'int': 2**40 + 1,
        'int32': np.int32(123456789),
        'third': 1 / 3,
    }
    CSVLogger('train', Run(tmp_path)).write(row)
    (cells,) = read(tmp_path)
    assert int(cells['int']) == 2**40 + 1
    assert int(cells['int32']) == 123456789
    for name in ('tiny', 'large', 'third'):
        np.testing.assert_allclose(float(cells[name]), row[name], rtol=1e-6)


def test_a_hundred_writes_give_a_hundred_rows_each_complete_at_once(tmp_path):
    logger = CSVLogger('train', Run(tmp_path))
    for i in range(100):
        logger.write({'env_steps': i, 'square': float(i * i), **({'late': -i} if i >= 50 else {})})
        text = (tmp_path / 'train.csv').read_text()
        assert text.endswith('\n')
        assert text.count('\n') == i + 2
        assert read(tmp_path)[-1]['env_steps'] == str(i)
    rows = read(tmp_path)
    assert [int(row['env_steps']) for row in rows] == list(range(100))
    assert [float(row['square']) for row in rows] == [i * i for i in range(100)]
    assert [row['late'] for row in rows] == [''] * 50 + [str(-i) for i in range(50, 100)]
    logger.close()
    assert read(tmp_path) == rows


def test_per_seed():
    assert per_seed({'a': 1, 'b': np.array([2.0, 3.0])}) == [
        {'seed': 0, 'a': 1, 'b': 2.0},
        {'seed': 1, 'a': 1, 'b': 3.0},
    ]
    assert per_seed({'a': 1}) == [{'seed': 0, 'a': 1}]
    assert per_seed({'a': np.array([5])}) == [{'seed': 0, 'a': 5}]


def test_seed_means_leave_out_what_is_not_a_number():
    means = seed_means(
        {
            'some': np.array([1.0, np.nan, 4.0]),
            'none': np.array([np.nan, np.nan]),
            'integers': np.array([1, 2]),
            'scalar': 3,
            'missing': math.nan,
        }
    )
    assert (means['some'], means['integers'], means['scalar']) == (2.5, 1.5, 3.0)
    assert math.isnan(means['none'])
    assert math.isnan(means['missing'])


@pytest.mark.filterwarnings('error')
def test_tensorboard_has_means_over_seeds_by_environment_steps(tmp_path):
    logger = TensorBoardLogger('train', Run(tmp_path))
    logger.write({'env_steps': 10, 'return': np.array([1.0, 4.0, np.nan]), 'loss': np.array([np.nan, np.nan])})
    logger.write({'env_steps': np.array([20, 20]), 'return': np.array([-1.0, -2.0]), 'loss': 0.25})
    logger.close()
    scalars = read_scalars(tmp_path)
    assert scalars['return'] == [(10, 2.5), (20, -1.5)]
    assert scalars['loss'] == [(20, 0.25)]
    assert scalars['env_steps'] == [(10, 10.0), (20, 20.0)]


def test_an_array_without_axes_is_a_number(tmp_path):
    logger = CSVLogger('log', Run(tmp_path))
    logger.write({'a': np.array(np.nan), 'b': np.array(1 / 3), 'c': np.int64(7)})
    assert (tmp_path / 'log.csv').read_text().splitlines()[1] == '0,,0.3333333,7'


def test_rows_after_a_position_are_taken_back(tmp_path):
    logger = CSVLogger('train', Run(tmp_path))
    logger.write({'a': 1, 'b': np.array([2.0, 3.0])})
    logger.write({'a': 2, 'b': np.array([4.0, 5.0])})
    position, before = logger.save(), (tmp_path / 'train.csv').read_bytes()
    logger.write({'a': 3, 'b': np.array([6.0, 7.0])})
    with (tmp_path / 'train.csv').open('a') as file:
        file.write('0,4,')  # A line that a crash cut off.
    logger = CSVLogger('train', Run(tmp_path))
    logger.restore(position)
    assert (tmp_path / 'train.csv').read_bytes() == before
    assert logger.save() == position
    logger.write({'a': 3, 'b': np.array([6.0, 7.0])})
    assert [row['a'] for row in read(tmp_path)] == ['1', '1', '2', '2', '3', '3']


def test_a_position_before_new_columns_gives_the_same_file_in_the_end(tmp_path):
    rows = [{'a': 1}, {'a': 2}, {'a': 3, 'new': 4}, {'a': 5, 'newer': 6}]
    (tmp_path / 'once').mkdir()
    (tmp_path / 'twice').mkdir()
    once = CSVLogger('train', Run(tmp_path / 'once'))
    for row in rows:
        once.write(row)
    twice = CSVLogger('train', Run(tmp_path / 'twice'))
    for row in rows[:2]:
        twice.write(row)
    position = twice.save()
    for row in rows[2:]:
        twice.write(row)
    twice = CSVLogger('train', Run(tmp_path / 'twice'))
    twice.restore(position)
    for row in rows[2:]:
        twice.write(row)
    assert (tmp_path / 'twice' / 'train.csv').read_bytes() == (tmp_path / 'once' / 'train.csv').read_bytes()


def test_from_the_beginning_nothing_is_left(tmp_path):
    CSVLogger('train', Run(tmp_path)).write({'a': 1})
    logger = CSVLogger('train', Run(tmp_path))
    logger.restore(None)
    assert not (tmp_path / 'train.csv').exists()
    logger.write({'b': 2})
    assert (tmp_path / 'train.csv').read_text() == 'seed,b\n0,2\n'


def test_rows_that_are_missing_before_the_position_are_told(tmp_path):
    logger = CSVLogger('train', Run(tmp_path))
    logger.write({'a': 1})
    with pytest.raises(ValueError, match='has 1 of the 2 rows'):
        logger.restore({'rows': 2})
    assert read(tmp_path) == [{'seed': '0', 'a': '1'}]


def test_tensorboard_hides_what_came_after_the_position_and_shows_the_config(tmp_path):
    run = Run(tmp_path, config='A = 1\nB = 2\n')
    logger = TensorBoardLogger('train', run)
    logger.restore(None)
    for step in (10, 20):
        logger.write({'env_steps': step})
    position = logger.save()
    logger.write({'env_steps': 30})
    assert read_scalars(tmp_path)['env_steps'] == [(10, 10), (20, 20), (30, 30)]  # On disk without closing.
    again = TensorBoardLogger('train', run)
    again.restore(position)
    again.write({'env_steps': 30})
    again.close()
    logger.close()
    events = read_events(tmp_path)
    assert [event.step for event in events if event.session_log.status] == [21]
    assert sorted(read_scalars(tmp_path)['env_steps']) == [(10, 10), (20, 20), (30, 30), (30, 30)]
    (text,) = {
        value.tensor.string_val[0] for event in events for value in event.summary.value if value.tensor.string_val
    }
    assert text == b'    A = 1\n    B = 2\n'


class _FakeWandb:
    """Records what is asked of it, in place of the module."""

    def __init__(self):
        self.inits, self.rows, self.metrics, self.finished = [], [], [], 0

    def init(self, **kwargs):
        self.inits.append(kwargs)
        return self

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        self.finished += 1


def test_wandb_is_given_means_and_keeps_its_run(tmp_path, monkeypatch):
    wandb = _FakeWandb()
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    run = Run(tmp_path, config='A = 1')
    for label in ('train', 'eval'):
        logger = WandbLogger(label, run, project='p', mode='offline')
    logger.write({'env_steps': 5, 'return': np.array([1.0, 3.0, np.nan]), 'none': math.nan})
    logger.close()
    assert wandb.rows == [{'eval/env_steps': 5.0, 'eval/return': 2.0}]
    assert wandb.inits[0] == wandb.inits[1]
    assert (wandb.inits[0]['config'], wandb.inits[0]['resume']) == ({'gin': 'A = 1'}, 'allow')
    assert ('eval/*', 'eval/env_steps') in wandb.metrics
    assert wandb.finished == 1


def test_wandb_is_asked_for_only_when_chosen(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[wandb\]'"):
        WandbLogger('train', Run(tmp_path))
