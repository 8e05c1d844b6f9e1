"""Names of modules and classes in gin files of older versions, read as what they are called today.

A run keeps its configuration in its folder and resumes from it, so old names must stay readable.
"""

import importlib
from typing import Any

_ACTING = 'components.acting'
_ADAPTERS = 'components.environments.adapters'
_ESTIMATORS = 'components.meta_optimisers.gradient_estimators'
_EXPERIMENTS = 'agents.experiments'
_META_PARAMETERS = 'components.meta_parameters'

RENAMED = {
    # Until version 0.1.
    'agents.experiment': f'{_EXPERIMENTS}.experiment',
    'agents.progress': f'{_EXPERIMENTS}.terminal_logger',
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
    'components.policies': f'{_ACTING}.policies',
    'components.policies.Constant': f'{_ACTING}.policies.FixedPolicy',
    'components.policies.EpsilonMixed': f'{_ACTING}.policies.EpsilonMixture',
    'components.schedules': f'{_META_PARAMETERS}.schedules',
}
"""Modules and classes: the old name and today's."""

RENAMED_FIELDS = {
    # Until version 0.1.
    'components.meta_optimisers.bootstrapped_target.Bootstrapped.differentiation': 'gradient_estimator',
    'components.meta_optimisers.meta_gradient.MetaGradient.differentiation': 'gradient_estimator',
    'components.meta_optimisers.meta_gradient.MetaGradient.validation': 'outer_data',
}
"""Fields of classes, which have their names of today: the old name and today's."""


_ParseContext: Any = object
"""For the type checker: what the mixin stands before."""


class ReadsOldNames(_ParseContext):
    """Mixin for gin's `ParseContext`: a file's old names are read as today's."""

    def __init__(self):
        super().__init__()
        self._statements: dict[str, Any] = {}

    def process_import(self, statement: Any) -> None:
        """Imports the module that a statement names, or what it is called today."""
        self._statements[statement.bound_name()] = statement
        if statement.module in RENAMED:
            self._import(RENAMED[statement.module], statement)
        else:
            super().process_import(statement)

    def _resolve_selector(self, selector: str) -> tuple[list[str], list[Any]]:
        """Names and values of a selector's parts; what was renamed is resolved by its name of today."""
        symbol, *names = selector.split('.')
        statement = self._statements.get(symbol)
        if statement is None or not names:
            return super()._resolve_selector(selector)
        is_path = not statement.is_from and not statement.alias  # `import a.b` binds a.
        old = selector if is_path else '.'.join([statement.module, *names])
        module, _, name = old.rpartition('.')
        today = RENAMED.get(old) or (f'{RENAMED[module]}.{name}' if module in RENAMED else None)
        if today is None:
            return super()._resolve_selector(selector)
        module, _, name = today.rpartition('.')
        self._import(module, statement)
        return super()._resolve_selector(f'{_key(module)}.{name}')

    def _import(self, module: str, statement: Any) -> None:
        """Imports a module under a key that no file can bind."""
        if _key(module) not in self._symbol_table:
            statement = statement._replace(module=module, is_from=True, alias=None)
            self._symbol_table[_key(module)] = importlib.import_module(module)
            self._symbol_source[_key(module)] = statement
            self._imports.append(statement)


def today_field(cls: Any, name: str) -> str:
    """What a field of a class, or a parameter of a function, is called today."""
    return RENAMED_FIELDS.get(f'{cls.__module__}.{cls.__qualname__}.{name}', name)


def _key(module: str) -> str:
    return module.replace('.', '/')
