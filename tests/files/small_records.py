"""Records made by hand, whose every number can be told."""

import numpy as np

from sparse_interp.files.record_files import Records


def make_records():
  """Two units, of which the second is dead; made by hand."""
  return Records(
    units=('0.mlp.post_act:5', 'final_resid:0'),
    model={'vocab_size': 9, 'd_model': 4},
    model_hash='0123456789abcdef',
    text_hash='ab' * 32,
    tokenizer_hash='cd' * 32,
    seed=0,
    top=1,
    quantiles=2,
    per_quantile=1,
    random=1,
    length=2,
    windows=3,
    window_length=4,
    pieces={1: 'a', 2: '\n', 8: 'ü'},
    formula={'mean': 'over all'},
    versions={'code': '0'},
    mean=np.array([0.25, 0.0]),
    active=np.array([0.5, 0.0]),
    lowest=np.array([-1, 0], np.float32),
    highest=np.array([2, 0], np.float32),
    edges=np.array([[-1, 0.5, 2], [0, 0, 0]], np.float32),
    unit=np.array([0, 0, 0, 0, 1], np.int32),
    kind=np.array([0, 1, 1, 2, 2], np.int32),
    quantile=np.array([-1, 0, 1, -1, -1], np.int32),
    window=np.array([2, 0, 2, 1, 1], np.int32),
    start=np.array([0, 1, 2, 0, 0], np.int32),
    position=np.array([1, 0, 1, 1, 1], np.int32),
    tokens=np.array([[1, 2], [2, 8], [1, 1], [2, 2], [8, 8]], np.int32),
    values=np.array([[0, 2], [-1, 0], [0, 1], [0, 0], [0, 0]], np.float32),
  )
