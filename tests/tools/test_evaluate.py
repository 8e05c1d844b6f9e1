"""tools/evaluate.py on a small run of Catch: episodes and drawings."""

import csv
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.bsuite.catch import Catch as GymnaxCatch
from gymnax.environments.bsuite.deep_sea import DeepSea
from jumanji.environments import Snake
from PIL import Image

from agents.experiments import restore
from components.environments.adapters.gymnax import GymnaxEnvironment
from components.environments.adapters.jumanji import JumanjiEnvironment
from components.environments.as_dm_env import DmEnvironment
from components.environments.catch import Catch
from tools import evaluate, run

ROWS, COLUMNS = 5, 3
BINDINGS = [
    f'catch.Catch.rows = {ROWS}',
    f'catch.Catch.columns = {COLUMNS}',
    'torsos.MLP.hidden_sizes = (8,)',
    'TOTAL_ENV_STEPS = 320',  # 20 meta-steps.
    'NUM_ENVS = 4',
    'UNROLL_LENGTH = 4',
    'NUM_SEEDS = 2',
    'LOG_EVERY = 160',
    'EVALUATE_EVERY = 0',
    'CHECKPOINT_EVERY = 160',
]

ENDLESS = f'''
import dm_env
import numpy as np

class Endless(dm_env.Environment):
    """Pays the number of the action, and never ends."""

    def __init__(self, num_actions=3):
        self._num_actions = num_actions

    def reset(self):
        return dm_env.restart(np.zeros({(ROWS, COLUMNS)}))

    def step(self, action):
        return dm_env.transition(float(action), np.zeros({(ROWS, COLUMNS)}))

    def observation_spec(self):
        return dm_env.specs.Array({(ROWS, COLUMNS)}, float)  # Wider than the weights' numbers.

    def action_spec(self):
        return dm_env.specs.DiscreteArray(self._num_actions)
'''

