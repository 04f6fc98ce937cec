"""Batches of token windows, mixed from several corpora by weight, by grain.

A window is `length` consecutive tokens; the windows of a corpus do not overlap.
Each corpus is shuffled anew for every pass over it and repeated without end,
the corpora are interleaved in proportion to their weights, and window i of that
sequence is row i % batch_size of the global batch i // batch_size. All of this
follows from the seed alone: with any number of processes, the global batches
are the same, row by row.

Each process reads its own rows only. It batches the sequence by its share of a
batch and takes every process_count-th of these: process p has the rows
p * share to (p + 1) * share, which is what
`jax.make_array_from_process_local_data` expects of it.
"""

import itertools
from collections.abc import Sequence

import grain
import numpy as np
from jaxtyping import Int32, UInt

# Batches are small and cheap to make: with a few made in advance no step waits.
# Threads, not processes, so that nothing outlives a run that is killed.
_READ_OPTIONS = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)

# Where the endless sequence of windows ends. grain's own end, the largest
# integer that a length can be, leaves no room for its sums when a share of a
# batch is a single row.
_END = 2**62


class TokenWindows:
  """Random access to the windows of a token stream, a source for grain."""

  def __init__(self, tokens: UInt[np.ndarray, 'tokens'], length: int):
    """Cuts the stream, dropping the rest after the last whole window."""
    self._tokens = tokens
    self._length = length

  def __len__(self) -> int:
    return len(self._tokens) // self._length

  def __getitem__(self, index: int | np.integer) -> Int32[np.ndarray, 'length']:
    start = int(index) * self._length
    return self._tokens[start : start + self._length].astype(np.int32)


def make_batches(
  sources: Sequence[UInt[np.ndarray, '_']],
  weights: Sequence[float | int],
  batch_size: int,
  length: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  names: Sequence[str] | None = None,
) -> grain.IterDataset:
  """Training batches without end: int32 arrays (batch_size/processes, length).

  The iterator's `get_state()` is a small JSON-able dict, the same for every
  process; `set_state` continues behind the batch that was taken last, exactly.

  Args:
    sources: Token streams, one per corpus, e.g. from `token_cache.build`.
    weights: Positive shares of the windows, one per corpus, of any sum.
    batch_size: Windows per global batch.
    length: Tokens per window, the model's context length.
    seed: Decides the order; at least 0.
    process_index: This process, in [0, process_count).
    process_count: Number of processes; divides batch_size.
    names: The corpora's names, for error messages.

  Returns:
    A dataset to be iterated over.

  Raises:
    ValueError: If a corpus is shorter than one window, or a value is out of
      its range.
  """
  share = _share(batch_size, process_index, process_count)
  dataset = _mixture(sources, weights, length, seed, names).batch(share)
  # Batches of a share, not rows, are dealt out: rows keep their global place.
  dataset = dataset[process_index::process_count]
  return dataset.to_iter_dataset(_READ_OPTIONS)


def validation_batches(
  sources: Sequence[UInt[np.ndarray, '_']],
  weights: Sequence[float | int],
  batch_size: int,
  length: int,
  num_batches: int,
  process_index: int = 0,
  process_count: int = 1,
  names: Sequence[str] | None = None,
) -> list[Int32[np.ndarray, 'rows length']]:
  """The first batches of the validation streams, the same for every seed.

  The windows are a sample of each stream, drawn as in `make_batches`. Where a
  stream has fewer windows than its share of all batches, windows are repeated.

  Args:
    sources: Token streams of the validation split, one per corpus.
    weights: As in `make_batches`.
    batch_size: Windows per global batch.
    length: Tokens per window.
    num_batches: Number of batches, at least 1.
    process_index: This process, in [0, process_count).
    process_count: Number of processes; divides batch_size.
    names: The corpora's names, for error messages.

  Returns:
    num_batches arrays (batch_size / process_count, length).

  Raises:
    ValueError: As in `make_batches`.
  """
  if num_batches < 1:
    raise ValueError(
      f'data.validation_batches must be at least 1, got {num_batches}; '
      'choose e.g. 8.'
    )
  dataset = make_batches(
    sources,
    weights,
    batch_size,
    length,
    seed=0,
    process_index=process_index,
    process_count=process_count,
    names=names,
  )
  return list(itertools.islice(dataset, num_batches))


def _share(batch_size: int, process_index: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise ValueError(
      'data.batch_size must be a positive multiple of the number of processes '
      f'{process_count}, got {batch_size}; choose e.g. {64 * process_count}.'
    )
  if not 0 <= process_index < process_count:
    raise ValueError(
      f'process_index must be in [0, {process_count}), got {process_index}; '
      'pass jax.process_index().'
    )
  return batch_size // process_count


def _mixture(
  sources: Sequence[UInt[np.ndarray, '_']],
  weights: Sequence[float | int],
  length: int,
  seed: int,
  names: Sequence[str] | None,
) -> grain.MapDataset:
  """The endless global sequence of windows."""
  if len(weights) != len(sources) or not sources or min(weights) <= 0:
    raise ValueError(
      'data.weights must be one positive number for each of the '
      f'{len(sources)} corpora, got {list(weights)}; '
      'leave out a corpus instead of giving it weight 0.'
    )
  if length < 2:
    raise ValueError(
      'data.length must be at least 2 (a token and its successor), '
      f'got {length}; choose e.g. 256.'
    )
  if seed < 0:
    raise ValueError(f'seed must be at least 0, got {seed}; choose e.g. 0.')
  datasets = []
  for i, tokens in enumerate(sources):
    windows = TokenWindows(tokens, length)
    if len(windows) == 0:
      raise ValueError(
        f'data.corpora must each hold at least one context of {length} tokens, '
        f'got {len(tokens)} in {names[i] if names else f"corpus {i}"}; use '
        'more text, a larger data.validation_fraction if it is the validation '
        'split that is short, or a smaller data.length.'
      )
    # grain adds the number of the pass to the seed, so seeds that follow each
    # other would share passes; hashed seeds do not.
    shuffle_seed = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
    dataset = grain.MapDataset.source(windows).shuffle(seed=shuffle_seed)
    datasets.append(dataset.repeat())
  return grain.MapDataset.mix(datasets, list(weights))[:_END]
