"""One set of names, and what 'auto' means on each kind of machine."""

import types

import jax
import pytest

from sparse_interp.ops import machine
from sparse_interp.ops.attention import attention
from sparse_interp.ops.block_sparse import block_sparse_matmul
from sparse_interp.ops.row_sparse import row_sparse
from sparse_interp.ops.topk import topk

NAMES = {'reference', 'cpu', 'gpu', 'tpu', 'gpu_interpreted', 'tpu_interpreted'}


@pytest.fixture
def at_hand(monkeypatch):
  def have(platform, capability=None):
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, 'default_backend', lambda: platform)
    monkeypatch.setattr(jax, 'local_devices', lambda: [device])

  return have


@pytest.mark.parametrize(
  ('device', 'chosen'),
  [
    (('cpu',), 'cpu'),
    (('tpu',), 'tpu'),
    (('gpu', '9.0'), 'gpu'),
    (('gpu', '8.0'), 'reference'),
    (('gpu', 'gfx90a'), 'reference'),
    (('other',), 'reference'),
  ],
)
def test_auto_is_what_this_machine_has(at_hand, device, chosen):
  at_hand(*device)
  assert machine.choose('auto', NAMES) == chosen
  assert machine.choose('auto', ('reference',)) == 'reference'
  assert machine.choose('tpu', NAMES) == 'tpu'


def test_what_an_operation_does_not_have_is_named():
  with pytest.raises(ValueError) as error:
    machine.choose('gpu', ('reference', 'cpu'))
  assert str(error.value) == (
    'implementation must be one of auto, reference, cpu, got '
    "'gpu'; choose e.g. 'auto'."
  )


def test_operations_have_names_of_one_set():
  for module in (attention, block_sparse_matmul, row_sparse, topk):
    assert 'reference' in module.IMPLEMENTATIONS
    assert set(module.IMPLEMENTATIONS) <= NAMES


def test_kernels_of_accelerators_are_told_from_others():
  found = {name for name in NAMES if machine.is_for_accelerators(name)}
  assert found == NAMES - {'reference', 'cpu'}
