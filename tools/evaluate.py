"""Plays a run's agents, draws one of their episodes, or trains new agents with the meta-parameters that a run has
learned.

    python tools/evaluate.py --workdir runs/snake
    python tools/evaluate.py --workdir runs/snake --episodes 10 --render snake.gif --policy stochastic
    python tools/evaluate.py --workdir runs/snake --gin_bindings 'jumanji.environments.Snake.time_limit = 4_000'
    python tools/evaluate.py --workdir runs/snake --fresh_agents --gin_bindings 'TOTAL_ENV_STEPS = 10_000_000'

Prints the return of episodes of the stochastic and of the greedy policy: for each seed of the run, those of its first
lifetime. With --environment, or --gin_bindings that change the run's own, in an environment whose observations and
actions are the same. With --fresh_agents instead a meta-test: agents learn from scratch while the meta-parameters stay
as the checkpoint has them, in an environment of any kind, in a folder that is a run: asked for again, or by
tools/run.py, it resumes. Exit statuses are those of tools/run.py.
"""

import argparse
import csv
import pathlib
import sys
from typing import Any

# A checkout can be run whether or not it is installed, from any folder, and gin files can import what lies in that one.
sys.path[:1] = [str(pathlib.Path(__file__).resolve().parents[1])]
sys.path.append(str(pathlib.Path.cwd()))

import dm_env
import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from acme import specs

from agents.analysis.host_episodes import Episode, SeedVariables, TimeLimit, rollout
from agents.experiments import gin_config, run_folder
from agents.experiments.experiment import Experiment
from agents.experiments.gin_config import ConfigurationError
from agents.experiments.launch import launch, notify
from agents.experiments.restore import BEST, RestoredRun, find_checkpoint, restore_learner
from components.acting.host_actor import HostActor
from components.environments.base import Animator, animator_of
from components.types import CompositionError
from tools.command_line import Parser, run_command

POLICIES = {'stochastic': False, 'greedy': True}
"""Whether each takes the most probable action."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: those of the command line if None.

    Returns:
      The exit status.
    """
    return run_command(_parser(), _command, arguments)


def _command(args: argparse.Namespace) -> int:
    _check(args)
    return (_meta_test if args.fresh_agents else _evaluate)(args)


def _parser() -> Parser:
    parser = Parser(__doc__)
    parser.add_argument('--workdir', type=pathlib.Path, required=True, help='a run with checkpoints')
    parser.add_argument('--checkpoint', metavar='N', help='meta-updates, or best; default: the newest')
    parser.add_argument(
        '--environment',
        metavar='E',
        help="a gin file, read after the run's, or a value for agent.Agent.environment such as '@batch.Batch()'; "
        "default: the run's own",
    )
    parser.add_argument(
        '--gin_bindings', action='append', default=[], metavar='LINE', help='read last, of the environment; repeatable'
    )
    parser.add_argument('--seed', type=int, help="of the episodes, 0 by default; of fresh agents, the run's by default")
    parser.add_argument(
        '--out', type=pathlib.Path, help='a CSV file for the rows; for fresh agents a folder, meta_test/ in the workdir'
    )
    play = parser.add_argument_group('episodes')
    play.add_argument('--episodes', type=int, default=100, metavar='N', help='of each policy and seed')
    play.add_argument(
        '--max_episode_length',
        type=int,
        metavar='N',
        help="episodes count as they stand then; default: the experiment's",
    )
    play.add_argument('--render', type=pathlib.Path, metavar='GIF', help="draws an episode of the run's first seed")
    play.add_argument('--policy', choices=POLICIES, default='greedy', help='the one that is drawn; default: greedy')
    meta_test = parser.add_argument_group('meta-test')
    meta_test.add_argument(
        '--fresh_agents', action='store_true', help='train new agents with the meta-parameters of the checkpoint'
    )
    meta_test.add_argument(
        '--meta_parameters_of',
        type=int,
        default=0,
        metavar='I',
        help="the run's seed, counted from 0, that learned them",
    )
    return parser


