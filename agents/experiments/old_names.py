"""Names of older versions in gin files: modules, classes and fields, read as what they are called today, and paths.

A run keeps its configuration in its folder and resumes from it, so old names must stay readable. Paths need not: that
configuration includes no file.
"""

import importlib
from typing import Any, NamedTuple

_ACTING = 'components.acting'
_ADAPTERS = 'components.environments.adapters'
_ESTIMATORS = 'components.meta_optimisers.gradient_estimators'
_EXPERIMENTS = 'agents.experiments'
_META_PARAMETERS = 'components.meta_parameters'
_META_GRADIENT = 'components.meta_optimisers.meta_gradient.MetaGradient'
_VALUE_REGRESSION = 'components.objectives.value_regression'
_VALIDATION_LOSS = 'components.meta_optimisers.validation_loss.ValidationLoss'
_BOOTSTRAPPED_TARGET = 'components.meta_optimisers.bootstrapped_target.BootstrappedTarget'

RENAMED = {
    # Until version 0.1.
    'agents.experiment': f'{_EXPERIMENTS}.experiment',
    'agents.progress': f'{_EXPERIMENTS}.terminal_logger',
    'agents.runs': f'{_EXPERIMENTS}.restore',
    'components.actors': f'{_ACTING}.actor',
    'components.agent': 'agents.agent',
    'components.behaviours': f'{_ACTING}.behaviours',
    'components.bijectors': f'{_META_PARAMETERS}.bijectors',
    'components.environments.adapters.GymnaxEnvironment': f'{_ADAPTERS}.gymnax.GymnaxEnvironment',
    'components.environments.adapters.JumanjiEnvironment': f'{_ADAPTERS}.jumanji.JumanjiEnvironment',
    'components.environments.base.Batch': 'components.environments.batch.Batch',
    'components.environments.harlow.Harlow': 'components.environments.harlow.pixels.Harlow',
    'components.environments.harlow.RingHarlow': 'components.environments.harlow.ring.RingHarlow',
    'components.environments.harlow.SymbolicHarlow': 'components.environments.harlow.symbolic.SymbolicHarlow',
    'components.environments.host': f'{_ADAPTERS}.host',
    'components.environments.i_maze.IMaze': 'components.environments.i_maze.pixels.IMaze',
    'components.environments.i_maze.SymbolicIMaze': 'components.environments.i_maze.symbolic.SymbolicIMaze',
    'components.environments.views': 'components.environments.images',
    'components.loggers': f'{_EXPERIMENTS}.loggers',
    'components.meta_optimisers.bootstrapped': 'components.meta_optimisers.bootstrapped_target',
    'components.meta_optimisers.bootstrapped.Bootstrapped': _META_GRADIENT,
    'components.meta_optimisers.differentiation': f'{_ESTIMATORS}.base',
    'components.meta_optimisers.differentiation.EvolutionStrategies': (
        f'{_ESTIMATORS}.evolution_strategies.EvolutionStrategies'
    ),
    'components.meta_optimisers.differentiation.Forward': f'{_ESTIMATORS}.exact.Forward',
    'components.meta_optimisers.differentiation.Mixed': f'{_ESTIMATORS}.mixed_mode.Mixed',
    'components.meta_optimisers.differentiation.Reverse': f'{_ESTIMATORS}.exact.Reverse',
    'components.meta_optimisers.differentiation.Truncated': f'{_ESTIMATORS}.truncated.Truncated',
    'components.meta_optimisers.validation': 'components.meta_optimisers.validation_data',
    'components.meta_parameters': f'{_META_PARAMETERS}.meta_parameters',
    'components.networks.torsos.Joined': 'components.networks.torsos.Concatenate',
    'components.objectives.actor_critic.ActionValueRegression': f'{_VALUE_REGRESSION}.ActionValueRegression',
    'components.objectives.actor_critic.EntropyBonus': 'components.objectives.entropy_bonus.EntropyBonus',
    'components.objectives.actor_critic.ValueRegression': f'{_VALUE_REGRESSION}.ValueRegression',
    'components.policies': f'{_ACTING}.policies',
    'components.policies.Constant': f'{_ACTING}.policies.FixedPolicy',
    'components.policies.EpsilonMixed': f'{_ACTING}.policies.EpsilonMixture',
    'components.schedules': f'{_META_PARAMETERS}.schedules',
}
"""Modules and classes: the old name and today's."""

_OLD_BOOTSTRAPPED = 'components.meta_optimisers.bootstrapped.Bootstrapped'

