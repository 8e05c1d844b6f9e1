"""docs/glossary.md: one entry for each term, used elsewhere and defined where it says."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROWS = re.findall(r'^\| \*\*(.+?)\*\* \| (.+?) \| `(.+?)` \|$', (ROOT / 'docs/glossary.md').read_text(), re.MULTILINE)
TERMS = [term for term, _, _ in ROWS]
PAGES = ['README.md', 'docs/architecture.md', 'docs/glossary.md']


def text_of(*folders):
    """Code and gin files below folders."""
    paths = (path for folder in folders for ending in ('py', 'gin') for path in (ROOT / folder).rglob(f'*.{ending}'))
    return '\n'.join(path.read_text() for path in sorted(paths))


CODE = text_of('components', 'agents')
EVERYWHERE = CODE + text_of('tools', 'gin') + (ROOT / 'README.md').read_text()


def test_there_are_about_25_terms_each_defined_once():
    assert 20 <= len(TERMS) == len(set(TERMS)) <= 35


@pytest.mark.parametrize(('term', 'meaning', 'place'), ROWS, ids=TERMS)
def test_a_term_is_used_and_its_place_exists(term, meaning, place):
    assert meaning
    assert (ROOT / place).exists()
    words = r'[\s_-]+'.join(re.split(r'[ -]', term))
    assert re.search(rf'\b{words}', EVERYWHERE, re.IGNORECASE)


@pytest.mark.parametrize('page', PAGES)
def test_a_bold_term_is_an_identifier_or_in_the_glossary(page):
    bold = re.findall(r'\*\*(.+?)\*\*', (ROOT / page).read_text())
    unknown = [term for term in bold if term.lower() not in TERMS and not re.search(rf'\b{re.escape(term)}\b', CODE)]
    assert not unknown


def test_identifiers_in_the_glossary_exist():
    names = re.findall(r'`([A-Z]\w+)`', (ROOT / 'docs/glossary.md').read_text())
    assert names
    assert [name for name in names if not re.search(rf'\bclass {name}\b', CODE)] == []
