"""One made-up workdir, one report of it and one browser for all tests here."""

import pathlib

import pytest

from sparse_interp.viewer.report import write_report
from tests.viewer.browser import Page, find_chromium
from tests.viewer.fake_workdir import make_workdir


@pytest.fixture(scope='session')
def workdir(tmp_path_factory) -> pathlib.Path:
  """Three circuits, the largest of 150 nodes; hostile text everywhere."""
  circuits = {'set_or_string': 40, 'quote_close': 5, 'else_or_elif': 150}
  return make_workdir(
    tmp_path_factory.mktemp('run'), circuits, nasty=True, steps=4000
  )


@pytest.fixture(scope='session')
def report(workdir, tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('page') / 'report.html'
  write_report(str(workdir), str(path))
  return path


@pytest.fixture(scope='session')
def page(tmp_path_factory):
  program = find_chromium()
  if program is None:
    pytest.skip('no Chromium found: the report was not rendered')
  page = Page(program, tmp_path_factory.mktemp('profile'))
  yield page
  page.close()
