"""What stands in the report, read as text."""

import base64
import html.parser
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from sparse_interp import viewer
from sparse_interp.files import sealed
from sparse_interp.viewer.artifacts import read_circuit
from sparse_interp.viewer.payload import compact, downsample, pack
from sparse_interp.viewer.report import write_report
from tests.viewer.fake_workdir import NASTY, make_workdir, write_circuit


class _Elements(html.parser.HTMLParser):
  """Gathers (tag, attributes) as a browser would see them."""

  def __init__(self, text):
    super().__init__()
    self.found = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))


def _data(path):
  text = path.read_text('utf-8')
  found = re.search(r'<script type="application/json" id="data">(.*?)</s', text)
  return json.loads(found.group(1))


def test_page_refers_to_nothing_outside_itself(report):
  text = report.read_text('utf-8')
  for tag, attributes in _Elements(text).found:
    for name in ('src', 'href', 'srcset', 'action', 'data', 'poster'):
      assert attributes.get(name, '#').startswith('#'), (tag, attributes)
    assert 'style' not in attributes, 'blocked by the policy of the page'
    assert not any(name.startswith('on') for name in attributes)
  assert not re.search(r'@import|url\(', text)
  # The names of the svg and xhtml languages are no addresses to load.
  assert set(re.findall(r'https?://[^"\'\s]*', text)) == {
    'http://www.w3.org/2000/svg'
  }


def test_hostile_text_adds_no_element(report, tmp_path):
  plain = make_workdir(
    tmp_path / 'plain',
    {'set_or_string': 40, 'quote_close': 5, 'else_or_elif': 150},
  )
  write_report(str(plain), str(tmp_path / 'plain.html'))
  tags = [
    [tag for tag, _ in _Elements(path.read_text('utf-8')).found]
    for path in (report, tmp_path / 'plain.html')
  ]
  assert tags[0] == tags[1]


def test_hostile_text_comes_back_unchanged(report):
  pieces = _data(report)['circuits'][0]['record']['examples'][0]['pieces']
  # Half a character cannot be shown, and would end some browsers.
  want = [text.replace('\ud800', '\ufffd') for text in NASTY]
  assert pieces[3 : 3 + len(NASTY)] == want


def test_activations_of_the_page_are_those_of_the_circuit(report, workdir):
  stored = read_circuit(workdir / 'circuits' / 'set_or_string')
  shown = next(
    circuit
    for circuit in _data(report)['circuits']
    if circuit['record']['task'] == 'set_or_string'
  )
  raw = base64.b64decode(shown['activations'])
  values = np.frombuffer(raw, '<i2').reshape(len(shown['ids']), -1)
  values = values * np.array(shown['scale'])[:, None]
  with np.load(workdir / 'circuits/set_or_string/circuit.npz') as arrays:
    want = arrays['activation/0.mlp.post_act'][1, :5, 0]
  node = shown['ids'].index(
    f'0.mlp.post_act:{stored.document["nodes"]["0.mlp.post_act"][0]}'
  )
  start = len(stored.document['examples'][0]['pieces'])
  # Scales are rounded to four digits.
  np.testing.assert_allclose(values[node, start : start + 5], want, atol=2e-3)
  np.testing.assert_array_equal(values == 0, stored.activations == 0)


def test_edges_of_the_page_are_those_of_the_circuit(report, workdir):
  shown = _data(report)['circuits'][0]
  found = {
    (shown['ids'][source], shown['ids'][target]): weight
    for source, target, weight in shown['edges']
  }
  names = [name for name, _ in shown['record']['sites']]
  with np.load(workdir / 'circuits/set_or_string/circuit.npz') as arrays:
    want = {
      (f'{names[a]}:{i}', f'{names[b]}:{j}'): weight
      for a, i, b, j, weight in zip(
        *(
          arrays[f'edges/{name}'].tolist()
          for name in (
            'source_site',
            'source',
            'target_site',
            'target',
            'weight',
          )
        ),
        strict=True,
      )
    }
  assert found.keys() == want.keys()
  for ends, weight in want.items():
    assert found[ends] == pytest.approx(weight, rel=1e-3)


