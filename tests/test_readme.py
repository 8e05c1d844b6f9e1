"""The README's worked examples, as they stand there."""

import csv
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def code_blocks():
    """Blocks whose first line names a file, by that name."""
    blocks = re.findall(r'```(?:gin|python)\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
    return {re.match(r'# ([\w.]+)', block)[1]: block for block in blocks}


@pytest.mark.parametrize(
    ('file', 'path'), [('cartpole.gin', 'optimiser.learning_rate'), ('mixture.gin', 'objective.returns.weight')]
)
def test_worked_examples_run_and_learn_their_meta_parameter(tmp_path, file, path):
    for name, text in code_blocks().items():
        (tmp_path / name).write_text(text)
    bindings = [
        'NUM_ENVS = 4',
        'TOTAL_ENV_STEPS = 800',
        'LOG_EVERY = 400',
        'EVALUATE_EVERY = 0',
        'CHECKPOINT_EVERY = 0',
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/run.py'), '--gin_file', file, '--workdir', 'run']
        + [part for binding in bindings for part in ('--gin_bindings', binding)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / 'run' / 'train.csv').open() as rows:
        first, second = (row[f'meta/{path}'] for row in csv.DictReader(rows))
    assert first != second


def test_every_variant_is_in_the_table():
    text = (ROOT / 'README.md').read_text()
    for file in ROOT.glob('gin/*/*.gin'):
        if file.parent.name != 'base':
            assert f'`gin/{file.parent.name}/{file.name}`' in text
