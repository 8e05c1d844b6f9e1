"""The learner against loops written by hand for one agent each."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from agents.agent import Agent
from agents.learner import Learner
from components.environments.batch import Batch
from components.types import ConfigurationError
from tools.benchmarks.hand_written.actor_critic import HandWrittenActorCritic
from tools.benchmarks.hand_written.frodo import HandWrittenFRODO
from tools.benchmarks.hand_written.lpg import HandWrittenLPG
from tools.benchmarks.hand_written.meta_discount import on_catch, on_snake
from tools.benchmarks.hand_written.recurrent import HandWrittenRecurrentActorCritic
from tools.benchmarks.measure import Row, agent_of, alternate, cpu_and_wall, row, training


class Comparison(NamedTuple):
    """One agent and the loops for it.

    Attributes:
      num_meta_steps: in a call.
      by_hand: `(agent, num_meta_steps) -> loops`, by what they are.
      bindings: of the variant.
    """

    num_meta_steps: int
    by_hand: Callable[[Agent, int], dict[str, Any]]
    bindings: tuple[str, ...] = ()


BY_HAND, APART = 'a loop by hand', 'a loop by hand, bootstrapping apart'
COMPARISONS = {
    'gin/snake/meta_discount_outer_critic.gin': Comparison(
        5,
        lambda agent, n: {
            BY_HAND: on_snake(_jumanji(agent), n),
            APART: on_snake(_jumanji(agent), n, bootstrap_apart=True),
        },
    ),
    'gin/snake/actor_critic.gin': Comparison(
        10,
        lambda agent, n: {
            BY_HAND: HandWrittenActorCritic(_jumanji(agent), n),
            f'{BY_HAND} that trains an outer critic too': HandWrittenActorCritic(_jumanji(agent), n, outer_critic=True),
            APART: HandWrittenActorCritic(_jumanji(agent), n, bootstrap_apart=True),
        },
    ),
    'gin/catch/meta_discount.gin': Comparison(
        200, lambda agent, n: {BY_HAND: on_catch(n), APART: on_catch(n, bootstrap_apart=True)}
    ),
    'gin/catch/frodo.gin': Comparison(30, lambda agent, n: {BY_HAND: HandWrittenFRODO(n)}),
    'gin/grid_worlds/lpg.gin': Comparison(
        1, lambda agent, n: {BY_HAND: HandWrittenLPG(cast(Batch, agent.environment), n)}
    ),
    'gin/bandits/independent.gin': Comparison(
        3, lambda agent, n: {BY_HAND: HandWrittenRecurrentActorCritic(1_024, n)}, ('NUM_ENVS = 1_024',)
    ),
}
"""By the variant's gin file. A loop does what the learner does, but for its logs, unless its name says otherwise."""


def loops(rounds: int, gin_files: Sequence[str]) -> Iterator[Row]:
    """Milliseconds of a meta-step, of CPU time and by the clock; a ratio above 1: the learner is faster."""
    for gin_file in gin_files or COMPARISONS:
        if gin_file not in COMPARISONS:
            raise ConfigurationError(
                f'--gin_file {gin_file}: no loop by hand is of that variant; there are loops of {", ".join(COMPARISONS)}'
            )
        num_meta_steps, by_hand, bindings = COMPARISONS[gin_file]
        agent = agent_of(gin_file, *bindings)
        others = by_hand(agent, num_meta_steps)
        sides = [training(Learner(agent), num_meta_steps), *(loop.run for loop in others.values())]
        ours, *theirs = (1e3 / num_meta_steps * x.T for x in alternate(sides, rounds, cpu_and_wall))
        for against, other in zip(others, theirs, strict=True):
            for unit, mine, its in zip(('CPU ms', 'ms'), ours, other, strict=True):
                yield row(gin_file, against, unit, mine, its, its / mine)


def _jumanji(agent: Agent) -> Any:
    return cast(Any, agent.environment).environment.environment