def _check(args: argparse.Namespace) -> None:
    """Raises ConfigurationError for numbers and names that cannot be meant."""
    if args.checkpoint not in (None, BEST) and not args.checkpoint.isdigit():
        raise ConfigurationError(f'--checkpoint is a number or {BEST}, got {args.checkpoint}')
    for name in ('episodes', 'max_episode_length'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigurationError(f'--{name} must be at least 1, got {getattr(args, name)}')
    if args.render and args.fresh_agents:
        raise ConfigurationError(
            '--render draws the agents of a run; fresh agents are one: give their folder as --workdir'
        )
    if args.render and args.render.suffix != '.gif':
        raise ConfigurationError(f'--render writes an animated GIF: {args.render} must end with .gif')


def _files(args: argparse.Namespace) -> tuple[list[str | pathlib.Path], list[str]]:
    """The files and bindings of the run in the environment that was asked for."""
    files: list[str | pathlib.Path] = [args.workdir / run_folder.CONFIG]
    if args.environment and args.environment.startswith('@'):
        return files, [f'agent.Agent.environment = {args.environment}', *args.gin_bindings]
    return files + ([args.environment] if args.environment else []), args.gin_bindings


def _evaluate(args: argparse.Namespace) -> int:
    args.seed = args.seed or 0
    run = restore_learner(args.workdir, args.checkpoint)
    gin_config.load(*_files(args))
    gin_config.check_effects(Experiment)
    experiment = gin_config.build(Experiment)
    _check_spec(experiment.agent.environment.spec(), run.experiment.agent.environment.spec())
    environment = experiment.agent.environment.as_dm_env(args.seed)
    animate = _animator(environment) if args.render else None
    limit = args.max_episode_length or experiment.max_episode_length
    for path in filter(None, (args.render, args.out)):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        rows = _play(run, TimeLimit(environment, limit), args)
        rich.console.Console().print(_table(rows))
        if args.out:
            _write(args.out, rows)
        if animate:
            _draw(run, environment, animate, limit, args)
    finally:
        environment.close()
    return 0


def _check_spec(spec: specs.EnvironmentSpec, trained_on: specs.EnvironmentSpec) -> None:
    """Raises CompositionError if a network made for one environment cannot act in the other."""
    shown, known = (
        {'observations': _structure(s.observations), 'actions': _num_actions(s)} for s in (spec, trained_on)
    )
    differences = [
        f'its {name} are {shown[name]} instead of {known[name]}' for name in shown if shown[name] != known[name]
    ]
    if differences:
        raise CompositionError(f'the environment does not fit the weights: {" and ".join(differences)}')


def _structure(observations: Any) -> Any:
    return jax.tree.map(lambda s: f'{jax.dtypes.canonicalize_dtype(s.dtype)} {list(s.shape)}', observations)


def _num_actions(spec: specs.EnvironmentSpec) -> Any:
    return getattr(spec.actions, 'num_values', spec.actions)


def _play(run: RestoredRun, environment: dm_env.Environment, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each seed and policy."""
    variables = SeedVariables(run.learner)
    actors = {name: _actor(run, variables, name, args) for name in POLICIES}
    rows = []
    for seed in range(run.learner.num_seeds):
        variables.seed = seed
        for name, actor in actors.items():
            actor.update()
            notify(f'playing {args.episodes} episodes of seed {seed}, {name} policy')
            summary = _summary(rollout(environment, actor, args.episodes))
            rows.append({'checkpoint': run.checkpoint, 'seed': seed, 'policy': name, **summary})
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


def _summary(episodes: list[Episode]) -> dict[str, Any]:
    """Means over episodes, and the standard error of that of the return; NaN for one episode."""
    returns, lengths = np.array(episodes, float).T
    error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else np.nan
    return {
        'episodes': len(episodes),
        'episode_return': returns.mean(),
        'standard_error': error,
        'episode_length': lengths.mean(),
    }


def _table(rows: list[dict[str, Any]]) -> rich.table.Table:
    title = f'checkpoint {rows[0]["checkpoint"]}'
    table = rich.table.Table(
        'seed', 'policy', 'episodes', 'mean return', 'standard error', 'mean length', box=rich.box.SIMPLE, title=title
    )
    for row in rows:
        error = '' if np.isnan(row['standard_error']) else f'{row["standard_error"]:.3g}'
        figures = f'{row["episode_return"]:.4g}', error, f'{row["episode_length"]:.4g}'
        table.add_row(str(row['seed']), row['policy'], str(row['episodes']), *figures)
    return table


def _write(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def _meta_test(args: argparse.Namespace) -> int:
    """Trains as tools/run.py does: what is asked for is the run's configuration and these bindings."""
    directory = run_folder.check(args.out or args.workdir / 'meta_test')
    checkpoint = find_checkpoint(args.workdir, args.checkpoint)
    files, environment = _files(args)
    gin_config.load(files, environment)
    agent = gin_config.build(Experiment).agent
    if not agent.meta_parameters.parameters:
        raise CompositionError(f'{args.workdir} has learned no meta-parameters')
    learned = {
        'entries': '@meta_parameters.MetaParameterSet()',
        'directory': repr(str(args.workdir.absolute())),
        'checkpoint': checkpoint,
        'seed': args.meta_parameters_of,
    }
    bindings = [
        *environment,
        'from agents.experiments import restore',
        'from components.meta_optimisers import base as meta_optimisers',
        'agent.Agent.meta_parameters = @restore.learned_meta_parameters()',
        *(f'restore.learned_meta_parameters.{name} = {value}' for name, value in learned.items()),
        'agent.Agent.meta_optimiser = @meta_optimisers.Fixed()',
        f'meta_optimisers.Fixed.num_inner_steps = {agent.meta_optimiser.num_updates}',
        *([] if args.seed is None else [f'SEED = {args.seed}']),
    ]
    return launch(files, bindings, directory)


if __name__ == '__main__':
    sys.exit(main())
