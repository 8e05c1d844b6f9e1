"""Names of columns, as docs/metrics.md explains them."""

import pathlib
import re

PAGE = pathlib.Path(__file__).resolve().parents[2] / 'docs/metrics.md'


def patterns():
    """A regular expression for each column of the page, by its name there."""
    cells = re.findall(r'^\| (`.+?`) \| .+ \|$', PAGE.read_text(), re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r'`(.+?)`', cell)]
    return {name: re.compile(re.sub(r'<\w+>', '.+', re.sub(r'([.+*])', r'\\\1', name))) for name in names}


def undocumented(columns):
    """Those of these columns that the page does not explain."""
    known = patterns().values()
    return [column for column in columns if not any(pattern.fullmatch(column) for pattern in known)]
