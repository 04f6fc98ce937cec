"""The report in a real browser: drawn, chosen in, and free of errors."""

import json
import re
import subprocess
import urllib.parse

import numpy as np
import pytest

from sparse_interp.files import sealed
from sparse_interp.viewer.artifacts import read_circuit
from sparse_interp.viewer.report import write_report
from tests.viewer.browser import FLAGS, find_chromium
from tests.viewer.fake_workdir import make_workdir

pytestmark = pytest.mark.browser


def _open(page, report, hash_=''):
  page.open(report.as_uri() + hash_)


def _count(page, selector):
  return page.run(f'document.querySelectorAll({json.dumps(selector)}).length')


def _assert_no_problems(page):
  assert page.problems == []
  assert page.run('document.documentElement.dataset.errors') == '0'


@pytest.mark.parametrize(
  'task', ['set_or_string', 'quote_close', 'else_or_elif']
)
def test_drawing_has_every_node_and_edge(page, report, workdir, task):
  circuit = read_circuit(workdir / 'circuits' / task)
  _open(page, report, f'#circuit={task}')
  assert _count(page, '.frame .node') == len(circuit.nodes)
  assert _count(page, '.frame .edge .line') == len(circuit.edges)
  assert page.run("document.querySelector('.circuit-head h3').innerText") == (
    task
  )
  _assert_no_problems(page)


def test_page_loads_itself_and_nothing_else(page, report):
  _open(page, report)
  assert page.requests == [report.as_uri()]


def test_link_to_a_node_shows_its_heat_map(page, report, workdir):
  circuit = read_circuit(workdir / 'circuits' / 'set_or_string')
  row = [circuit.sites[s] for s, _ in circuit.nodes].index('0.mlp.post_act')
  name = f'0.mlp.post_act:{circuit.nodes[row, 1]}'
  _open(page, report, f'#circuit=set_or_string&node={name}')
  pieces = [len(e['pieces']) for e in circuit.document['examples']]
  assert _count(page, '.prompt .token') == sum(pieces)
  assert _count(page, '.prompt .token.last') == len(pieces)
  values = circuit.activations[row]
  assert _count(page, '.prompt .token.positive') == (values > 0).sum()
  assert _count(page, '.prompt .token.negative') == (values < 0).sum()
  where = int(np.abs(values).argmax())
  tip = page.run(
    f"document.querySelectorAll('.prompt .token')[{where}].dataset.tip"
  )
  shown = float(re.search(r'activation ([+−][\d.]+)', tip)[1].replace('−', '-'))
  assert 'in the circuit' in tip
  assert shown == pytest.approx(values[where], rel=1e-2)
  assert page.run("document.querySelector('.node.chosen').dataset.id") == name
  _assert_no_problems(page)


def test_hostile_tokens_are_shown_as_they_are(page, report):
  _open(page, report, '#circuit=set_or_string')
  text = page.run("document.querySelector('.prompt pre').textContent")
  assert '</script><script>document.title="owned"</script>' in text
  assert 'owned' not in page.run('document.title')


def test_lists_of_a_node_are_ranked_by_weight(page, report, workdir):
  circuit = read_circuit(workdir / 'circuits' / 'else_or_elif')
  node = int(np.bincount(circuit.edges[:, 0]).argmax())
  site, channel = circuit.nodes[node]
  name = f'{circuit.sites[site]}:{channel}'
  _open(page, report, f'#circuit=else_or_elif&node={name}')
  texts = page.run(
    "[...document.querySelectorAll('.links li .weight')].map(e => e.innerText)"
  )
  found = [abs(float(text.replace('−', '-'))) for text in texts]
  mine = (circuit.edges == node).any(axis=1)
  want = sorted(np.abs(circuit.weights[mine]), reverse=True)
  np.testing.assert_allclose(found, want, rtol=1e-2)


def test_click_and_keys_choose_nodes_and_change_the_address(page, report):
  _open(page, report, '#circuit=set_or_string')
  first = page.run("document.querySelector('.frame .node').dataset.id")
  page.run(
    "document.querySelector('.frame .node')"
    ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
  )
  page.wait("document.querySelector('.node.chosen')")
  assert f'node={first}' in page.run('location.hash')
  page.run("document.querySelector('.frame .node').focus()")
  page.key('ArrowRight')
  second = page.run('document.activeElement.dataset.id')
  assert second not in (None, first)
  page.key('Enter')
  page.wait(
    "document.querySelector('.node.chosen').dataset.id === "
    + json.dumps(second)
  )
  assert page.run("document.querySelector('.panel h3').innerText") == second
  page.key('Escape')
  page.wait("!document.querySelector('.node.chosen')")
  _assert_no_problems(page)


