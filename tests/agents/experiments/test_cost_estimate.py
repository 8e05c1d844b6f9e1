"""What a dry run says, and what it leaves behind."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.experiments.compilation_cache import DEFAULT, use_compilation_cache
from agents.experiments.cost_estimate import CostEstimate, estimate_cost, num_operations
from agents.experiments.experiment import Experiment
from agents.learner import Learner
from tests.helpers.agents_for_tests import make_agent, meta_gradient
from tools import run


def make_prediction(**kwargs):
    figures = {
        'env_steps_per_update': 2_560,
        'updates_per_meta_update': 1,
        'num_meta_updates': 1,
        'compile_seconds': 1.0,
        'memory_bytes': 2**20,
        'flops_per_meta_update': 1e9,
        'seconds_per_meta_update': 1.0,
    }
    return CostEstimate(**{**figures, **kwargs})


def test_figures_are_those_of_the_experiment():
    agent = make_agent(meta_optimiser=meta_gradient(num_inner_steps=3), num_lifetimes=2)
    experiment = Experiment(agent, total_env_steps=1_250, num_seeds=2, compilation_cache=None)
    estimate = estimate_cost(experiment)
    assert estimate.env_steps_per_update == 4 * 5 * 2
    assert estimate.updates_per_meta_update == 3
    assert estimate.num_meta_updates == 1_250 // 120
    state = Learner(agent, num_seeds=2).state
    assert estimate.memory_bytes > sum(np.prod(x.shape, dtype=int) * 4 for x in jax.tree.leaves(state))
    assert estimate.training_seconds == 10 * estimate.seconds_per_meta_update > 0


def test_operations_are_those_of_products_and_convolutions_in_loops_and_branches():
    def program(x, w, kernel, flag):
        def body(x, _):
            return jnp.tanh(x @ w), None

        x, _ = jax.lax.scan(body, x, length=7)  # 7 x (2 x 5 x 4 x 4)
        y = jax.lax.cond(flag, lambda: x @ w, lambda: x)  # 2 x 5 x 4 x 4
        image = jnp.zeros((2, 6, 6, 3))
        convolved = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )  # 2 x 6 x 6 outputs of 8 channels from 2 x 2 x 3 numbers
        return jax.jit(lambda y: jnp.einsum('ij,ij->', y, y))(y), convolved  # 2 x 20

    jaxpr = jax.make_jaxpr(program)(jnp.ones((5, 4)), jnp.ones((4, 4)), jnp.ones((2, 2, 3, 8)), True)
    assert num_operations(jaxpr.jaxpr) == 8 * 2 * 5 * 4 * 4 + 2 * (2 * 6 * 6 * 8) * (2 * 2 * 3) + 2 * 20


def test_operations_are_of_one_meta_update_with_all_its_updates():
    def operations(num_inner_steps):
        agent = make_agent(meta_optimiser=meta_gradient(num_inner_steps=num_inner_steps))
        return num_operations(Learner(agent).trace().jaxpr.jaxpr)

    one, two, four = operations(1), operations(2), operations(4)
    assert four - two == pytest.approx(2 * (two - one), rel=0.3)  # The first update of a lifetime takes less.
    # 20 steps through 16 x (12 + 3 + 1) weights: acted, learned from (thrice), judged (thrice), and through an update.
    assert 7 < one / (2 * 20 * 16 * 16) < 20


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.4, '0 s'), (59.6, '1 min 0 s'), (61, '1 min 1 s'), (3_700, '1 h 1 min'), (1e6, '277 h 46 min')],
)
def test_it_is_told_in_hours_and_minutes(seconds, text, capsys):
    make_prediction(seconds_per_meta_update=seconds).show()
    assert text in capsys.readouterr().out


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'elsewhere')
    arguments = ['--gin_file', 'gin/catch/meta_discount.gin', '--dry_run', '--gin_bindings', 'NUM_ENVS = 4']
    assert run.main([*arguments, '--gin_bindings', 'TOTAL_ENV_STEPS = 4_000']) == 0
    assert 'floating-point operations' in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert run.main([*arguments, '--gin_bindings', 'TOTAL_ENV_STEPS = 10']) == 2


@pytest.fixture
def cache():
    """Where JAX is told to keep programs."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update('jax_compilation_cache_dir', None)
    yield lambda: jax.config.jax_compilation_cache_dir
    jax.config.update('jax_compilation_cache_dir', before)


def test_compiled_programs_are_kept_where_the_user_keeps_caches(cache, monkeypatch, tmp_path):
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR', raising=False)
    use_compilation_cache(None)
    assert cache() is None
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    use_compilation_cache(DEFAULT)
    assert cache() == str(pathlib.Path('~/.cache/meta_gradient_rl').expanduser())
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    use_compilation_cache(DEFAULT)
    assert cache() == str(tmp_path / 'meta_gradient_rl')
    use_compilation_cache('~/mine')
    assert cache() == str(pathlib.Path('~/mine').expanduser())
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', 'elsewhere')
    use_compilation_cache('other')
    assert cache() == str(pathlib.Path('~/mine').expanduser())
