"""The site's pages and notebooks; launch/docs.sh builds it with warnings as errors."""

import re

import matplotlib
import pytest
from helpers.commands import ROOT

DOCS = ROOT / 'docs'
NOTEBOOKS = sorted((DOCS / 'notebooks').glob('*.md'))


def test_every_page_is_in_the_table_of_contents():
    index, titled = (DOCS / 'index.md').read_text(), re.compile('^(# |```{include})', re.M)
    listed = '\n'.join(re.findall('```{toctree}\n(.*?)```', index, re.DOTALL)).split()
    pages = [path.relative_to(DOCS).with_suffix('') for path in DOCS.rglob('*.md')]
    pages = [page for page in pages if page.parts[0] not in ('_build', 'index')]
    lost = [
        page.as_posix()
        for page in pages
        if not any(page.match(name) for name in filter(None, listed))
    ]
    assert lost == []
    untitled = [page for page in pages if not titled.search((DOCS / f'{page}.md').read_text())]
    assert untitled == []  # It would have no link.


def test_the_api_page_has_every_public_name():
    import vaebm_jax

    page = (DOCS / 'api.md').read_text()
    named = re.findall('^\\.\\. auto(?:function|class|exception):: (.*)$', page, re.MULTILINE)
    assert sorted(named) == sorted(vaebm_jax.__all__)


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch):
    """Its own assertions hold."""
    matplotlib.use('agg')
    cells = re.findall('^```{code-cell} ipython3\n(.*?)^```$', path.read_text(), re.M | re.DOTALL)
    assert len(cells) >= 4
    exec(compile('\n'.join(cells), str(path), 'exec'), {'__name__': path.stem})
