"""Statistics of agents over many games: median, mean and interquartile mean of human-normalised scores."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from agents.analysis import comparison, comparison_report, tables, variants
from agents.analysis.run_tables import EVAL, TRAIN, ListedRun, Run, RunTableError
from agents.analysis.variants import Configurations, Measure, Variant

MEASURES = {TRAIN: 'human_normalised', EVAL: 'stochastic/human_normalised'}
"""Column of each table by which agents are compared over games."""


class GamesReport(NamedTuple):
    """Agents, each in some games.

    Attributes:
      measure: what is compared.
      agents: by name, a variant for each game, by the game's name.
      out: folder of the files.
      listed: runs that sweeps are to train.
    """

    measure: Measure
    agents: Mapping[str, Mapping[str, Variant]]
    out: pathlib.Path
    listed: Sequence[ListedRun] = ()

    def table(self) -> comparison_report.Table:
        """A line for each agent: its games, and their statistics with 95% intervals."""
        names = [name.replace('_', ' ') for name in comparison.OverGames._fields]
        header = ['agent', 'games', 'partial', *(f'{name}{end}' for name in names for end in ('', ' low', ' high'))]
        return header, [self._line(agent) for agent in self.agents]

    def games(self) -> comparison_report.Table:
        """A line for each game of each agent."""
        lines = []
        for agent, games in self.agents.items():
            for game, variant in sorted(games.items()):
                final = variant.final
                figures = (final.mean(), final.min(), final.max()) if len(final) else [float('nan')] * 3
                line = [agent, game, str(len(final)), variant.status, str(variant.env_steps)]
                lines.append(line + [tables.number(float(x)) for x in figures])
        return ['agent', 'game', 'seeds', 'status', 'env_steps', 'mean', 'lowest', 'highest'], lines

    def about(self) -> str:
        return (
            f'Scores: {self.measure}, mean over the last {self.measure.share:.0%} of the rows. '
            f'Intervals: 95% bootstrap, where every game has {comparison.MIN_SEEDS} seeds.'
        )

    def partial(self) -> list[str]:
        return [variant.name for variant in self._variants if not variant.is_complete]

    def failed(self) -> list[ListedRun]:
        return variants.failed_runs(self._variants, self.listed)

    def awaited(self) -> list[str]:
        return variants.awaited(self._variants, self.listed)

    def write(self) -> None:
        """Writes both tables, each in Markdown, CSV and LaTeX."""
        self.out.mkdir(parents=True, exist_ok=True)
        comparison_report.write_table(self.out / 'over_games', self.table())
        comparison_report.write_table(self.out / 'games', self.games())

    @property
    def _variants(self) -> list[Variant]:
        return [variant for games in self.agents.values() for variant in games.values()]

    def _line(self, agent: str) -> list[str]:
        games = self.agents[agent].values()
        scores = [variant.final for variant in games if len(variant.final)]
        num_values = 3 * len(comparison.OverGames._fields)
        values = np.ravel(comparison.over_games(scores)) if scores else np.full(num_values, np.nan)
        counts = f'{len(scores)} of {len(games)}' if len(scores) < len(games) else str(len(games))
        partial = sum(not variant.is_complete for variant in games)
        return [agent, counts, str(partial), *(tables.number(float(x)) for x in values)]


def report_of(
    runs: Sequence[Run],
    out: pathlib.Path,
    share: float,
    table: str | None = None,
    column: str | None = None,
    listed: Sequence[ListedRun] = (),
) -> GamesReport:
    """Reads what a report over games needs.

    An agent is what the names of its runs have in common beside the game: `frodo` of `frodo/pong` and `frodo/boxing`,
    or of `frodo-GAME=pong`.

    Args:
      runs: of one or more agents, one for each game.
      out: folder of the report.
      share: of a seed's rows that are its final performance.
      table: as `variants.measure_of` takes it.
      column: of that table, in place of human-normalised scores.
      listed: runs that sweeps are to train.

    Raises:
      RunTableError: if a table has no such column or is damaged, or an agent has two runs of a game.
      ConfigurationError: if a run's configuration cannot be read.
    """
    configurations = Configurations(runs)
    measure = variants.measure_of(runs, share, table)
    measure = measure._replace(column=column or MEASURES[measure.table])
    agents: dict[str, dict[str, Variant]] = {}
    for variant in variants.read_variants(runs, measure, configurations):
        game = game_of(configurations.environment(variant.run))
        agent = ' '.join(filter(None, [agent_of(variant.run.name, game), variant.replica])) or 'agent'
        other = agents.setdefault(agent, {}).setdefault(game, variant)
        if other is not variant:
            raise RunTableError(
                f'{other.name} and {variant.name} are both of {agent} in {game}: give one run of each game, or give '
                'agents folders of their own'
            )
    return GamesReport(measure, agents, out, listed)


def game_of(environment: str) -> str:
    """The game of an environment that is described by an expression; the expression if it says none."""
    found = re.search(r"\bgame='(\w+)'", environment)
    return found[1] if found else environment


def agent_of(name: str, game: str) -> str:
    """The name of a run without that of its game; empty if nothing else is left."""
    without = re.sub(rf"(GAME=)?(?<![a-z])['\"]?{re.escape(game)}['\"]?(?![a-z])", '', name)
    return re.sub(r'([/,\-_ ])[/,\-_ ]+', r'\1', without).strip('/,-_ ')
