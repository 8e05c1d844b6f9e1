"""Imports point downward, and in no circle."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What may import only what stands in its own line or above.
ORDER = (
    'components.types',
    'components.component',
    ('components.metrics', 'components.component_tree', 'components.axes', 'components.shapes', 'components.run_once'),
    ('components.environments', 'components.networks'),
    ('components.acting', 'components.meta_parameters'),
    ('components.objectives', 'components.optimisers'),
    'components.update_rule',
    'components.inner_loop',
    ('components.replay', 'components.monitors'),
    'components.meta_optimisers',
    'agents.processes',
    'agents.agent',
    ('agents.replicas', 'agents.placement'),
    'agents.learner',
    'agents.evaluator',
    'agents.experiments',
    'agents.analysis',
    'tools',
)
PATHS = sorted(path for folder in ('components', 'agents', 'tools') for path in (ROOT / folder).rglob('*.py'))


def name_of(path):
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')


MODULES = {name_of(path): path for path in PATHS}


def imports_of(path):
    """Modules of this project that one imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f'{node.module}.{alias.name}' for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found & MODULES.keys()


def rank(name):
    for index, entry in enumerate(ORDER):
        prefixes = (entry,) if isinstance(entry, str) else entry
        if any(name == prefix or name.startswith(f'{prefix}.') for prefix in prefixes):
            return index
    return None if name in ('components', 'agents') else pytest.fail(f'{name} has no place in the order')


def test_no_module_imports_what_stands_above_it():
    above = {
        name: others
        for name, path in MODULES.items()
        if (others := [other for other in imports_of(path) if (rank(other) or 0) > (rank(name) or 0)])
    }
    assert not above


def test_there_is_no_circle_of_imports():
    graphlib.TopologicalSorter({name: imports_of(path) for name, path in MODULES.items()}).prepare()


def test_a_run_of_catch_imports_no_library_that_it_does_not_use():
    """Each of them would add its seconds to every start."""
    program = (
        'import sys; import tools.run; from agents.experiments import gin_config; '
        "gin_config.load(['gin/catch/meta_discount.gin']); gin_config.build(tools.run.Experiment); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True)
    others = ('rlax', 'distrax', 'tensorflow_probability', 'jumanji', 'gymnax', 'ale_py', 'matplotlib', 'pandas', 'ray')
    assert 'haiku' in done.stdout.split()
    assert not set(others) & set(done.stdout.split())
