"""The tables of the README are those of the committed results."""

import pathlib

from sparse_interp.benchmarks import tables

ROOT = pathlib.Path(__file__).parents[2]


def test_readme_has_the_tables_of_the_committed_results():
  readme = (ROOT / 'README.md').read_text()
  results = ROOT / 'experiments' / 'benchmarks' / 'results'
  assert readme == tables.with_tables(readme, results), (
    'run `python -m sparse_interp.benchmarks.tables`'
  )
