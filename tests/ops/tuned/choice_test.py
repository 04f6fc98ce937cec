"""On a GPU 'auto' takes only what was measured to be faster."""

import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops.block_sparse import block_sparse_matmul
from sparse_interp.ops.row_sparse import row_sparse, row_sparse_gpu
from sparse_interp.ops.topk import topk, topk_gpu, topk_kernels
from sparse_interp.ops.tuned import choice

SHIPPED = sorted(pathlib.Path(choice.__file__).parent.glob('*.json'))


@pytest.fixture
def card(monkeypatch):
  """Makes a Hopper GPU of a kind of which certain cases are known."""

  def have(kind, cases=None):
    device = types.SimpleNamespace(
      compute_capability='9.0', device_kind=kind, core_count=132
    )
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])
    if cases is not None:
      known = {choice.card(): cases}
      monkeypatch.setattr(choice, 'measured', lambda name: known.get(name, []))

  return have


def case(operation, size, **milliseconds):
  return {'operation': operation, 'size': size, 'milliseconds': milliseconds}


ROWS = {
  'dtype': 'float32',
  'tokens': 64,
  'inputs': 64,
  'outputs': 64,
  'density': 0.1,
}


def calls(monkeypatch, module, name, result):
  """Notes what a kernel is called with, in the place of calling it."""
  noted = []

  def call(*arguments, **named):
    noted.append((*arguments, *named.values()))
    return result(*arguments)

  monkeypatch.setattr(module, name, call)
  return noted


def test_winner_is_ahead_of_all_that_is_plain():
  assert choice.winner({'plain': 2.0, 'a': 1.5, 'b': 1.0}) == 'b'
  assert choice.winner({'plain': 2.0, 'plain_top_k': 0.9, 'b': 1.0}) is None
  assert choice.winner({'plain': 1.0, 'b': 0.99}) is None
  assert choice.winner({'plain': 1.0}) is None
  assert choice.winner({'b': 1.0}) is None


def test_only_what_is_near_is_known(card):
  card('Some GPU', [case('x', {'n': 100, 'kind': 'a'}, plain=2.0, fast=1.0)])
  assert choice.card() == 'some_gpu'
  assert choice.best('x', n=100, kind='a') == 'fast'
  assert choice.best('x', n=200, kind='a') == 'fast'
  assert choice.best('x', n=201, kind='a') is None
  assert choice.best('x', n=49, kind='a') is None
  assert choice.best('x', n=100, kind='b') is None
  assert choice.best('x', n=100) is None
  assert choice.best('y', n=100, kind='a') is None


def test_the_nearest_decides(card):
  card(
    'Some GPU',
    [
      case('x', {'n': 100}, plain=2.0, fast=1.0),
      case('x', {'n': 200}, plain=1.0, fast=2.0),
    ],
  )
  assert choice.best('x', n=120) == 'fast'
  assert choice.best('x', n=180) is None


def test_a_card_borrows_only_what_is_far_ahead(card, monkeypatch):
  card('NVIDIA H100 80GB HBM3')
  known = {
    'nvidia_h200': [
      case('far', {'n': 1}, plain=2.0, fast=0.9),
      case('close', {'n': 1}, plain=2.0, fast=1.5),
    ]
  }
  monkeypatch.setattr(choice, 'measured', lambda name: known.get(name, []))
  assert choice.best('far', n=1) == 'fast'
  assert choice.best('close', n=1) is None


