"""Timing of sparse products: nothing is timed that is not right."""

import importlib.util
import json
import pathlib

import pytest

from sparse_interp.ops import row_sparse as ops
from sparse_interp.runs import row_sparse

CONFIG = (
  pathlib.Path(__file__).parents[2] / 'experiments/benchmarks/row_sparse.py'
)


@pytest.fixture
def config():
  spec = importlib.util.spec_from_file_location('benchmark', CONFIG)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.repetitions, config.tokens = 2, 24
  config.shapes, config.densities = ((16, 40),), (1 / 8,)
  config.of_models = (1 / 8,)
  config.model.d_model = config.model.vocab_size = 16
  config.model.n_layer, config.model.context_length = 1, 8
  config.sequences = config.batch_pairs = 2
  config.prompt = 4
  return config


@pytest.mark.slow
def test_all_is_timed_side_by_side_and_agrees(config, tmp_path):
  result = row_sparse.row_sparse(config, tmp_path)
  assert json.loads((tmp_path / 'row_sparse.json').read_text())
  product, model = result['products'][0], result['models'][0]
  assert product['forward'].keys() == {'dense', 'row_sparse', 'feature_major'}
  assert product['forward_and_backward'].keys() == {'dense', 'row_sparse'}
  assert model.keys() == {
    'density',
    'evaluation',
    'pruning_nodes',
    'pruning_edges',
  }
  for measured in (product['forward'], model['evaluation']):
    dense, *others = measured.values()
    assert dense['times_dense'] == 1
    for other in others:
      ratio = dense['median_ms'] / other['median_ms']
      assert other['times_dense'] == pytest.approx(ratio)
      assert other['largest_difference'] <= 1e-5


def test_a_wrong_product_is_not_timed(config, tmp_path, monkeypatch):
  right = ops.row_sparse_matmul
  monkeypatch.setattr(ops, 'row_sparse_matmul', lambda x, w: right(x, w) * 1.01)
  with pytest.raises(ValueError) as error:
    row_sparse.row_sparse(config, tmp_path)
  assert 'row_sparse must agree with dense' in str(error.value)
  assert not any(tmp_path.iterdir())


def test_too_few_repetitions_are_refused(config, tmp_path):
  config.repetitions = 0
  with pytest.raises(ValueError) as error:
    row_sparse.row_sparse(config, tmp_path)
  assert 'repetitions must be at least 1, got 0' in str(error.value)