def test_page_of_long_run_stays_small(report):
  assert report.stat().st_size < 700_000
  for chart in _data(report)['curves']:
    for series in chart['series']:
      assert len(series['steps']) == len(series['values']) <= 402


def test_failures_stand_in_the_table_with_their_reasons(report):
  rows = {row['name']: row for row in _data(report)['tasks']}
  assert rows['set_or_string']['status'] == 'circuit found'
  assert rows['bracket_counting']['status'] == 'not learned'
  assert (
    'test loss of the full model 0.413' in (rows['bracket_counting']['reason'])
  )
  assert rows['while_return']['status'] == 'not pruned'
  assert '3072 nodes' in rows['while_return']['reason']
  assert rows['lambda_colon']['status'] == 'not posable'
  assert 'start with the same token' in rows['lambda_colon']['reason']


def test_circuit_above_its_target_is_not_called_found(tmp_path):
  folder = make_workdir(tmp_path / 'run')
  summary = json.loads((folder / 'summary.json').read_text())
  summary['tasks']['set_or_string']['circuit']['test_loss'] = 0.1501
  sealed.write_json(folder / 'summary.json', summary)
  write_report(str(folder), str(tmp_path / 'report.html'))
  row = _data(tmp_path / 'report.html')['tasks'][0]
  assert (row['status'], row['reason']) == (
    'bound missed',
    'test_loss 0.1501, target 0.15',
  )


def test_recorded_formulas_are_the_words_of_the_page(tmp_path):
  folder = make_workdir(tmp_path / 'run')
  summary = json.loads((folder / 'summary.json').read_text())
  summary['formulas']['necessity_loss'] = 'as recorded'
  sealed.write_json(folder / 'summary.json', summary)
  write_report(str(folder), str(tmp_path / 'report.html'))
  method = dict(_data(tmp_path / 'report.html')['method'])
  assert method['necessity loss'] == 'as recorded'
  assert method['ablation'] == (
    "a removed node is held at its mean over the model's text sample (65,536 "
    'tokens)'
  )


def test_workdir_without_circuits_or_metrics_gives_a_page(tmp_path):
  folder = make_workdir(tmp_path / 'run', circuits={})
  (folder / 'metrics.jsonl').unlink()
  write_report(str(folder), str(tmp_path / 'report.html'))
  data = _data(tmp_path / 'report.html')
  assert data['circuits'] == data['curves'] == []


def test_line_cut_short_by_a_kill_is_left_out(tmp_path):
  folder = make_workdir(tmp_path / 'run', circuits={}, steps=3)
  with open(folder / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 4001, "train_lo')
  write_report(str(folder), str(tmp_path / 'report.html'))
  loss = _data(tmp_path / 'report.html')['curves'][0]['series'][0]
  assert loss['steps'] == [1, 2000, 4000]


def _edit_summary(folder):
  path = folder / 'summary.json'
  path.write_text(path.read_text().replace('0.0814', '0.0714'))


def _damage_npz(folder):
  path = folder / 'circuits/set_or_string/circuit.npz'
  path.write_bytes(path.read_bytes()[:3000])


def _flip_a_byte(folder):
  path = folder / 'circuits/set_or_string/circuit.npz'
  data = bytearray(path.read_bytes())
  data[200] ^= 0xFF
  path.write_bytes(bytes(data))


def _drop_array(folder):
  path = folder / 'circuits/set_or_string/circuit.npz'
  with np.load(path) as stored:
    arrays = {n: stored[n] for n in stored.files if n != 'edges/weight'}
  np.savez(path, **arrays)


def _move_node(folder):
  path = folder / 'circuits/set_or_string/circuit.json'
  document = json.loads(path.read_text())
  document['nodes']['0.attn.act_in'][0] += 1
  path.write_text(json.dumps(document))


def _other_schema(folder):
  path = folder / 'circuits/set_or_string/circuit.json'
  path.write_text(path.read_text().replace('_version": 1', '_version": 9'))


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (lambda f: (f / 'summary.json').unlink(), 'must hold summary.json, got'),
    (lambda f: (f / 'summary.json').write_text('{'), 'got what is no JSON'),
    (lambda f: (f / 'summary.json').write_text('[]'), 'got list instead of'),
    (lambda f: (f / 'summary.json').write_text('{"tasks": {}}'), 'got no sha'),
    (_edit_summary, 'got content that does not match its sha256'),
    (
      lambda f: (f / 'metrics.jsonl').write_text('x\n{"step": 1}\n'),
      "got 'x' in line 1",
    ),
    (
      lambda f: (f / 'circuits/set_or_string/circuit.npz').unlink(),
      'circuit.npz must exist',
    ),
    (_damage_npz, 'circuit.npz must be'),
    (_flip_a_byte, 'circuit.npz must be'),
    (_drop_array, 'circuit.npz must match'),
    (_move_node, 'which is no node of the circuit'),
    (_other_schema, 'schema_version must be 1, got 9'),
  ],
)
def test_bad_workdir_is_refused_in_one_line(tmp_path, damage, words):
  folder = make_workdir(tmp_path / 'run', steps=3)
  damage(folder)
  with pytest.raises(ValueError) as caught:
    write_report(str(folder), str(tmp_path / 'report.html'))
  message = str(caught.value)
  assert words in message
  assert '\n' not in message
  assert message.endswith('.')
  assert not (tmp_path / 'report.html').exists()


