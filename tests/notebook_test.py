"""The notebook runs from top to bottom, and shows what it promises."""

import json
import os
import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_quickstart_notebook_shows_table_and_report(tmp_path, monkeypatch):
  workdir = tmp_path / 'quickstart'
  monkeypatch.setenv('SPARSE_INTERP_SETTING', 'tiny')
  monkeypatch.setenv('SPARSE_INTERP_WORKDIR', str(workdir))
  # One device, as a reader of the notebook has.
  flags = os.environ['XLA_FLAGS'].replace('count=8', 'count=1')
  monkeypatch.setenv('XLA_FLAGS', flags)
  # The kernel of a checkout that is not installed must find the package too.
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  notebook = nbformat.read(ROOT / 'notebooks/quickstart.ipynb', as_version=4)
  nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  ).execute()

  code = [cell for cell in notebook.cells if cell['cell_type'] == 'code']
  table, page = (cell['outputs'] for cell in code[-2:])
  printed = table[0]['text']
  tasks = json.loads((workdir / 'summary.json').read_text())['tasks']
  assert tasks
  assert all(name in printed for name in tasks)
  assert 'geometric mean of their edges' in printed
  assert '&lt;svg' in page[0]['data']['text/html']


def test_notebook_holds_no_outputs():
  notebook = nbformat.read(ROOT / 'notebooks/quickstart.ipynb', as_version=4)
  assert not any(cell.get('outputs') for cell in notebook.cells)
