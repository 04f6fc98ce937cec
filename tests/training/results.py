"""What the tests of training runs compare."""

import numpy as np

from sparse_interp.files import metric_rows
from sparse_interp.sparsity import statistics
from sparse_interp.training import checkpoints, metrics


def rows(workdir):
  """metrics.jsonl without what depends on the machine and the moment."""
  found = metric_rows.read(workdir / 'metrics.jsonl')
  for row in found:
    for field in metrics.TIMING_FIELDS:
      del row[field]
  return found


def assert_same_result(workdir, other):
  ours = statistics.named_tensors(checkpoints.load_params(workdir))
  theirs = statistics.named_tensors(checkpoints.load_params(other))
  assert ours.keys() == theirs.keys()
  for name, tensor in ours.items():
    bits = [np.asarray(t).view(np.uint32) for t in (tensor, theirs[name])]
    np.testing.assert_array_equal(*bits, err_msg=name)
  assert rows(workdir) == rows(other)
