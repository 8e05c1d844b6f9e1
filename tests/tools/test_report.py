"""tools/report.py on run folders that no training has made."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from agents.analysis import comparison_page, run_tables
from tests.helpers import made_up_runs
from tools import report

FIGURES = ['learning_curves', 'final_performance', 'performance_profiles', 'probability_of_improvement',
           'meta_parameters', 'signal_to_noise']  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


def has_plotly():
    try:
        comparison_page.plotly_javascript()
    except comparison_page.PlotlyMissingError:
        return False
    return True


@pytest.fixture(scope='module')
def sweep(tmp_path_factory):
    """Three variants, one of them partial and of one seed."""
    folder = tmp_path_factory.mktemp('sweep')
    made_up_runs.write_run(folder / 'baseline', 0.5, meta=())
    made_up_runs.write_run(folder / 'learned', 0.9, learning_rate=0.01)
    made_up_runs.write_run(folder / 'single', 0.2, seeds=(0,), rows_done=8)
    return folder


@pytest.fixture(scope='module')
def written(sweep, tmp_path_factory):
    """The folder of a report, and its exit status."""
    out = tmp_path_factory.mktemp('out') / 'report'
    return out, report.main([str(sweep), '--out', str(out)])


def test_every_file_is_written(written):
    out, status = written
    tables = [f'{name}.{ending}' for name in ('comparison', 'probability_of_improvement', 'differences')
              for ending in ('md', 'csv', 'tex')]  # fmt: skip
    figures = [f'{name}.{ending}' for name in FIGURES for ending in ('png', 'pdf')]
    pages = ['report.md', 'results.csv', *(['report.html'] if has_plotly() else [])]
    assert sorted(path.name for path in out.iterdir()) == sorted([*tables, *figures, *pages])
    assert status == (0 if has_plotly() else 2)


def test_the_table_tells_how_far_runs_are_and_has_no_interval_for_one_seed(written):
    lines = (written[0] / 'comparison.csv').read_text().splitlines()
    assert lines[0].startswith('variant,seeds,status,env_steps,interquartile_mean,low,high,')
    assert lines[1].startswith('baseline,3,complete,20000,0.6,0.5,0.7,')
    assert lines[3] == 'single,1,"partial, 40%",8000,0.1,,,0.1,0.1,0.1,0.1'
    assert 'No interval for single: fewer than 3 seeds.' in (written[0] / 'report.md').read_text()


def test_a_list_of_results_stands_in_for_the_runs(written, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(comparison_page, 'plotly_javascript', lambda: '')
    assert report.main([str(written[0] / 'results.csv'), '--out', str(tmp_path)]) == 0
    assert 'From a list of results, which has no curves.' in ' '.join(capsys.readouterr().out.split())
    tables = [f'{name}.{ending}' for name in ('comparison', 'probability_of_improvement')
              for ending in ('md', 'csv', 'tex')]  # fmt: skip
    for name in (*tables, 'results.csv'):
        assert (tmp_path / name).read_text() == (written[0] / name).read_text()
    figures = {f'{name}.{ending}' for name in FIGURES[1:4] for ending in ('png', 'pdf')}
    assert {path.name for path in tmp_path.iterdir()} == {*tables, *figures, 'results.csv', 'report.md', 'report.html'}


def test_each_environment_and_measure_of_lists_has_a_report_in_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(comparison_page, 'plotly_javascript', lambda: '')
    header = 'variant,seed,value,measure,environment\n'
    (tmp_path / 'one.csv').write_text(f'{header}a,0,1,return,Catch\na,0,2,regret,Catch\n')
    (tmp_path / 'two.csv').write_text(f'{header}b,0,3,return,Catch\n')
    (tmp_path / 'published.csv').write_text('variant,what,value,source,measure\na,mean,5,Someone,regret\n')
    lists = [tmp_path / 'one.csv', tmp_path / 'two.csv']
    assert report.main([*map(str, lists), '--published', str(tmp_path / 'published.csv')]) == 0
    written = {path.parent.name: path.read_text() for path in tmp_path.glob('report/*/report.md')}
    assert written.keys() == {'return', 'regret'}
    assert '| b | 1 | complete |  | 3 |' in written['return']
    assert 'No published value is of this environment and measure.' in written['return']
    assert 'Dotted: a 5 (mean), published: Someone.' in written['regret']

    (tmp_path / 'folder').mkdir()
    assert 'give lists alone, or folders of runs alone' in refused(capsys, lists[0], tmp_path / 'folder')
    assert '--watch is for runs' in refused(capsys, lists[0], '--watch')
    assert 'one.csv both have a variant a' in refused(capsys, lists[0], lists[0])


def test_the_marked_tables_of_a_page_are_written_again(tmp_path, capsys):
    page, results = tmp_path / 'page.md', tmp_path / 'results.csv'
    page.write_text('<!-- report: results.csv -->\n<!-- end of report -->\n')
    assert 'results.csv' in refused(capsys, '--update', page)
    results.write_text('variant,seed,value,measure,environment\na,0,1,return,Catch\n')
    assert report.main(['--update', str(page)]) == 0
    assert capsys.readouterr().out == f'{page}: written again\n'
    assert '| a | 1 |' in page.read_text()
    assert report.main(['--update', str(page)]) == 0
    assert capsys.readouterr().out == f'{page}: its tables are as its lists say\n'

    before = page.read_text()
    results.write_text('variant,seed,value,measure,environment,how\na,0,1,return,Catch,x\n')
    assert 'results.csv is not a list of results: unknown column how' in refused(capsys, '--update', page)
    assert '--update reads the lists' in refused(capsys, results, '--update', page)
    assert 'give folders of runs' in refused(capsys)
    assert page.read_text() == before
    page.write_text('No table\n')
    assert 'has no table to write' in refused(capsys, '--update', page)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['page.md', 'results.csv']


def test_without_plotly_all_but_the_page_is_written_and_one_line_says_so(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'plotly', None)
    assert report.main([str(sweep), '--out', str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "error: report.html needs plotly: python -m pip install -e '.[report]'\n"
    )  # fmt: skip
    assert (tmp_path / 'comparison.tex').exists()
    assert (tmp_path / 'signal_to_noise.pdf').exists()
    assert not (tmp_path / 'report.html').exists()


def refused(capsys, *arguments):
    """The one line that a command ends in."""
    assert report.main(list(map(str, arguments))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_wrong_folders_are_refused_in_one_line(tmp_path, capsys):
    assert 'no run folder' in refused(capsys, tmp_path)
    assert 'is not a folder' in refused(capsys, tmp_path / 'nowhere')
    made_up_runs.write_config(tmp_path / 'a')
    assert 'nothing to compare' in refused(capsys, tmp_path)
    (tmp_path / 'a/train.csv').write_text('seed,env_steps,episode_return\n0,1,2\n0,1\n')
    assert 'a/train.csv is damaged: line 3' in refused(capsys, tmp_path)
    (tmp_path / 'sweep.json').write_text('[]')
    assert 'sweep.json is not the list' in refused(capsys, tmp_path)
    (tmp_path / 'sweep.json').unlink()
    assert '--last must be' in refused(capsys, tmp_path, '--last', '0')
    assert 'No such file' in refused(capsys, tmp_path, '--published', tmp_path / 'none.csv')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a']


def test_runs_of_different_environments_are_refused_or_apart(tmp_path, capsys, monkeypatch):
    made_up_runs.write_run(tmp_path / 'small', 1.0)
    made_up_runs.write_run(tmp_path / 'wide', 1.0, columns=9)
    line = refused(capsys, tmp_path)
    assert 'Catch(columns=5) (small); Catch(columns=9) (wide)' in line
    monkeypatch.setattr(comparison_page, 'plotly_javascript', lambda: '')
    assert report.main([str(tmp_path), '--by_environment']) == 0
    for name, variant in {'Catch_columns_5': 'small', 'Catch_columns_9': 'wide'}.items():
        assert f'\n{variant},' in (tmp_path / 'report' / name / 'comparison.csv').read_text()


def test_replicas_of_one_run_stand_beside_separate_runs(tmp_path, monkeypatch):
    made_up_runs.write_config(tmp_path / 'grid', num_rows=20)
    replicas = [{'replica/optimiser.learning_rate': rate} for rate in (0.01, 0.1)]
    returns = np.outer([1, 2, 3, 4, 5, 6], np.ones(20))  # Of three seeds of the first replica, then of the second.
    made_up_runs.write_table(
        tmp_path / 'grid', 'train', {'episode_return': returns, 'meta/objective.cost': 0.1 * returns}, replicas=replicas
    )
    made_up_runs.write_run(tmp_path / 'plain', 7.0, rows_done=10)
    monkeypatch.setattr(comparison_page, 'plotly_javascript', lambda: '')
    assert report.main([str(tmp_path)]) == 0
    lines = (tmp_path / 'report/comparison.csv').read_text().splitlines()
    assert lines[1].startswith('grid optimiser.learning_rate=0.01,3,complete,20000,2,')
    assert lines[2].startswith('grid optimiser.learning_rate=0.1,3,complete,20000,5,')
    assert lines[3].startswith('plain,3,"partial, 50%",10000,')
    differences = (tmp_path / 'report/differences.csv').read_text().splitlines()
    assert differences == [
        'variant,optimiser.learning_rate', 'grid optimiser.learning_rate=0.01,0.01',
        'grid optimiser.learning_rate=0.1,0.1', 'plain,0.001',
    ]  # fmt: skip
    page = (tmp_path / 'report/report.html').read_text()
    curves = next(each for each in json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])['figures']
                  if each['name'] == 'meta_parameters')  # fmt: skip
    assert {trace.get('meta') for trace in curves['traces']} == {line.split(',')[0] for line in lines[1:]}


def test_watching_waits_for_rows_and_ends_when_all_runs_are_complete(tmp_path, monkeypatch, capsys):
    (tmp_path / 'sweep.json').write_text('{"runs": [{"name": "one"}, {"name": "two"}]}')
    steps = [
        lambda: made_up_runs.write_config(tmp_path / 'one'),
        lambda: made_up_runs.write_run(tmp_path / 'one', 1.0),
        lambda: made_up_runs.write_run(tmp_path / 'two', 1.0, rows_done=3),
        lambda: made_up_runs.write_run(tmp_path / 'two', 1.0),
    ]
    waits, written = [], []

    def wait(seconds):
        waits.append(seconds)
        steps.pop(0)()

    monkeypatch.setattr(report.comparison_report.Report, 'write', lambda self: written.append(self.about()))
    monkeypatch.setattr(report.time, 'sleep', wait)
    assert report.main([str(tmp_path), '--watch', '5']) == 0
    assert waits == [5] * 4
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith('waiting')] == [
        f'waiting: {tmp_path} has no run folder (config.gin and train.csv): give the --workdir of a run or of a sweep, '
        'or a folder that holds such folders',
        'waiting: nothing to compare: no run has a number in episode_return of train.csv yet',
    ]
    assert ['Not started yet: two.' in about for about in written] == [True, False, False]
    assert ['1 of 2 variants are partial' in about for about in written] == [False, True, False]


def test_watching_ends_where_what_is_left_has_failed_for_good(tmp_path, monkeypatch, capsys):
    (tmp_path / 'sweep.json').write_text('{"runs": [{"name": "half"}, {"name": "wrong"}, {"name": "late"}]}')
    (tmp_path / 'logs').mkdir()
    fail = {name: (tmp_path / run_tables.FAILED.format(name=name)).write_text for name in ('half', 'wrong', 'late')}
    made_up_runs.write_run(tmp_path / 'half', 1.0, rows_done=5)
    fail['wrong']('exit status 2: error: a mistake\n')
    steps = [lambda: fail['half']('ended by SIGKILL\n'), lambda: made_up_runs.write_run(tmp_path / 'late', 1.0)]
    written = []
    monkeypatch.setattr(report.comparison_report.Report, 'write', lambda self: written.append(self.about()))
    monkeypatch.setattr(report.time, 'sleep', lambda _: steps.pop(0)())
    assert report.main([str(tmp_path), '--watch']) == 0
    assert not steps
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f'results are in {tmp_path / "report"}; 1 variants are partial',
        'failed: half: ended by SIGKILL',
        'failed: wrong: exit status 2: error: a mistake',
    ]
    assert 'Failed: half (ended by SIGKILL), wrong (exit status 2: error: a mistake).' in written[-1]

    fail['late']('ended by SIGKILL\n')  # Before it was completed by hand.
    assert report.main([str(tmp_path)]) == 0
    assert 'failed: late' not in capsys.readouterr().out
    for name in ('half', 'late'):
        shutil.rmtree(tmp_path / name)
    assert 'no run folder' in refused(capsys, tmp_path, '--watch')


def test_ctrl_c_ends_watching(tmp_path):
    made_up_runs.write_run(tmp_path / 'run', 1.0, rows_done=3)
    root = made_up_runs.ROOT
    process = subprocess.Popen(
        [sys.executable, str(root / 'tools/report.py'), str(tmp_path), '--watch', '600'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'PYTHONPATH': str(root)},
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # Which a shell may have it ignore.
    )  # fmt: skip
    assert any(line.startswith('results are in') for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, '')


CHECK = """<script>
setTimeout(() => {
  const shown = () => [...document.querySelectorAll('.plot')].filter(plot => plot.querySelector('.main-svg')).length;
  const count = () => data.figures.reduce((sum, figure) => sum + document.getElementById(figure.name).data
    .filter(trace => trace.meta === 'learned' && trace.visible === false).length, 0);
  const found = {figures: shown(), paper: getComputedStyle(document.body).backgroundColor, hidden: [count()]};
  document.getElementById('theme').click();
  found.dark = getComputedStyle(document.body).backgroundColor;
  found.font = document.getElementById('learning_curves').layout.font.color;
  const button = document.querySelector('[data-variant="learned"]');
  button.click(); found.hidden.push(count());
  button.click(); found.hidden.push(count());
  found.problems = problems;
  const result = document.createElement('pre');
  result.id = 'found';
  result.textContent = JSON.stringify(found);
  document.body.append(result);
}, 3000);
</script></body>"""
LISTEN = """<head><script>const problems = [];
window.onerror = message => problems.push(String(message));
for (const kind of ['error', 'warn']) console[kind] = (...words) => problems.push(words.join(' '));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason='no chromium to open the page with')
@pytest.mark.skipif(not has_plotly(), reason="plotly is not installed: pip install -e '.[report]'")
def test_the_page_works_in_a_browser(written, tmp_path):
    text = (written[0] / 'report.html').read_text()
    page = tmp_path / 'page.html'
    page.write_text(LISTEN.join(text.split('<head>', 1)).replace('</body>\n</html>', f'{CHECK}\n</html>'))
    command = [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path / "profile"}',
               '--virtual-time-budget=20000', '--dump-dom', page.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout)
    assert match, done.stderr[-2000:]
    found = json.loads(match[1].replace('&gt;', '>').replace('&lt;', '<').replace('&amp;', '&'))
    assert found['problems'] == []
    assert found['figures'] == len(FIGURES)
    assert found['paper'] == 'rgb(255, 255, 255)'
    assert np.mean([int(x) for x in re.findall(r'\d+', found['dark'])]) < 60
    assert found['font'] == '#e6e9ee'
    assert found['hidden'][0] == found['hidden'][2] == 0 < found['hidden'][1]
