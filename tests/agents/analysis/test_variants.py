"""Variants in run folders."""

import numpy as np
import pytest

from agents.analysis import run_tables, variants
from agents.analysis.variants import Configurations
from agents.experiments import gin_config
from components.types import ConfigurationError
from tests.helpers import made_up_runs


def read(folder, share=0.1, **measure):
    runs = run_tables.find_runs([folder])
    configurations = Configurations(runs)
    measure = variants.measure_of(runs, share, **measure)
    return measure, configurations, variants.read_variants(runs, measure, configurations)


def test_a_complete_a_partial_and_an_empty_run(tmp_path):
    made_up_runs.write_run(tmp_path / 'complete', 1.0)
    made_up_runs.write_run(tmp_path / 'partial', 1.0, rows_done=5, seeds=(7, 8))
    made_up_runs.write_config(tmp_path / 'started')
    _, _, (complete, partial, started) = read(tmp_path)
    assert [each.status for each in (complete, partial, started)] == ['complete', 'partial, 25%', 'partial, 0%']
    np.testing.assert_allclose(complete.final, [1.0, 1.1, 1.2], rtol=1e-6)
    assert partial.seeds.tolist() == [7, 8]
    np.testing.assert_allclose(partial.final, 5 / 16 + np.array([0, 0.1]), rtol=1e-5)
    assert len(started.final) == 0


def test_the_last_meta_step_that_does_not_fit_is_no_part_of_the_training(tmp_path):
    made_up_runs.write_run(tmp_path / 'run', 1.0, num_rows=10)
    text = (tmp_path / 'run/config.gin').read_text()
    (tmp_path / 'run/config.gin').write_text(text.replace('= 10000', '= 10999'))
    assert read(tmp_path)[2][0].is_complete
    (tmp_path / 'run/config.gin').write_text(text.replace('= 10000', '= 11000'))
    assert not read(tmp_path)[2][0].is_complete


def test_evaluations_are_compared_if_every_run_has_them(tmp_path):
    for name in ('a', 'b'):
        made_up_runs.write_run(tmp_path / name, 1.0)
    made_up_runs.write_table(tmp_path / 'a', 'eval', {'stochastic/episode_return': np.array([3.0, 5.0])})
    assert str(read(tmp_path)[0]) == 'episode_return of train.csv'
    made_up_runs.write_table(tmp_path / 'b', 'eval', {'stochastic/episode_return': np.array([4.0, 6.0])})
    measure, _, found = read(tmp_path)
    assert str(measure) == 'stochastic/episode_return of eval.csv'
    assert [each.final.tolist() for each in found] == [[5] * 3, [6] * 3]
    assert set(variants.read_curves(found[0], measure)) == {'train', 'eval'}
    assert str(read(tmp_path, table='train')[0]) == 'episode_return of train.csv'
    assert read(tmp_path, column='meta/objective.returns.discount')[2][0].final == pytest.approx(
        [0.8975, 0.8995, 0.9015]
    )


def test_replicas_of_a_run_are_variants(tmp_path):
    made_up_runs.write_config(tmp_path / 'grid', num_rows=2)
    replicas = [{'replica/optimiser.learning_rate': rate} for rate in (0.001, 0.0005)]
    made_up_runs.write_table(tmp_path / 'grid', 'train', {'episode_return': np.eye(4)[:, :2]}, (0, 1), replicas)
    found = read(tmp_path)[2]
    assert [each.name for each in found] == [
        'grid optimiser.learning_rate=0.001',
        'grid optimiser.learning_rate=0.0005',
    ]
    assert [each.final.tolist() for each in found] == [[0, 1], [0, 0]]


def test_seeds_without_a_number_are_left_out(tmp_path):
    made_up_runs.write_config(tmp_path / 'run', num_rows=2)
    made_up_runs.write_table(
        tmp_path / 'run', 'train', {'episode_return': np.array([[1.0, 2], [np.nan, np.nan]])}, (0, 1)
    )
    (variant,) = read(tmp_path)[2]
    assert (variant.seeds.tolist(), variant.num_seeds) == ([0], 2)
    made_up_runs.write_table(tmp_path / 'run', 'train', {'episode_return': np.full((2, 2), np.nan)}, (0, 1))
    with pytest.raises(run_tables.RunTableError, match='nothing to compare'):
        read(tmp_path)


def test_environments_and_differences_of_configurations(tmp_path):
    for name, config in {'a': {}, 'b': {'learning_rate': 0.1, 'num_rows': 7}, 'c': {'columns': 9}}.items():
        made_up_runs.write_run(tmp_path / name, 1.0, **config)
    runs = run_tables.find_runs([tmp_path])
    configurations = Configurations(runs)
    groups = variants.by_environment(runs, configurations)
    assert {name: [run.name for run in each] for name, each in groups.items()} == {
        'Catch(columns=5)': ['a', 'b'], 'Catch(columns=9)': ['c']
    }  # fmt: skip
    assert configurations.differences(runs[:2]) == {
        'TOTAL_ENV_STEPS': ['20000', '7000'], 'components.optimisers.Optimiser.learning_rate': ['0.001', '0.1']
    }  # fmt: skip


def test_an_environment_with_wrappers_scopes_and_macros_is_an_expression():
    bindings = {
        'SIZE': '3', 'agents.agent.Agent.environment': '@a.Batch()', 'a.Batch.environment': '@s/b.Wrapper()',
        'a.Batch.batch_size': '%NUM_ENVS', 'b.Wrapper.environments': '[@c.One(), @c.Two]', 'c.One.size': '%SIZE',
        's/b.Wrapper.x': '1', 'c.OneMore.size': '4',
    }  # fmt: skip
    assert variants.environment_of(bindings) == 'Wrapper(environments=[One(size=3), Two], x=1)'
    assert variants.environment_of({'agents.agent.Agent.environment': '@c.Host()'}) == 'Host()'


@pytest.mark.parametrize('file', ['gin/catch/meta_discount.gin', 'gin/bandits/independent.gin'])
def test_bindings_of_a_run_are_those_of_its_file(tmp_path, file):
    gin_config.load([file])
    (tmp_path / 'config.gin').write_text(gin_config.config_str())
    assert gin_config.bindings_of_run(tmp_path) == gin_config.bindings_of(tmp_path / 'config.gin')


def test_a_configuration_that_cannot_be_read_is_named(tmp_path):
    made_up_runs.write_run(tmp_path / 'run', 1.0)
    (tmp_path / 'run/config.gin').write_text('a.b = \n')
    with pytest.raises(ConfigurationError, match=r'run/config\.gin cannot be read'):
        Configurations(run_tables.find_runs([tmp_path]))