ENDLESS_GIN = """
from __gin__ import dynamic_registration

import endless
from components import agent
from components.environments import host

agent.Agent.environment = @host.HostEnvironment()
host.HostEnvironment.environment = @endless.Endless
host.HostEnvironment.batch_size = 2
"""


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run of two seeds with checkpoints 10 and 20."""
    workdir = tmp_path_factory.mktemp('runs') / 'catch'
    bindings = [part for line in BINDINGS for part in ('--gin_bindings', line)]
    assert run.main(['--gin_file', 'gin/catch/meta_discount.gin', '--workdir', str(workdir), *bindings]) == 0
    return workdir


@pytest.fixture(scope='module')
def restored(workdir):
    """Its checkpoints; 20 is the newest."""
    return {10: restore.restore_learner(workdir, 10), 20: restore.restore_learner(workdir)}


@pytest.fixture
def endless(tmp_path, monkeypatch):
    """A gin file of an environment on the host."""
    (tmp_path / 'endless.py').write_text(ENDLESS)
    (tmp_path / 'endless.gin').write_text(ENDLESS_GIN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / 'endless.gin'


def set_logits(monkeypatch, *logits):
    """Replaces the weights of each seed by those of a policy that does not look."""

    def restore_learner(*args):
        restored = restore.restore_learner(*args)
        learner = restored.learner
        params = jax.tree.map(jnp.zeros_like, learner.state.agents.params)
        params['network/logits_head']['b'] = jnp.asarray(logits, jnp.float32)[:, None]
        agents = learner.state.agents
        learner.state = learner.state._replace(agents=agents._replace(learning=agents.learning._replace(params=params)))
        return restored

    monkeypatch.setattr(evaluate, 'restore_learner', restore_learner)


def main(workdir, *arguments) -> int:
    return evaluate.main(['--workdir', str(workdir), *map(str, arguments)])


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def figures(row) -> list[float]:
    return [float(row[name]) for name in ('episodes', 'episode_return', 'standard_error', 'episode_length')]


def constant_policy(environment, action: int, num_episodes: int) -> list[float]:
    """The same figures of a policy that always takes one action, from a plain loop."""
    returns, lengths = [], []
    for _ in range(num_episodes):
        timestep, rewards = environment.reset(), []
        while not timestep.last():
            timestep = environment.step(action)
            rewards.append(timestep.reward)
        returns.append(sum(rewards))
        lengths.append(len(rewards))
    return [num_episodes, np.mean(returns), np.std(returns, ddof=1) / np.sqrt(num_episodes), np.mean(lengths)]


def test_returns_of_known_policies_are_those_of_a_plain_loop(workdir, tmp_path, monkeypatch, capsys):
    set_logits(monkeypatch, [0, 99, 0], [99, 0, 0])  # The first seed stays, the second goes left.
    assert main(workdir, '--episodes', 12, '--seed', 5, '--out', tmp_path / 'new' / 'rows.csv') == 0
    found = rows(tmp_path / 'new' / 'rows.csv')
    assert [(row['checkpoint'], row['seed'], row['policy']) for row in found] == [
        ('20', '0', 'stochastic'), ('20', '0', 'greedy'), ('20', '1', 'stochastic'), ('20', '1', 'greedy')
    ]  # fmt: skip
    environment = DmEnvironment(Catch(ROWS, COLUMNS), seed=5)
    expected = [constant_policy(environment, action, 12) for action in (1, 1, 0, 0)]
    assert len({e[1] for e in expected}) > 1
    np.testing.assert_allclose([figures(row) for row in found], expected, rtol=1e-6)
    assert f'{expected[0][1]:.4g}' in capsys.readouterr().out


def test_weights_are_those_of_the_checkpoint(restored):
    older, newest = restored[10], restored[20]
    assert (older.checkpoint, newest.checkpoint) == (10, 20)
    assert newest.experiment.num_seeds == newest.learner.num_seeds == 2
    kernels = [run.learner.state.agents.params['network/logits_head']['w'] for run in (older, newest)]
    assert np.any(kernels[0] != kernels[1])


@pytest.mark.filterwarnings('ignore:Explicitly requested dtype float64')
def test_endless_episodes_on_the_host_are_cut_and_greedy_takes_the_mode(workdir, tmp_path, monkeypatch, endless):
    set_logits(monkeypatch, *[[0, 0, np.log(2)]] * 2)
    arguments = '--episodes', 60, '--max_episode_length', 6, '--out', tmp_path / 'rows.csv'
    assert main(workdir, '--environment', endless, *arguments) == 0
    for row in rows(tmp_path / 'rows.csv'):
        assert row['episode_length'] == '6.0'
        if row['policy'] == 'greedy':
            assert (float(row['episode_return']), float(row['standard_error'])) == (12, 0)
        else:  # A quarter of 0, a quarter of 1, a half of 2: mean 1.25 and variance 0.6875.
            error = np.sqrt(6 * 0.6875 / 60)
            assert float(row['episode_return']) == pytest.approx(7.5, abs=4 * error)
            assert float(row['standard_error']) == pytest.approx(error, rel=0.4)


@pytest.mark.parametrize('limit', ['.max_episode_length = 2', ':\n    max_episode_length = 2'])
def test_the_experiment_says_where_episodes_are_cut_by_default(limit, workdir, tmp_path):
    binding = '--gin_bindings', f'experiment.Experiment{limit}'
    assert main(workdir, '--episodes', 1, '--out', tmp_path / 'rows.csv', *binding) == 0
    for row in rows(tmp_path / 'rows.csv'):
        assert (row['episode_return'], row['episode_length'], row['standard_error']) == ('0.0', '2.0', 'nan')


def test_an_environment_can_be_a_value(workdir, tmp_path, capsys):
    assert main(workdir, '--episodes', 5, '--out', tmp_path / 'own.csv') == 0
    value = '--environment', '@other/batch.Batch()'
    assert main(workdir, '--episodes', 5, '--out', tmp_path / 'value.csv', *value) == 0
    assert (tmp_path / 'own.csv').read_text() == (tmp_path / 'value.csv').read_text()
    assert main(workdir, *value, '--gin_bindings', 'other/catch.Catch.rows = 4') == 2
    assert 'its observations are float32 [4, 3] instead of float32 [5, 3]\n' in capsys.readouterr().err


def frames(path) -> list[np.ndarray]:
    with Image.open(path) as gif:
        images = []
        for i in range(gif.n_frames):
            gif.seek(i)
            images.append(np.asarray(gif.convert('RGB'), int))
    return images


@pytest.mark.parametrize(('policy', 'column'), [('greedy', 0), ('stochastic', 2)])
def test_a_drawing_of_catch_shows_every_state_of_the_chosen_policy(workdir, tmp_path, monkeypatch, policy, column):
    # Greedily it goes left always, drawing actions only half of the time.
    set_logits(monkeypatch, [0, -99, -0.01] if policy == 'greedy' else [-99, -99, 0], [0, 0, 99])
    assert main(workdir, '--episodes', 1, '--render', tmp_path / 'new' / 'catch.gif', '--policy', policy) == 0
    images = frames(tmp_path / 'new' / 'catch.gif')
    assert len(images) == ROWS
    assert images[0].shape == (24 * ROWS, 24 * COLUMNS, 3)
    boards = [image[12::24, 12::24].sum(-1) > 0 for image in images]
    for t, board in enumerate(boards):
        assert board[t].any()  # The ball, in its row.
        assert board.sum() == (2 if t < ROWS - 1 else len({*np.flatnonzero(board[-1])}))
    assert boards[0][-1, COLUMNS // 2]
    assert boards[-1][-1, column]


def episode_of(environment, num_steps: int):
    single = DmEnvironment(environment)
    single.reset()
    states = [single.state]
    for _ in range(num_steps):
        single.step(1)
        states.append(single.state)
    return states


@pytest.mark.parametrize(
    ('environment', 'num_frames'),  # jumanji's drawing of Snake leaves the first state out.
    [(JumanjiEnvironment(Snake(6, 6), 'grid'), 2), (GymnaxEnvironment(GymnaxCatch()), 3)],
    ids=['snake', 'gymnax'],
)
def test_environments_of_others_are_drawn_by_their_libraries(tmp_path, environment, num_frames):
    environment.animator()(episode_of(environment, 2), tmp_path / 'episode.gif')
    first, *others = frames(tmp_path / 'episode.gif')
    assert len(others) == num_frames - 1
    assert all(np.any(image != first) for image in others)


def test_what_gymnax_does_not_draw_is_told():
    with pytest.raises(ValueError, match='gymnax has no drawing of DeepSea'):
        GymnaxEnvironment(DeepSea()).animator()


def test_the_best_checkpoint_can_be_asked_for(workdir):
    best = restore.restore_learner(workdir, 'best').checkpoint
    assert best == restore.find_checkpoint(workdir, 'best')
    scores = {number: _score(workdir, number) for number in (10, 20)}
    assert best == max(scores, key=scores.get)


def _score(workdir, meta_updates):
    """Mean over seeds of the return in a row of training."""
    found = [float(r['episode_return']) for r in rows(workdir / 'train.csv') if r['meta_updates'] == str(meta_updates)]
    return np.mean(found)


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--workdir', 'nowhere'], 'there are no checkpoints in nowhere'),
        (['--checkpoint', '15'], 'checkpoints, only [10, 20]'),
        (['--episodes', '0'], '--episodes must be at least 1, got 0'),
        (['--max_episode_length', '0'], '--max_episode_length must be at least 1'),
        (['--environment', 'nothing.gin'], "'nothing.gin' is missing"),
        (['--environment', '@cartpole.CartPole()'], '--gin_bindings can name what the files import'),
        (['--gin_bindings', 'catch.Catch.rows = 1'], 'Catch.rows must be at least 2'),
        (['--render', 'episode.png'], 'must end with .gif'),
        (['--fresh_agents', '--meta_parameters_of', '1', '--out', 'x'], 'python tools/meta_test.py'),
    ],
)
def test_bad_input_is_one_line_and_status_2(workdir, arguments, part, capsys):
    before = sorted(workdir.rglob('*'))
    assert main(workdir, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert part in line
    assert sorted(workdir.rglob('*')) == before


@pytest.mark.filterwarnings('ignore:Explicitly requested dtype float64')
def test_what_does_not_fit_or_cannot_be_drawn_is_told_before_playing(workdir, endless, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, 'rollout', None)
    actions = '--gin_bindings', 'endless.Endless.num_actions = 4'
    assert main(workdir, '--environment', endless, *actions) == 2
    assert (
        capsys.readouterr().err == 'error: the environment does not fit the weights: its actions are 4 instead of 3\n'
    )
    assert main(workdir, '--environment', endless, '--render', tmp_path / 'x.gif') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'the environment cannot be drawn: Endless' in line
    assert not (tmp_path / 'x.gif').exists()


def test_a_checkpoint_of_another_agent_is_told(workdir, tmp_path, capsys):
    shutil.copytree(workdir, tmp_path / 'run')
    config = tmp_path / 'run' / 'config.gin'
    config.write_text(config.read_text().replace('hidden_sizes = (8,)', 'hidden_sizes = (8, 8)'))
    assert main(tmp_path / 'run') == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        'checkpoint 20 is of another structure: state/agents/learning/params/network/shared/linear_1/b is missing in it'
        in line
    )
