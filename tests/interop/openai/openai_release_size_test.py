"""What loading a large released model costs, in fresh processes."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from sparse_interp.interop.openai import openai_release
from sparse_interp.interop.openai.openai_tensors import slots
from sparse_interp.models import GPTConfig

_LOAD = """
import json, pathlib, re, sys, time
import jax
import numpy as np
from sparse_interp.interop.openai import openai_release

def peak():
  # What getrusage gives begins with the peak of the parent.
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(re.search(r'VmHWM:\\s*(\\d+) kB', status)[1])

before = peak()
start = time.perf_counter()
config, params = openai_release.load(sys.argv[1])
jax.block_until_ready(params)
seconds = time.perf_counter() - start
# All weights are looked at, so that they count.
assert all(np.from_dlpack(leaf).sum() != 0 for leaf in jax.tree.leaves(params))
count = sum(leaf.size for leaf in jax.tree.leaves(params))
print(json.dumps([seconds, peak() - before, count]))
"""
_TORCH = """
import json, sys, time
import torch

start = time.perf_counter()
state = torch.load(sys.argv[1] + '/final_model.pt', weights_only=True)
print(json.dumps([time.perf_counter() - start]))
"""


def _save_random(directory, config):
  """A model of random weights; returns the size of its tensors' file."""
  rng = np.random.default_rng(0)
  params = {}
  for slot in slots(config).values():
    branch = params
    for key in slot.path[:-1]:
      branch = branch.setdefault(key, {})
    shape = slot.shape[::-1] if slot.transposed else slot.shape
    branch[slot.path[-1]] = rng.standard_normal(shape, np.float32)
  openai_release.save(directory, config, params)
  return (directory / 'final_model.pt').stat().st_size


def _measure(code, directory):
  command = [sys.executable, '-c', code, str(directory)]
  return json.loads(subprocess.check_output(command, text=True))


@pytest.mark.slow
def test_loading_takes_little_more_memory_than_the_file(tmp_path):
  config = GPTConfig(n_layer=4, d_model=1024, context_length=64)
  size = _save_random(tmp_path, config)
  _, peak, count = _measure(_LOAD, tmp_path)
  assert 4 * count <= size
  # The runtime of jax takes some tens of MB at its first array.
  assert 0.9 * size < peak < 1.2 * size + 60e6


@pytest.mark.slow
def test_the_published_size_loads_as_fast_as_with_torch(tmp_path):
  config = GPTConfig(context_length=1024, sink=True, position='added')
  size = _save_random(tmp_path, config)
  assert size > 1.6e9
  ours, theirs, peaks = [], [], []
  has_torch = 'torch' in sys.modules or _has_torch()
  for _ in range(4):
    seconds, peak, _ = _measure(_LOAD, tmp_path)
    ours.append(seconds)
    peaks.append(peak / size)
    if has_torch:
      theirs += _measure(_TORCH, tmp_path)
  print(f'{size:,} bytes; ours {ours} s, peak {peaks}; torch {theirs} s')
  assert max(peaks) <= 1.2
  if not has_torch:
    pytest.skip('torch is not installed; the memory was within its bound.')
  # The best of each: what else runs on the machine only adds.
  assert min(ours) <= min(theirs)


def _has_torch():
  code = 'import torch'
  return not subprocess.run(
    [sys.executable, '-c', code], check=False, capture_output=True
  ).returncode


def test_replacing_the_file_changes_nothing_that_was_loaded(tmp_path):
  config = GPTConfig(
    vocab_size=19, n_layer=1, d_model=16, d_head=4, n_head=4, context_length=8
  )
  _save_random(tmp_path, config)
  _, params = openai_release.load(tmp_path)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
  kernel = np.array(params['h_0']['attn']['c_attn']['kernel'])
  doubled = jax.jit(
    lambda p: jax.tree.map(lambda x: 2 * x, p), donate_argnums=0
  )
  for _ in range(2):
    _, params = openai_release.load(tmp_path)
    found = doubled(params)['h_0']['attn']['c_attn']['kernel']
    np.testing.assert_array_equal(found, 2 * kernel)
  _, params = openai_release.load(tmp_path)
  openai_release.save(tmp_path, config, jax.tree.map(lambda x: 3 * x, params))
  (tmp_path / 'final_model.pt').unlink()
  same = params['h_0']['attn']['c_attn']['kernel']
  np.testing.assert_array_equal(same, kernel)
  changed = same.at[0, 0].set(5.0)
  assert changed[0, 0] == 5
  np.testing.assert_array_equal(same, kernel)
