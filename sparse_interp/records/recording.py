"""Records of a model: what its units do on a text.

One pass over the text where the memory allows it, since nothing but counts and
the few best places is kept of what goes by; else as few as it allows, each for
a part of the units. What is chosen follows from the activations and the seed:
not from batches, passes, or what other units are asked for.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from sparse_interp.files import versions
from sparse_interp.files.record_files import Records
from sparse_interp.models import GPT, GPTConfig, frozen, sites
from sparse_interp.models.params_hash import hash_params
from sparse_interp.records import excerpts, lots, unit_names
from sparse_interp.records.running import Chunk, Running, Sizes

# Tokens whose activations are held at once, for all units of a pass: sums are
# over chunks of so many, and so the same for every batch size.
_CHUNK = 2**16
# Of one call of the model: bytes of its activations, roughly, and tokens.
_CALL_BYTES, _CALL_TOKENS = 2**28, 2**12
# Numbers of tokens are counted in 32 bits.
_MOST_TOKENS = 2**32 - 1

FORMULA = {
  'values': 'activations after AbsTopK, on whole windows; what it leaves out '
  'is zero',
  'mean': 'over all tokens, zeros included',
  'active': 'share of tokens on which the activation is not zero',
  'highest': 'of all activations, zeros included; lowest likewise',
  'edges': 'of the nonzero activations: the lowest, for j from 1 to quantiles '
  '- 1 the one of rank floor(j n / quantiles) rounded down to 16 bits, the '
  'highest',
  'top': 'the highest nonzero activations, one a window; of equal ones the '
  'first',
  'quantile': 'nonzero activations from edge j up to edge j + 1, at random '
  'among a random sample, one a window',
  'random': 'any tokens, at random, one a window',
}


@runtime_checkable
class Recorded(Protocol):
  """What is asked of a model here.

  Attributes:
    config: GPTConfig.
    params: parameter tree.
    tokenizer: with `hash` and `pieces`, or None.
    windows: tokens (windows, time) of its training text, or None.
  """

  config: Any
  params: Any
  tokenizer: Any
  windows: Any


def record(
  model: Recorded,
  units: Sequence[str],
  windows: Int[np.ndarray, 'windows time'] | None = None,
  *,
  top: int = 10,
  quantiles: int = 10,
  per_quantile: int = 2,
  random: int = 10,
  length: int = 64,
  seed: int = 0,
  memory: int = 2**30,
) -> Records:
  """Records activations of units on excerpts of a text.

  Excerpts have `length` tokens of one window, three quarters of them before the
  token that they are for, and are moved where they would leave the window; the
  model reads the whole window. Windows are as they come: where several
  documents are in one, so they are in an excerpt.

    top       the highest nonzero activations, one a window (the first of equal
              ones), so that ten tops are not one place in the text. A unit that
              is active in fewer windows has fewer; where two windows have the
              same, the earlier comes first.
    quantile  nonzero activations from each quantile of them, at random and one
              a window. An activation is in the quantile whose lower edge it is
              not below, so that where many are equal some quantiles are empty:
              all of a unit that is constant are in the last.
    random    any tokens, zeros included, at random and one a window: what a
              dead unit has, too.

  The highest are those of the highest value. Of a unit that is negative where
  it is strongest, the first quantile shows it.

  Args:
    model: with config, params, tokenizer and windows.
    units: 'site:channel', or 'site' for all of its channels; a name that comes
      again counts once.
    windows: tokens to record on; None: the model's own.
    top: excerpts of this kind.
    quantiles: into how many parts the nonzero activations are divided.
    per_quantile: excerpts from each.
    random: excerpts of this kind.
    length: tokens of an excerpt, at most; that of a window where it is shorter.
    seed: of what is chosen at random.
    memory: bytes for what is kept of units during a pass. It decides about the
      number of passes, and comes on top of what the model needs for a batch.

  Returns:
    Records. The same model, units, text and seed give the same bytes on one
    machine, whatever the memory; and a unit has what it has alone.

  Raises:
    ValueError: an argument is out of its range, the model has no text or no
      such unit, or its activations are not finite.
  """
  config = model.config
  parsed = unit_names.parse(config, units)
  counts = {
    'top': (top, 0),
    'quantiles': (quantiles, 1),
    'per_quantile': (per_quantile, 0),
    'random': (random, 0),
    'length': (length, 1),
    'seed': (seed, 0),
    'memory': (memory, 1),
  }
  for name, (value, least) in counts.items():
    if value < least:
      raise ValueError(
        f'{name} must be at least {least}, got {value}; choose a larger one.'
      )
  text = _checked(config, model.windows if windows is None else windows)
  window = text.shape[1]
  sizes = Sizes(
    top, quantiles, per_quantile, random, min(length, window), window
  )
  in_chunk = max(1, _CHUNK // window)
  of_unit = sizes.bytes_of_unit + 4 * window * min(in_chunk, len(text))
  at_once = max(1, memory // of_unit)
  params = frozen.freeze(config, model.params)
  parts = []
  for start in range(0, len(parsed), at_once):
    part = parsed[start : start + at_once]
    running = Running([unit.name for unit in part], sizes, seed)
    for chunk, rows in _chunks(config, params, text, part, in_chunk):
      for unit, row in enumerate(rows):
        running.take(unit, chunk, row)
    parts.append(excerpts.finish(running, sizes, text, first=start))
  tables = {
    name: np.concatenate([part[name] for part in parts]) for name in parts[0]
  }
  tokenizer = model.tokenizer
  used = np.unique(tables['tokens']).tolist() if tokenizer else []
  pieces = tokenizer.pieces(used) if used else []
  return Records(
    units=tuple(unit.name for unit in parsed),
    model=dataclasses.asdict(config),
    model_hash=hash_params(model.params),
    text_hash=_hash(text),
    tokenizer_hash=tokenizer.hash if tokenizer else None,
    seed=seed,
    top=top,
    quantiles=quantiles,
    per_quantile=per_quantile,
    random=random,
    length=sizes.length,
    windows=len(text),
    window_length=window,
    pieces=dict(zip(used, pieces, strict=True)),
    formula=FORMULA,
    versions=versions.current(),
    **tables,
  )


def _checked(config: GPTConfig, windows: Any) -> Int32[np.ndarray, '_ _']:
  """Windows as int32."""
  if windows is None:
    raise ValueError(
      'windows must be given for a model without text, got none; give tokens '
      'as an integer array (windows, time).'
    )
  windows = np.asarray(windows)
  fits = windows.ndim == 2 and np.issubdtype(windows.dtype, np.integer)
  if not fits or not 0 < windows.size <= _MOST_TOKENS:
    raise ValueError(
      'windows must be integers (windows, time) of at most '
      f'{_MOST_TOKENS:,} tokens and at least one, got {windows.dtype} '
      f'{windows.shape}; give tokens of this shape.'
    )
  low, high = windows.min(), windows.max()
  if low < 0 or high >= config.vocab_size:
    raise ValueError(
      f'windows must hold tokens from 0 to {config.vocab_size - 1}, got {low} '
      f'to {high}; encode the text with the tokenizer of this model.'
    )
  return np.ascontiguousarray(windows, np.int32)


def _hash(text: Int32[np.ndarray, '_ _']) -> str:
  digest = hashlib.sha256(f'{text.shape} int32'.encode())
  digest.update(text.astype('<i4').tobytes())
  return digest.hexdigest()


def _chunks(
  config: GPTConfig,
  params: Mapping[str, Any],
  text: Int32[np.ndarray, 'windows time'],
  units: Sequence[unit_names.Unit],
  in_chunk: int,
) -> Iterator[tuple[Chunk, Float[np.ndarray, 'units tokens']]]:
  """Chunks of the text, and what the units do on each; overwritten by the next.

  Every call of the model has as many windows, so that it is compiled once; what
  is missing at the end of a chunk is filled up, and left out again.
  """
  window = text.shape[1]
  batch_size = _batch_size(config, window)
  rows, channels = {}, {}
  for row, unit in enumerate(units):
    rows.setdefault(unit.site, []).append(row)
    channels.setdefault(unit.site, []).append(unit.channel)
  channels = {site: jnp.asarray(list_) for site, list_ in channels.items()}
  held = np.empty((len(units), in_chunk * window), np.float32)
  for first in range(0, len(text), in_chunk):
    part = text[first : first + in_chunk]
    for start in range(0, len(part), batch_size):
      batch = part[start : start + batch_size]
      missing = batch_size - len(batch)
      filled = np.pad(batch, ((0, missing), (0, 0)))
      found = _activations(config, params, jnp.asarray(filled), channels)
      begin = start * window
      for site, values in found.items():
        held[rows[site], begin : begin + batch.size] = np.asarray(values)[
          :, : batch.size
        ]
    yield (
      Chunk(
        first,
        lots.numbered(first * window, (first + len(part)) * window),
        lots.numbered(first, first + len(part)),
      ),
      held[:, : part.size],
    )


def _batch_size(config: GPTConfig, window: int) -> int:
  """Windows for one call of the model: a power of two.

  It follows from the model and the text alone, and is nobody's to choose: sums
  of products are rounded in another order when there are more or fewer rows.
  """
  width = 2 * sum(sites.node_sites(config).values()) + config.n_heads * window
  fit = min(_CALL_BYTES // (4 * width * window), _CALL_TOKENS // window)
  fit = max(1, fit)
  return 2 ** (fit.bit_length() - 1)


@functools.partial(jax.jit, static_argnames='config')
def _activations(
  config: GPTConfig,
  params: Mapping[str, Any],
  tokens: Int[Array, 'batch time'],
  channels: Mapping[str, Int[Array, '_']],
) -> dict[str, Float[Array, '_ _']]:
  """(channels, batch * time) by site; XLA drops what they do not need."""
  _, seen = GPT(config).apply({'params': params}, tokens)
  flat = {site: seen[site].reshape(tokens.size, -1) for site in channels}
  return {
    site: flat[site][:, kept].T.astype(jnp.float32)
    for site, kept in channels.items()
  }