MOVED_FIELDS = {
    # Until version 0.1.
    **{
        f'{_META_GRADIENT}.{field}': f'{_VALIDATION_LOSS}.{field}'
        for field in ('objective', 'num_inner_steps', 'step_weights')
    },
    f'{_META_GRADIENT}.validation': f'{_VALIDATION_LOSS}.outer_data',
    f'{_META_GRADIENT}.differentiation': f'{_META_GRADIENT}.gradient_estimator',
    **{
        f'{_OLD_BOOTSTRAPPED}.{field}': f'{_BOOTSTRAPPED_TARGET}.{field}'
        for field in (
            'objective',
            'target_optimiser',
            'num_inner_steps',
            'num_target_steps',
            'policy_cost',
            'value_cost',
            'value_head',
        )
    },
    f'{_OLD_BOOTSTRAPPED}.differentiation': f'{_META_GRADIENT}.gradient_estimator',
}
"""Fields: the old class and name, and the class and name of today."""

PARTS = {_VALIDATION_LOSS: 'outer_loss', _BOOTSTRAPPED_TARGET: 'outer_loss'}
"""Classes that hold fields of an older one, and the field in which what the older one is today holds them."""

MOVED_FILES = {
    # Until version 0.1.
    f'gin/base/{name}.gin': f'gin/base/{folder}/{name}.gin'
    for folder, names in {
        'agents': ('actor_critic', 'meta_rl', 'prediction'),
        'environments': ('catch', 'delayed_cartpole', 'grid_worlds', 'minatar', 'pixels', 'random_walk', 'snake'),
        'methods': ('frodo', 'learned_prediction', 'lpg', 'meta_gradient'),
    }.items()
    for name in names
}
"""Shipped gin files: the old path in the checkout, and today's."""


class Binding(NamedTuple):
    """What a statement binds today.

    Attributes:
      selector: of the class.
      field: its field.
      part: selector of a class that this field has to hold, beside another binding; None for the statement's value.
      is_default: whether an earlier binding of the field stays.
    """

    selector: str
    field: str
    part: str | None = None
    is_default: bool = False


_ParseContext: Any = object
"""For the type checker: what the mixin stands before."""


class ReadsOldNames(_ParseContext):
    """Mixin for gin's `ParseContext`: a file's old names are read as today's."""

    def __init__(self) -> None:
        super().__init__()
        self._statements: dict[str, Any] = {}

    def process_import(self, statement: Any) -> None:
        """Imports the module that a statement names, or what it is called today."""
        self._statements[statement.bound_name()] = statement
        if statement.module in RENAMED:
            self._import(RENAMED[statement.module])
        else:
            super().process_import(statement)

    def today(self, selector: str, field: str) -> list[Binding]:
        """The bindings for which one of a class's field stands, the class named as in the file."""
        old = self.full_name(selector)
        moved = MOVED_FIELDS.get(f'{old}.{field}')
        if moved is None:
            return [Binding(selector, field)]
        cls, _, field = moved.rpartition('.')
        bindings = [Binding(self._selector(cls), field)]
        if cls in PARTS:
            bindings.append(Binding(selector, PARTS[cls], self._selector(cls), is_default=old not in RENAMED))
        return bindings

    def full_name(self, selector: str) -> str:
        """The name of a class, or of its field, in full, as the file's import lines have it."""
        symbol, _, name = selector.partition('.')
        statement = self._statements.get(symbol)
        if statement is None or not name or not (statement.is_from or statement.alias):  # `import a.b` binds a.
            return selector
        return f'{statement.module}.{name}'

    def _resolve_selector(self, selector: str) -> tuple[list[str], list[object]]:
        """Names and values of a selector's parts; what was renamed is resolved by its name of today."""
        old = self.full_name(selector)
        module, _, name = old.rpartition('.')
        today = RENAMED.get(old) or (f'{RENAMED[module]}.{name}' if module in RENAMED else None)
        return super()._resolve_selector(self._selector(today) if today else selector)

    def _selector(self, cls: str) -> str:
        """A selector of a class, whose module is imported for it."""
        module, _, name = cls.rpartition('.')
        self._import(module)
        return f'{_key(module)}.{name}'

    def _import(self, module: str) -> None:
        """Imports a module under a key that no file can bind."""
        if _key(module) not in self._symbol_table:
            some_statement = next(iter(self._statements.values()))
            statement = some_statement._replace(module=module, is_from=True, alias=None)
            self._symbol_table[_key(module)] = importlib.import_module(module)
            self._symbol_source[_key(module)] = statement
            self._imports.append(statement)


def _key(module: str) -> str:
    return module.replace('.', ':')
