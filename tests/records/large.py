"""1000 units on a million tokens, with a model of the quickstart's size.

    python -m tests.records.large directory

writes the records and one line of JSON: seconds, those of all processors, most
memory, how busy the machine was, and a hash of the files, to be compared.
"""

import hashlib
import json
import os
import pathlib
import re
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pretrain import laptop
from sparse_interp.files import record_files
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import node_sites
from sparse_interp.records.recording import record

UNITS, TOKENS = 1000, 1_000_000


def make_model():
  """Random weights, of the quickstart's sizes and density; random tokens."""
  fields = laptop.get_config()
  shape = {**fields.model, 'bigram_table': False}
  config = GPTConfig(
    **shape,
    vocab_size=fields.data.vocab_size,
    context_length=fields.data.length,
  )
  tokens = jnp.zeros((1, 8), int)
  shapes = jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)
  rng = np.random.default_rng(0)

  def draw(leaf):
    weights = rng.standard_normal(leaf.shape, np.float32)
    if len(leaf.shape) < 2:
      return jnp.asarray(weights)
    kept = int(fields.sparsity.density * weights.size)
    limit = np.partition(np.abs(weights).ravel(), -kept)[-kept]
    return jnp.asarray(np.where(np.abs(weights) >= limit, weights, 0))

  windows = -(-TOKENS // fields.data.length)
  return types.SimpleNamespace(
    config=config,
    params=jax.tree.map(draw, shapes['params']),
    tokenizer=None,
    windows=rng.integers(0, config.vocab_size, (windows, fields.data.length)),
  )


def most_memory() -> int:
  """Bytes that this process has held at once."""
  # What getrusage gives begins with the peak of the parent.
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(re.search(r'VmHWM:\s*(\d+) kB', status)[1])


def main(directory):
  model = make_model()
  every = [
    f'{site}:{channel}'
    for site, width in node_sites(model.config).items()
    for channel in range(width)
  ]
  units = [every[i] for i in np.linspace(0, len(every) - 1, UNITS).astype(int)]
  start, used = time.perf_counter(), time.process_time()
  records = record(model, units)
  record_files.write(records, directory)
  seconds = time.perf_counter() - start
  used = time.process_time() - used
  digest = hashlib.sha256()
  for path in sorted(pathlib.Path(directory).iterdir()):
    digest.update(path.read_bytes())
  found = {
    'units': len(records.units),
    'tokens': records.tokens_seen,
    'excerpts': len(records.unit),
    'seconds': round(seconds, 1),
    'processor_seconds': round(used, 1),
    'load': round(os.getloadavg()[0], 1),
    'gigabytes': most_memory() * 1e-9,
    'sha256': digest.hexdigest(),
  }
  print(json.dumps(found))


if __name__ == '__main__':
  main(sys.argv[1])
