"""README and docs/: as short as they shall be, and no link leads nowhere."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')


def links(text: str) -> list[str]:
  """Targets of all links and pictures outside of code that stay in here."""
  text = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
  text = re.sub(r'`[^`\n]*`', '', text)
  found = LINK.findall(text)
  return [link for link in found if not re.match(r'\w+:', link)]


def anchors(text: str) -> set[str]:
  """What the headings of a page are called in links."""
  titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  kept = (re.sub(r'[^\w\- ]', '', title.lower()) for title in titles)
  return {title.replace(' ', '-') for title in kept}


def broken(page: pathlib.Path, root: pathlib.Path) -> list[str]:
  """Links of a page that lead nowhere, or out of the repository."""
  wrong = []
  for link in links(page.read_text()):
    name, _, anchor = link.partition('#')
    target = (page.parent / name).resolve() if name else page
    there = target.exists() and target.is_relative_to(root)
    if not there or (anchor and anchor not in anchors(target.read_text())):
      wrong.append(link)
  return wrong


def test_readme_has_at_most_150_lines():
  assert len((ROOT / 'README.md').read_text().splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
  assert not broken(page, ROOT)


def test_a_link_to_nowhere_is_found(tmp_path):
  page = tmp_path / 'a.md'
  page.write_text(
    '# The one, and only\n[a](#the-one-and-only) ![b](a.md) `[c](d)`\n'
    '[e](no.md) [f](#none) [g](../) [h](https://example.org) [i](a.md#none)'
  )
  assert broken(page, tmp_path) == ['no.md', '#none', '../', 'a.md#none']


def test_readme_leads_to_every_page():
  readme = links((ROOT / 'README.md').read_text())
  for page in PAGES[1:]:
    assert f'docs/{page.name}' in readme, page.name


def test_snippets_are_python():
  for page in PAGES:
    for code in re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL):
      ast.parse(code)


def test_citation_has_the_version_of_the_package():
  citation = (ROOT / 'CITATION.cff').read_text()
  source = (ROOT / 'sparse_interp' / '__init__.py').read_text()
  version = re.search(r"__version__ = '(.*)'", source)[1]
  assert f'\nversion: {version}\n' in citation


def test_what_snippets_import_is_there():
  found = []
  for page in PAGES:
    for block in re.findall(
      r'```python\n(.*?)```', page.read_text(), re.DOTALL
    ):
      nodes = ast.walk(ast.parse(block))
      found += [node for node in nodes if isinstance(node, ast.ImportFrom)]
  assert found
  for node in found:
    exec(compile(ast.Module([node], []), 'docs', 'exec'), {})
