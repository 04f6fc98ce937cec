"""The timing of block-sparse products at a size that takes no time."""

import json

import jax.numpy as jnp
import pytest

from experiments.benchmarks import block_sparse as experiment
from sparse_interp.ops import block_sparse_matmul
from sparse_interp.runs import block_sparse_time


@pytest.fixture
def config():
  config = experiment.get_config()
  config.tokens, config.inputs, config.outputs = 8, 40, 48
  config.block, config.densities, config.repetitions = 16, (1 / 4,), 2
  return config


def test_every_way_is_timed_and_compared(config, tmp_path):
  result = block_sparse_time.block_sparse_time(config, str(tmp_path))
  row = result['densities']['0.25']
  assert list(row) == ['dense', 'looped', 'batched']
  assert row['dense']['times_dense'] == 1
  assert all(way['median_ms'] > 0 for way in row.values())
  written = json.loads((tmp_path / 'block_sparse_time.json').read_text())
  assert written['densities'] == result['densities']


def test_a_wrong_product_is_not_timed(config, tmp_path, monkeypatch):
  right = block_sparse_matmul.xla.product_batched
  monkeypatch.setattr(
    block_sparse_matmul.xla,
    'product_batched',
    lambda *args: right(*args) + jnp.float32(0.1),
  )
  with pytest.raises(ValueError, match='batched must agree'):
    block_sparse_time.block_sparse_time(config, str(tmp_path))
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('field', 'value'), [('repetitions', 0), ('dtype', 'int8')]
)
def test_a_wrong_field_is_named(config, tmp_path, field, value):
  config[field] = value
  with pytest.raises(ValueError, match=field):
    block_sparse_time.block_sparse_time(config, str(tmp_path))