def test_hover_lights_a_node_its_edges_and_neighbours(page, report, workdir):
  circuit = read_circuit(workdir / 'circuits' / 'set_or_string')
  node = int(circuit.edges[0, 1])
  mine = (circuit.edges == node).any(axis=1)
  _open(page, report, '#circuit=set_or_string')
  page.hover(f'.frame [data-node="{node}"] .dot')
  page.wait("document.querySelector('.circuit.focused')")
  assert _count(page, '.edge.lit') == mine.sum()
  lit = page.run(
    "[...document.querySelectorAll('.node.lit')].map(e => +e.dataset.node)"
  )
  assert set(lit) >= set(circuit.edges[mine].flatten().tolist())
  assert not page.run("document.getElementById('tip').hidden")
  site, channel = circuit.nodes[node]
  assert f'{circuit.sites[site]}:{channel}' in page.run(
    "document.getElementById('tip').textContent"
  )


def test_hidden_light_edges_are_counted(page, report, workdir):
  weights = np.abs(read_circuit(workdir / 'circuits/set_or_string').weights)
  _open(page, report, '#circuit=set_or_string')
  page.run(
    "(() => { const s = document.querySelector('.tools input[type=range]');"
    "s.value = 0.5; s.dispatchEvent(new Event('input')); })()"
  )
  kept = int((weights >= 0.5 * weights.max()).sum())
  assert _count(page, '.frame .edge:not(.hidden) .line') == kept
  assert page.run("document.querySelector('.tools output').innerText") == (
    f'{kept} of {len(weights)} edges'
  )


def test_table_sorts_and_leads_to_a_circuit(page, report):
  _open(page, report)
  order = (
    "[...document.querySelectorAll('tr[data-task]')].map(e => e.dataset.task)"
  )
  page.run(
    "[...document.querySelectorAll('.tasks th button')]"
    ".find(b => b.textContent === 'edges').click()"
  )
  assert page.run(order)[:3] == [
    'quote_close',
    'set_or_string',
    'else_or_elif',
  ]
  page.run("document.querySelector('tr[data-task=else_or_elif]').click()")
  page.wait("location.hash === '#circuit=else_or_elif'")
  page.wait(
    "document.querySelector('.circuit-head h3').innerText === 'else_or_elif'"
  )
  _assert_no_problems(page)


def test_curves_read_out_the_hovered_step(page, report):
  _open(page, report)
  page.hover('#curves .chart')
  page.wait(
    "document.querySelector('#curves .when').textContent.startsWith('step')"
  )
  step = page.run("document.querySelector('#curves .when').textContent")
  assert int(step.removeprefix('step ').replace(',', '')) == pytest.approx(
    1850, abs=250
  )


def test_downloads_hold_the_circuit(page, report, workdir):
  circuit = read_circuit(workdir / 'circuits' / 'set_or_string')
  _open(page, report, '#circuit=set_or_string')
  links = page.run(
    "[...document.querySelectorAll('.downloads a')].map(a => [a.download, "
    'a.getAttribute("href")])'
  )
  files = {
    name: urllib.parse.unquote(url.split(',', 1)[1]) for name, url in links
  }
  document = json.loads(files['set_or_string.json'])
  assert len(document['edges']) == len(circuit.edges)
  assert set(document['edges'][0]) == {'source', 'target', 'weight'}
  assert document['calibration'] == {'scale': 1.31, 'shift': -0.04}
  assert files['set_or_string.svg'].count('class="line"') == len(circuit.edges)


@pytest.mark.parametrize('width', [1400, 800, 420])
def test_page_never_scrolls_sideways(page, report, width):
  page.resize(width, 900)
  _open(page, report, '#circuit=else_or_elif')
  wide = page.run('document.documentElement.scrollWidth')
  page.resize(1400, 900)
  assert wide <= width


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_on_the_strongest_colours_can_be_read(page, report, scheme):
  page.call(
    'Emulation.setEmulatedMedia',
    features=[{'name': 'prefers-color-scheme', 'value': scheme}],
  )
  _open(page, report, '#circuit=set_or_string')
  for name in ('hot-positive', 'hot-negative'):
    ratio = page.run(
      '(() => { const css = getComputedStyle(document.documentElement);'
      "const rgb = n => css.getPropertyValue('--' + n).trim().slice(1)"
      '.match(/../g).map(h => parseInt(h, 16));'
      f"const [ink, paper, hue] = ['ink', 'paper', '{name}'].map(rgb);"
      'const mixed = hue.map((h, i) => 0.7 * h + 0.3 * paper[i]);'
      'const light = c => c.map(v => v / 255).map(v => v <= 0.04045 ? '
      'v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)'
      '.reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);'
      'const [a, b] = [light(ink), light(mixed)].sort((x, y) => y - x);'
      'return (a + 0.05) / (b + 0.05); })()'
    )
    assert ratio >= 4.5


