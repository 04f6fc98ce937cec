"""Circuits of openai/circuit_sparsity: `viz_data.pt`, read and checked.

What its losses mean. The published task loss of a pair of prompts A and B is
-log p(answer of A | A) - log p(answer of B | B): a sum over two prompts, and
that is what is stored. The target of 0.15, ln 2 for a coin toss, and every
loss of this package are means over the two. Stored losses are therefore halved
once, when they are read. One of them is not: `layer_interv_losses` are means
already, since the published viewer subtracts half of `interv_loss` from them
as they are.

Which answers are asked for is not stored, so everything that computes a loss
takes them as an argument. Neither is what removed nodes take: that is in
`mean_baseline_pretrain.pt` beside the circuits, for `read_means`.

`released_model` compares such a circuit with the model it belongs to and makes
it a Circuit; `released_viewer` writes a Circuit for the published viewer.
"""

import hashlib
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sparse_interp.interop.torch_file import torch_file


class Losses(NamedTuple):
  """Stored losses in nats, as means over the two prompts of a pair.

  Attributes:
    full: of the whole model.
    pruned: of the circuit.
    without_node: {site: of the circuit without each of its nodes}.
    without_layer: {'0.attn': of the circuit without the nodes of this part}.
    search: (iteration, loss) of the search that found the circuit.
  """

  full: float
  pruned: float
  without_node: dict[str, Float[np.ndarray, '_']]
  without_layer: dict[str, float]
  search: list[tuple[int, float]]


class Released(NamedTuple):
  """A stored circuit.

  Attributes:
    nodes: {site: kept channels, ascending}.
    losses: as means over prompts, see the module's docstring.
    tokens: prompts of the task, zeros to the right of each; the first half
      call for one answer, the second half for the other.
    lengths: tokens per prompt.
    activations: {site: {channel: values on these prompts}}, as stored.
    samples: {site: {channel: {share: (bottom, top)}}}: windows of pretraining
      text where a node is at that share from its least or largest value, each
      (tokens, activations, position).
    deltas: {(source site, target site): values of the drawn edges, by rows
      the kept nodes of the source}; no weights, which are in the checkpoint.
    model: fields of the released configuration.
    prune_config: of the search.
    hash: of the file.
  """

  nodes: dict[str, Int[np.ndarray, '_']]
  losses: Losses
  tokens: Int[np.ndarray, 'prompts time']
  lengths: Int[np.ndarray, 'prompts']
  activations: dict[str, dict[int, Float[np.ndarray, 'prompts time']]]
  samples: dict[str, dict[int, dict[float, Any]]]
  deltas: dict[tuple[str, str], Float[np.ndarray, '_ _']]
  model: dict[str, Any]
  prune_config: dict[str, Any]
  hash: str


def read(path: str | os.PathLike) -> Released:
  """Reads a `viz_data.pt` without torch; executes nothing.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no such file.
  """
  path = pathlib.Path(path)
  content = torch_file.read(path)
  try:
    return _released(content, _hash(path))
  except _WrongError as error:
    raise wrong(path, str(error)) from None
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  ) as error:
    reason = f'{type(error).__name__}: {error}'
    raise wrong(path, f'have the documented structure ({reason})') from None


def read_means(path: str | os.PathLike) -> dict[str, Float[np.ndarray, '_']]:
  """Reads `mean_baseline_pretrain.pt`: {site: mean of each channel}.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no mapping from sites to one finite number per channel.
  """
  content, means = torch_file.read(path), {}
  if not isinstance(content, Mapping):
    raise wrong(path, 'hold a mapping from sites to means')
  for site, value in content.items():
    if not isinstance(site, str):
      raise wrong(path, f'name sites by text, not {site!r}')
    if not isinstance(value, np.ndarray) or value.size not in value.shape:
      raise wrong(path, f'hold one mean per channel of {site}')
    mean = value.reshape(-1).astype(np.float32)
    if not np.all(np.isfinite(mean)):
      raise wrong(path, f'hold finite means of {site}')
    means[site] = mean
  return means


def wrong(path: Any, constraint: str) -> ValueError:
  """One line about a file that is not what it should be."""
  constraint = ' '.join(constraint.split())[:150]
  return ValueError(
    f'released circuit {os.fspath(path)} must {constraint}; fetch the file '
    'again, or write it with sparse_interp.interop.openai.released_viewer.'
  )


class _WrongError(Exception):
  """What the file must do."""


