"""Loggers: what is on disk after each write."""

import csv
import math
import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from components.loggers import CSVLogger, TensorBoardLogger, per_seed, seed_means


def read(directory, label='train'):
    with (directory / f'{label}.csv').open(newline='') as file:
        return list(csv.DictReader(file, strict=True))


def read_events(directory):
    """Tag -> list of (step, value), from the records of all event files: length, checksum, event, checksum."""
    scalars = {}
    for path in sorted((directory / 'tensorboard').iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack('<Q', data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
            data = data[16 + length :]
    return scalars


def test_one_line_per_seed_and_row(tmp_path):
    logger = CSVLogger('train', tmp_path)
    logger.write({'env_steps': 10, 'return': np.array([1.5, -2.0, 3.25])})
    logger.write({'env_steps': 20, 'return': np.array([4.0, 5.0, 6.0])})
    assert (tmp_path / 'train.csv').read_text() == (
        'seed,env_steps,return\n0,10,1.5\n1,10,-2\n2,10,3.25\n0,20,4\n1,20,5\n2,20,6\n'
    )


def test_row_without_arrays_is_of_one_seed(tmp_path):
    CSVLogger('train', tmp_path).write({'env_steps': 10, 'return': 0.5})
    assert read(tmp_path) == [{'seed': '0', 'env_steps': '10', 'return': '0.5'}]


def test_labels_are_files_of_their_own(tmp_path):
    CSVLogger('train', tmp_path).write({'x': 1})
    CSVLogger('evaluation', tmp_path).write({'x': 2})
    assert [read(tmp_path, label)[0]['x'] for label in ('train', 'evaluation')] == ['1', '2']


def test_later_columns_extend_the_file(tmp_path):
    logger = CSVLogger('train', tmp_path)
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
    logger = CSVLogger('train', tmp_path)
    logger.write({'a': 1, 'b': 2})
    logger.write({'b': 4, 'a': 3})
    assert [(row['a'], row['b']) for row in read(tmp_path)] == [('1', '2'), ('3', '4')]


def test_reopening_goes_on_with_the_columns_of_the_file(tmp_path):
    CSVLogger('train', tmp_path).write({'a': 1, 'b': 2})
    CSVLogger('train', tmp_path).write({'b': 4, 'a': 3})
    CSVLogger('train', tmp_path).write({'c': 5, 'a': 6})
    CSVLogger('train', tmp_path).write({'a': 7})
    assert [tuple(row.values()) for row in read(tmp_path)] == [
        ('0', '1', '2', ''),
        ('0', '3', '4', ''),
        ('0', '6', '', '5'),
        ('0', '7', '', ''),
    ]


def test_text_with_commas_quotes_and_line_breaks_survives_new_columns(tmp_path):
    text = 'a, "b"\nc'
    logger = CSVLogger('train', tmp_path)
    logger.write({'text': text})
    logger.write({'a,b': 1})
    assert [(row['text'], row['a,b']) for row in read(tmp_path)] == [(text, ''), ('', '1')]


def test_not_a_number_is_an_empty_cell(tmp_path):
    logger = CSVLogger('train', tmp_path)
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
    CSVLogger('train', tmp_path).write(row)
    (cells,) = read(tmp_path)
    assert int(cells['int']) == 2**40 + 1
    assert int(cells['int32']) == 123456789
    for name in ('tiny', 'large', 'third'):
        np.testing.assert_allclose(float(cells[name]), row[name], rtol=1e-6)


def test_a_hundred_writes_give_a_hundred_rows_each_complete_at_once(tmp_path):
    logger = CSVLogger('train', tmp_path)
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
    logger = TensorBoardLogger('train', tmp_path)
    logger.write({'env_steps': 10, 'return': np.array([1.0, 4.0, np.nan]), 'loss': np.array([np.nan, np.nan])})
    logger.write({'env_steps': np.array([20, 20]), 'return': np.array([-1.0, -2.0]), 'loss': 0.25})
    logger.close()
    events = read_events(tmp_path)
    assert events['train/return'] == [(10, 2.5), (20, -1.5)]
    assert events['train/loss'] == [(20, 0.25)]
    assert events['train/env_steps'] == [(10, 10.0), (20, 20.0)]


def test_an_array_without_axes_is_a_number(tmp_path):
    logger = CSVLogger('log', tmp_path)
    logger.write({'a': np.array(np.nan), 'b': np.array(1 / 3), 'c': np.int64(7)})
    assert (tmp_path / 'log.csv').read_text().splitlines()[1] == '0,,0.3333333,7'