def test_page_without_circuits_says_so(page, tmp_path):
  folder = make_workdir(tmp_path / 'run', circuits={})
  write_report(str(folder), str(tmp_path / 'report.html'))
  _open(page, tmp_path / 'report.html')
  assert 'This workdir holds no circuit' in page.run(
    "document.getElementById('circuit').innerText"
  )
  assert _count(page, 'tr[data-task]') == 3
  _assert_no_problems(page)


def test_page_is_complete_for_a_browser_run_from_the_command_line(
  page, report, tmp_path
):
  del page  # Only for the skip where there is no Chromium.
  dump = subprocess.run(
    [
      find_chromium(),
      *FLAGS,
      f'--user-data-dir={tmp_path}',
      '--virtual-time-budget=2000',
      '--dump-dom',
      report.as_uri() + '#circuit=quote_close',
    ],
    capture_output=True,
    timeout=60,
    check=True,
  ).stdout.decode('utf-8')
  assert 'data-ready="yes"' in dump
  assert 'data-errors="0"' in dump
  assert '<h3>quote_close</h3>' in dump


def test_raw_numbers_and_whose_they_are_stand_in_the_page(page, report):
  _open(page, report, '#circuit=set_or_string')
  row = "document.querySelector('tr[data-task=set_or_string]').innerText"
  for text in ('0.143', '0.581', '×1.31, −0.04'):
    assert text in page.run(row)
  head = page.run("document.querySelector('.circuit-head').innerText")
  for text in ('test_loss at most 0.15', '0.581', '×1.31, −0.04'):
    assert text in head
  prompt = page.run("document.querySelector('.prompt figcaption').innerText")
  assert 'raw 61.2%, full model 98.8%' in prompt
  page.run(
    "document.querySelector('.frame .node')"
    ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
  )
  page.wait("document.querySelector('.heat-key .ramp')")
  key = page.run("document.querySelector('.heat-key').innerText")
  assert 'activation in the circuit, everything else ablated' in key
  _assert_no_problems(page)


def test_page_of_a_run_with_a_target_on_kl_and_a_missed_bound(page, tmp_path):
  folder = make_workdir(tmp_path / 'run', {'quote_close': 5}, steps=3)
  summary = json.loads((folder / 'summary.json').read_text())
  entry = summary['tasks']['quote_close']
  failed = {**entry['circuit'], 'test_kl': 0.031, 'missed': ['test_kl <= 0.02']}
  entry |= {
    'circuit': None,
    'failed_circuit': failed | {'raw_loss': 25.0},
    'reason': 'the circuit found missed test_kl <= 0.02 with 0.031',
  }
  summary |= {'target_loss': 0.02, 'target_on': 'kl'}
  sealed.write_json(folder / 'summary.json', summary)
  write_report(str(folder), str(tmp_path / 'report.html'))
  _open(page, tmp_path / 'report.html')
  row = page.run(
    "document.querySelector('tr[data-task=quote_close]').innerText"
  )
  assert 'bound missed' in row
  assert 'missed test_kl <= 0.02 with 0.031' in row
  assert '0.031' in row.split('with 0.031')[1]  # in the column of KL
  heads = page.run("document.querySelector('.tasks thead').innerText")
  assert 'KL' in heads
  key = page.run("document.getElementById('loss-key').innerText")
  assert 'target 0.02 of the full model' in key
  # The strip is as wide as its losses.
  right = page.run(
    "document.querySelector('tr[data-task=quote_close] .mark.raw').getBBox().x"
  )
  assert right == pytest.approx(144 - 5, abs=1)
  standing = page.run("document.querySelector('.standing').innerText")
  assert standing.startswith('Not counted as a circuit: bound missed')
  assert _count(page, '.frame .node') > 0
  _assert_no_problems(page)
