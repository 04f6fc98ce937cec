"""How far a model is from what was recorded of it elsewhere."""

import os
from typing import Any

import jax
import numpy as np

from sparse_interp.files import npz
from sparse_interp.models import GPT, GPTConfig

_PREFIX = 'act__'
_AGAIN = 'record it again from the model in the source'


def measure(
  config: GPTConfig,
  params: dict,
  path: str | os.PathLike,
  tolerance: float,
) -> dict[str, Any]:
  """Runs a model on recorded tokens and compares with what was recorded.

  Args:
    config: the model.
    params: its parameters.
    path: npz with `tokens`, `logits` and any number of `act__<site>`, dots
      written as two underscores.
    tolerance: largest difference of logits that counts as equal.

  Returns:
    Largest absolute differences: `logits`, `activations` (None where there are
    none) and the site of the latter, and the number of tokens.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no such file, has other shapes, or logits differ more.
  """
  recorded = _read(path)
  tokens, logits = recorded['tokens'], recorded['logits']
  if tokens.ndim != 2 or tokens.dtype.kind not in 'iu' or not tokens.size:
    raise _wrong(path, 'hold tokens as a matrix of whole numbers')
  if tokens.min() < 0 or tokens.max() >= config.vocab_size:
    raise _wrong(path, f'hold tokens below {config.vocab_size}')
  run = jax.jit(GPT(config).apply)
  with jax.default_matmul_precision('highest'):
    found, seen = run({'params': params}, tokens.astype(np.int32))
  sites = {
    name.removeprefix(_PREFIX).replace('__', '.'): recorded[name]
    for name in recorded
    if name.startswith(_PREFIX)
  }
  differences = {'logits': _difference(path, 'logits', found, logits)}
  for site, values in sites.items():
    if site not in seen:
      raise _wrong(path, f'name sites of the model, not {site[:40]!r}')
    differences[site] = _difference(path, site, seen[site], values)
  apart = differences.pop('logits')
  if not apart <= tolerance:
    raise ValueError(
      f'reference must be met within tolerance {tolerance:g}, got logits that '
      f'differ by up to {apart:.3g}; give the reference of this model, or '
      'raise --config.tolerance.'
    )
  worst = max(differences, key=lambda at: differences[at], default=None)
  return {
    'logits': apart,
    'activations': None if worst is None else differences[worst],
    'activations_at': worst,
    'sites': len(differences),
    'tokens': int(tokens.size),
  }


def _read(path):
  with npz.opened(path, _AGAIN) as archive:
    recorded = {
      name: archive.read(name)
      for name in archive.headers
      if name in ('tokens', 'logits') or name.startswith(_PREFIX)
    }
  for name in ('tokens', 'logits'):
    if name not in recorded:
      raise _wrong(path, f'hold an array {name}')
  return recorded


def _difference(path, name, found, recorded):
  found = np.asarray(found, np.float32)
  if recorded.dtype.kind != 'f' or recorded.shape != found.shape:
    raise _wrong(path, f'hold {name} as floats of shape {found.shape}')
  return float(np.max(np.abs(found - recorded.astype(np.float32)), initial=0))


def _wrong(path, constraint):
  return ValueError(f'reference {os.fspath(path)} must {constraint}; {_AGAIN}.')