def _hash(path):
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _released(content: Any, digest: str) -> Released:
  circuit = dict(_mapping(content, 'circuit_data'))
  inner = circuit.pop('prune_config', None) or {}
  importances = _mapping(content, 'importances')
  order, nodes = {}, {}
  for site, kept in _by(str, circuit, 'circuit_data').items():
    kept = _whole_numbers(kept, f'circuit_data of {site}')
    order[site] = np.argsort(kept)
    nodes[site] = kept[order[site]]
    if np.any(np.diff(nodes[site]) == 0) or np.any(kept < 0):
      raise _WrongError(f'name each node of {site} once, by a channel')
  tokens, values = importances['task_samples']
  tokens = _prompts(tokens)
  return Released(
    nodes=nodes,
    losses=_losses(content, importances, order),
    tokens=tokens,
    lengths=np.array([_length(row) for row in tokens]),
    activations=_activations(values, tokens.shape),
    samples=_by_channel(content.get('samples', {})),
    deltas=_deltas(importances.get('pair_data', [])),
    model=dict(_mapping(importances, 'beeg_model_config')),
    prune_config=dict(content.get('prune_config') or inner),
    hash=digest,
  )


def _mapping(content, key):
  value = content[key] if isinstance(content, Mapping) else None
  if not isinstance(value, Mapping):
    raise _WrongError(f'hold a mapping as {key}')
  return value


def _whole_numbers(value, what):
  array = np.asarray(value)
  if array.size == 0:
    return np.zeros(0, int)
  if array.ndim != 1 or array.dtype.kind not in 'iu':
    raise _WrongError(f'hold {what} as a vector of whole numbers')
  return array.astype(int)


def _prompts(tokens):
  if isinstance(tokens, Sequence):  # one tensor for each prompt
    rows = [_whole_numbers(row, 'task_samples') for row in tokens]
    longest = max((len(row) for row in rows), default=0)
    tokens = np.zeros((len(rows), longest), np.int64)
    for row, prompt in zip(tokens, rows, strict=True):
      row[: len(prompt)] = prompt
  if not isinstance(tokens, np.ndarray) or tokens.ndim != 2:
    raise _WrongError('hold task_samples as a matrix of tokens')
  if tokens.dtype.kind not in 'iu' or np.any(tokens < 0):
    raise _WrongError('hold task_samples as tokens')
  if len(tokens) % 2 or not len(tokens):
    raise _WrongError(
      f'hold two halves of task_samples, not {len(tokens)} prompts'
    )
  if not np.all(tokens.any(axis=1)):
    raise _WrongError('hold task_samples that are not all padding')
  return tokens.astype(np.int32)


def _length(row):
  return int(np.flatnonzero(row)[-1]) + 1


def _activations(values, shape):
  found = {}
  for site, channels in _by(str, values, 'activations').items():
    found[site] = {}
    for channel, array in _by(int, channels, f'activations of {site}').items():
      array = np.asarray(array).astype(np.float32)
      if array.shape != shape:
        raise _WrongError(
          f'hold activations of {site}:{channel} on {shape[0]} prompts of '
          f'{shape[1]} tokens'
        )
      found[site][channel] = array
  return found


def _by_channel(samples):
  return {
    site: {
      channel: dict(shares)
      for channel, shares in _by(int, by, f'samples of {site}').items()
    }
    for site, by in _by(str, samples, 'samples').items()
  }


def _by(kind, mapping, what):
  """The mapping, whose keys are all of one kind: 1 and '1' are two keys."""
  for key in mapping:
    if type(key) is not kind:
      raise _WrongError(f'hold {what} by {kind.__name__}, not by {key!r}')
  return mapping


def _deltas(pairs):
  if pairs and not isinstance(pairs[0][0], np.ndarray):
    pairs = [pair for by_rank in pairs for pair in by_rank]
  found = {}
  for array, _, _, (source, target) in pairs:
    if (source, target) in found:
      raise _WrongError(f'hold pair_data of {source}, {target} once')
    found[source, target] = np.asarray(array).astype(np.float32)
  return found


def _losses(content, importances, order):
  without_node = {}
  for site, losses in _by(
    str, _mapping(importances, 'ch_interv_losses'), 'ch_interv_losses'
  ).items():
    losses = np.array([_number(loss, 'ch_interv_losses') for loss in losses])
    if len(losses) != len(order.get(site, ())):
      raise _WrongError(
        f'hold a loss for each node of {site} in ch_interv_losses'
      )
    without_node[site] = losses[order[site]] / 2
  return Losses(
    full=_number(importances['loss'], 'loss') / 2,
    pruned=_number(importances['interv_loss'], 'interv_loss') / 2,
    without_node=without_node,
    without_layer={
      part: _number(loss, 'layer_interv_losses')
      for part, loss in importances.get('layer_interv_losses', {}).items()
    },
    search=[
      (int(step), _number(loss, 'all_loss') / 2)
      for step, loss in content.get('all_loss') or []
    ],
  )


def _number(value, what):
  array = np.asarray(value)
  # Half-precision numbers are numbers for jax alone.
  if array.size != 1 or not jnp.issubdtype(array.dtype, jnp.number):
    raise _WrongError(f'hold numbers in {what}')
  number = float(array.reshape(()))
  if not math.isfinite(number):
    raise _WrongError(f'hold finite numbers in {what}')
  return number
