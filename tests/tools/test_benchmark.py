"""The command line of the benchmarks, and what they share."""

import subprocess

import pytest

from tools.benchmark import main


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--against', 'no-such-revision'], 'no such revision'),
        (['--only', 'loops', '--gin_file', 'gin/catch/self_tuning.gin'], 'no loop by hand is of that variant'),
        (['--only', 'loops', '--core', '4096'], '--core 4096: this process may use the cores'),
        (['--rounds', '0'], '--rounds must be at least 1, got 0'),
    ],
)
def test_what_cannot_be_measured_is_an_error_in_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith('note:')]
    assert line.startswith('error: ')
    assert message in line


def test_a_revision_is_checked_out_while_it_is_needed(tmp_path, monkeypatch):
    from tools.benchmarks import revisions

    git = ['git', '-C', str(tmp_path), '-c', 'user.name=test', '-c', 'user.email=test@example.com']
    (tmp_path / 'file').write_text('before')
    for command in (['init', '-q'], ['add', 'file'], ['commit', '-qm', 'before']):
        subprocess.run([*git, *command], check=True)
    (tmp_path / 'file').write_text('after')
    monkeypatch.setattr(revisions, 'ROOT', tmp_path)
    with revisions._checked_out('HEAD') as folder:
        assert (folder / 'file').read_text() == 'before'
    assert not folder.exists()
    worktrees = subprocess.run([*git, 'worktree', 'list'], capture_output=True, text=True, check=True).stdout
    assert len(worktrees.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize('option', [['--only', 'split', 'scaling', 'loops'], ['--against', 'HEAD']])
def test_benchmarks_of_a_variant_write_a_row_for_each_comparison(tmp_path, option):
    out = tmp_path / 'table.csv'
    assert main([*option, '--gin_file', 'gin/catch/meta_discount.gin', '--rounds', '2', '--out', str(out)]) == 0
    header, *rows = out.read_text().splitlines()
    assert header.startswith('benchmark,against,unit,project,other,ratio,low,high')
    assert len(rows) == (2 if option[0] == '--against' else 8 + 8 + 4)
