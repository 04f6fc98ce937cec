"""The tables of docs/kernels.md are those of the committed results."""

import pathlib

from sparse_interp.benchmarks import tables

ROOT = pathlib.Path(__file__).parents[2]


def test_page_has_the_tables_of_the_committed_results():
  page = (ROOT / 'docs' / 'kernels.md').read_text()
  results = ROOT / 'experiments' / 'benchmarks' / 'results'
  assert page == tables.with_tables(page, results), (
    'run `python -m sparse_interp.benchmarks.tables`'
  )