def test_page_appears_whole_or_not_at_all(workdir, tmp_path, monkeypatch):
  path = tmp_path / 'report.html'
  path.write_text('before')

  def fail(*_):
    raise OSError('no space left')

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='no space left'):
    write_report(str(workdir), str(path))
  assert path.read_text() == 'before'
  assert os.listdir(tmp_path) == ['report.html']


def test_same_artifacts_give_the_same_page(workdir, report, tmp_path):
  moved = tmp_path / 'elsewhere'
  shutil.copytree(workdir, moved)
  write_report(str(moved), str(tmp_path / 'again.html'))
  assert (tmp_path / 'again.html').read_bytes() == report.read_bytes()


def test_half_written_circuit_is_not_one(tmp_path):
  folder = make_workdir(tmp_path / 'run', circuits={}, steps=3)
  write_circuit(folder / 'circuits' / 'while_return', 'while_return', 5)
  (folder / 'circuits/while_return/circuit.json').unlink()
  write_report(str(folder), str(tmp_path / 'report.html'))
  assert _data(tmp_path / 'report.html')['circuits'] == []


def test_compact_keeps_four_digits_and_what_is_no_float():
  value = {
    'a': [1.23456, float('nan'), float('inf')],
    'b': (True, 7, 'x', None),
  }
  assert compact(value) == {'a': [1.235, None, None], 'b': [True, 7, 'x', None]}


def test_downsampling_keeps_ends_and_spikes():
  values = [0.0] * 100_000
  values[54_321] = 9.0
  values[54_400] = -9.0
  steps, kept = downsample(range(100_000), values, points=100)
  assert len(steps) <= 102
  assert steps[0] == 0
  assert steps[-1] == 99_999
  assert dict(zip(steps, kept, strict=True))[54_321] == 9.0
  assert dict(zip(steps, kept, strict=True))[54_400] == -9.0


def test_packing_is_exact_to_half_a_step():
  values = np.random.default_rng(0).normal(0, 1e5, (4, 50)).astype(np.float32)
  values[0] = 0
  values[1, ::2] = 0
  scale, text = pack(values)
  integers = np.frombuffer(base64.b64decode(text), '<i2').reshape(4, 50)
  error = np.abs(integers * scale[:, None] - values)
  assert (error <= 0.5001 * scale[:, None]).all()
  assert (integers[1, ::2] == 0).all()


def test_pages_read_through_files():
  """No format has a second reader here: nothing of this room opens a file."""
  reads = re.compile(
    r'\b(json\.loads?|np\.load|open|read_text|read_bytes|read_json)\('
  )
  for path in sorted(pathlib.Path(viewer.__file__).parent.glob('*.py')):
    assert not reads.search(path.read_text(encoding='utf-8')), path.name
