"""Plays episodes of a run's agents, and draws one of them.

    python tools/evaluate.py --workdir runs/snake
    python tools/evaluate.py --workdir runs/snake --episodes 10 --render snake.gif --policy stochastic
    python tools/evaluate.py --workdir runs/snake --gin_bindings 'jumanji.environments.Snake.time_limit = 4_000'

Prints the return of episodes of the stochastic and of the greedy policy: for each seed of the run, those of its first
lifetime. With --environment, or --gin_bindings that change the run's own, in an environment whose observations and
actions are the same. Exit status: 0, or 2 when what was asked for cannot be done.
"""

import argparse
import pathlib
import sys
from typing import Any

# A checkout can be run whether or not it is installed, from any folder.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]

import dm_env
import rich.table

from agents.analysis import tables
from agents.analysis.host_episodes import SeedVariables, TimeLimit, rollout, summarise
from agents.experiments import gin_config
from agents.experiments.experiment import Experiment
from agents.experiments.launch import notify
from agents.experiments.restore import RestoredRun, in_environment, restore_learner
from components.acting.host_actor import HostActor
from components.environments.base import Animator, animator_of, check_fits
from components.metrics import Group
from components.types import CompositionError, ConfigurationError
from tools.command_line import Parser, run_command
from tools.option_types import at_least

POLICIES = {'stochastic': False, 'greedy': True}
"""Whether each takes the most probable action."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _evaluate, arguments)


def _evaluate(args: argparse.Namespace) -> int:
    if args.render and args.render.suffix != '.gif':
        raise ConfigurationError(f'--render writes an animated GIF: {args.render} must end with .gif')
    run = restore_learner(args.workdir, args.checkpoint)
    gin_config.load(*in_environment(args.workdir, args.environment, args.gin_bindings))
    gin_config.check_effects(Experiment)
    experiment = gin_config.build(Experiment)
    check_fits(experiment.agent.environment.spec(), run.experiment.agent.environment.spec())
    environment = experiment.agent.environment.as_dm_env(args.seed)
    animate = _animator(environment) if args.render else None
    limit = args.max_episode_length or experiment.max_episode_length
    for path in filter(None, (args.render, args.out)):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = _play(run, TimeLimit(environment, limit), args)
        tables.show(_table(rows))
        if args.out:
            tables.write_csv(args.out, rows)
        if animate:
            _draw(run, environment, animate, limit, args)
    finally:
        environment.close()
    return 0


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, required=True, help='a run with checkpoints')
    parser.add_checkpoint()
    parser.add_environment()
    parser.add_argument('--seed', type=int, default=0, help='of the episodes')
    parser.add_argument('--episodes', type=at_least(1), default=100, metavar='N', help='of each policy and seed')
    about = "episodes count as they stand then; default: the experiment's"
    parser.add_argument('--max_episode_length', type=at_least(1), metavar='N', help=about)
    parser.add_argument('--out', type=pathlib.Path, help='a CSV file for the rows')
    parser.add_argument('--render', type=pathlib.Path, metavar='GIF', help="draws an episode of the run's first seed")
    parser.add_argument('--policy', choices=POLICIES, default='greedy', help='the one that is drawn; default: greedy')
    parser.add_argument('--fresh_agents', nargs=0, action=_MetaTest, help=argparse.SUPPRESS)
    return parser


class _MetaTest(argparse.Action):
    """An option of older versions."""

    def __call__(self, *args):
        raise ConfigurationError(
            '--fresh_agents is a command of its own: python tools/meta_test.py, with the same other options'
        )


def _play(run: RestoredRun, environment: dm_env.Environment, args: argparse.Namespace) -> list[tables.Row]:
    """A row for each seed and policy."""
    variables = SeedVariables(run.learner)
    actors = {name: _actor(run, variables, name, args) for name in POLICIES}
    rows: list[tables.Row] = []
    for seed in range(run.learner.num_replicas):
        variables.seed = seed
        for name, actor in actors.items():
            actor.update()
            notify(f'playing {args.episodes} episodes of seed {seed}, {name} policy')
            summary = summarise(rollout(environment, actor, args.episodes))
            varied = {column: float(f'{x[seed]:.7g}') for column, x in run.learner.replica_columns.items()}
            rows.append({'checkpoint': run.checkpoint, 'seed': seed, **varied, 'policy': name, **summary})
    return rows


def _actor(run: RestoredRun, variables: SeedVariables, policy: str, args: argparse.Namespace) -> HostActor:
    learner = run.learner
    return HostActor(learner.network, variables, args.seed, learner.agent.policy, POLICIES[policy])


def _draw(run: RestoredRun, environment: Any, animate: Animator, limit: int, args: argparse.Namespace) -> None:
    """Draws an episode of the first seed."""
    states: list[Any] = []
    watched = TimeLimit(environment, limit, lambda: states.append(environment.state))
    (episode,) = rollout(watched, _actor(run, SeedVariables(run.learner), args.policy, args), 1)
    animate(states, args.render)
    print(f'{args.render} shows an episode of the {args.policy} policy, of return {episode.episode_return:.4g}')


def _animator(environment: dm_env.Environment) -> Animator:
    try:
        return animator_of(environment)
    except ValueError as error:
        raise CompositionError(f'the environment cannot be drawn: {error}') from error


def _table(rows: list[tables.Row]) -> rich.table.Table:
    varied = [name for name in rows[0] if name.startswith(str(Group.REPLICA('')))]
    columns = ['seed', *varied, 'policy', 'episodes', 'mean return', 'standard error', 'mean length']
    precision = {'episode_return': '.4g', 'standard_error': '.3g', 'episode_length': '.4g'}
    names = ['seed', *varied, 'policy', 'episodes', *precision]
    lines = ([tables.number(row[name], precision.get(name, '')) for name in names] for row in rows)
    return tables.table(columns, lines, title=f'checkpoint {rows[0]["checkpoint"]}')


if __name__ == '__main__':
    sys.exit(main())