def test_a_card_that_is_not_known_has_plain_jax_alone(card, monkeypatch):
  card('A GPU that nobody measured')
  noted = [
    calls(monkeypatch, module, name, lambda *_: pytest.fail('a kernel'))
    for module, name in (
      (row_sparse_gpu, 'product'),
      (topk_gpu, 'abs_topk_rows'),
      (topk_gpu, 'count_at_least'),
    )
  ]
  w = row_sparse.from_dense(np.eye(64, dtype=np.float32))
  assert w.layout.by_output.strips is not None
  x = jnp.ones((64, 64))
  np.testing.assert_array_equal(row_sparse.row_sparse_matmul(x, w), x)
  by_input = row_sparse._kernel_of('auto', w.value, w.layout.by_input, x, False)
  assert by_input[0] == 'reference'
  plain = calls(monkeypatch, topk, '_keep', lambda x, *_: x > 0)
  topk.abs_topk(x, 3)
  topk.keep_mask(jnp.ones((300, 300)), 7)
  assert [arguments[-1] for arguments in plain] == ['reference', 'reference']
  for size in (64, 128):
    chosen = block_sparse_matmul.choose_for_blocks('auto', size, jnp.bfloat16)
    assert chosen == 'reference'
  assert not any(noted)


def test_a_card_that_is_known_takes_the_fastest_variant(card, monkeypatch):
  card(
    'Some GPU',
    [
      case('row_sparse', ROWS, plain=2.0, warps8=1.0, warps16=1.2),
      case(
        'abs_topk',
        {'dtype': 'float32', 'rows': 64, 'width': 64},
        plain=2.0,
        warps12=1.0,
      ),
      case('projection', {'size': 90_000}, plain=2.0, passes_of_4_bits=1.0),
      case(
        'block_sparse', {'block': 64, 'dtype': 'bfloat16'}, plain=2.0, p=1.0
      ),
    ],
  )
  rows = calls(
    monkeypatch,
    row_sparse_gpu,
    'product',
    lambda value, strips, rows, x, *_: jnp.zeros((len(x), rows)),
  )
  w = row_sparse.from_dense(
    (np.random.default_rng(0).random((64, 64)) < 0.1).astype(np.float32)
  )
  row_sparse.row_sparse_matmul(jnp.ones((64, 64)), w)
  assert rows[0][-2:] == (False, 'warps8')
  top = calls(monkeypatch, topk_gpu, 'abs_topk_rows', lambda x, *_: x)
  for dtype in (jnp.float32, jnp.bfloat16):
    topk.abs_topk(jnp.ones((64, 64), dtype), 3)
  assert [arguments[-1] for arguments in top] == ['warps12', 'warps12']
  masks = calls(monkeypatch, topk_kernels, 'keep_mask', lambda x, *_: x > 0)
  topk.keep_mask(jnp.ones((300, 300)), 7)
  assert masks[0][2:] == ('gpu', 'passes_of_4_bits')
  chosen = block_sparse_matmul.choose_for_blocks('auto', 64, jnp.bfloat16)
  assert chosen == 'gpu'


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_what_ships_names_its_card_and_variants_that_there_are(path):
  found = json.loads(path.read_text())
  assert found['card'] == path.stem
  assert {'device', 'date', 'versions'} <= set(found['about'])
  variants = {
    'row_sparse': set(row_sparse_gpu.VARIANTS),
    'abs_topk': set(topk_gpu.ROW_VARIANTS),
    'projection': set(topk_kernels.PROJECTIONS),
    'block_sparse': {'pipelined'},
  }
  for case in found['cases']:
    ours = {n for n in case['milliseconds'] if not n.startswith(choice.PLAIN)}
    assert ours <= variants[case['operation']]
    assert 'plain' in case['milliseconds']


def test_what_each_card_is_known_to_win_with(card):
  rows = {'rows': 8192, 'width': 1024, 'dtype': 'float32'}
  block = {'dtype': 'bfloat16', 'block': 128}
  card('NVIDIA H200')
  assert choice.best('abs_topk', **rows) == 'block'
  assert choice.best('projection', size=1_000_000) is None
  card('NVIDIA H100 80GB HBM3')
  assert choice.best('abs_topk', **rows) == 'warps4'
  assert choice.best('projection', size=1_000_000) is None
  assert choice.best('projection', size=10_000_000) == 'loop_of_3_bits'
  for kind in ('NVIDIA H200', 'NVIDIA H100 80GB HBM3'):
    card(kind)
    assert choice.best('block_sparse', **block) == 'pipelined'
    assert choice.best('block_sparse', dtype='bfloat16', block=64) is None
