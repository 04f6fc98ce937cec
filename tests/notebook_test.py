"""The notebook runs from top to bottom, and shows what it promises."""

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
  monkeypatch.delenv('XLA_FLAGS')
  # The kernel of a checkout that is not installed must find the package too.
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  notebook = nbformat.read(ROOT / 'notebooks/quickstart.ipynb', as_version=4)
  nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name='python3',
    resources={'metadata': {'path': str(tmp_path)}},
  ).execute()

  outputs = [out for cell in notebook.cells for out in cell.get('outputs', ())]
  printed = ''.join(out.get('text', '') for out in outputs)
  assert 'without it' in printed
  assert 'single_double_quote' in printed
  pages = [
    out['data']['text/html']
    for out in outputs
    if 'text/html' in out.get('data', {})
  ]
  assert len(pages) == 1
  assert '&lt;svg' in pages[0]
  assert (workdir / 'summary.json').is_file()


def test_notebook_holds_no_outputs():
  notebook = nbformat.read(ROOT / 'notebooks/quickstart.ipynb', as_version=4)
  assert not any(cell.get('outputs') for cell in notebook.cells)
