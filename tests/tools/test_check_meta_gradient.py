import pytest

from agents.analysis.finite_differences import Comparison
from tools import check_meta_gradient


def test_a_table_and_status_0_for_a_right_meta_gradient(capsys):
    assert check_meta_gradient.main(['--gin_file', 'gin/catch/meta_discount.gin']) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if 'objective.returns.discount' in line]
    assert line.split()[-1] == 'pass'


@pytest.mark.parametrize('comparison', [Comparison(1.0, 1.1), Comparison(0.0, 0.0), Comparison(float('nan'), 1.0)])
def test_status_1_for_a_wrong_or_dead_one(monkeypatch, capsys, comparison):
    monkeypatch.setattr(
        check_meta_gradient,
        'compare_with_finite_differences',
        lambda _: {'right': Comparison(1.0, 1.0), 'x': comparison},
    )
    assert check_meta_gradient.main(['--gin_file', 'gin/catch/meta_discount.gin']) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[-1] for line in lines if line and line[0] in ('right', 'x')] == ['pass', 'fail']


@pytest.mark.parametrize(
    ('file', 'part'), [('gin/catch/actor_critic.gin', 'no meta-gradient'), ('nothing.gin', 'searched')]
)
def test_status_2_and_one_line_when_there_is_nothing_to_check(capsys, file, part):
    assert check_meta_gradient.main(['--gin_file', file]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


@pytest.mark.parametrize('estimator', ['truncated.Truncated', 'evolution_strategies.EvolutionStrategies'])
def test_status_2_for_an_estimate_that_is_not_the_whole_derivative(capsys, estimator):
    bindings = [f'meta_gradient.MetaGradient.gradient_estimator = @{estimator}()', 'NUM_LIFETIMES = 2']
    arguments = [part for binding in bindings for part in ('--gin_bindings', binding)]
    assert check_meta_gradient.main(['--gin_file', 'gin/catch/meta_discount.gin', *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'on purpose; check the variant with Mixed()' in line
