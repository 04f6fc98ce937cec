"""The import run: a model of other people as a workdir like a trained one.

Everything is read and checked before anything is written, and model.json, which
makes a directory a model, comes after all that belongs to it: stopped at any
moment and started again, the run ends alike.
"""

import contextlib
import dataclasses
import logging
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int
from ml_collections import config_dict

from sparse_interp.files import model_files, versions, whole_file
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.interop import remote, source
from sparse_interp.interop.own_tokenizer import OwnTokenizer
from sparse_interp.models import GPTConfig
from sparse_interp.models.params_hash import hash_params
from sparse_interp.runs import import_source, imported_text, parity
from sparse_interp.sparsity import statistics
from sparse_interp.training import (
  checkpoints,
  hosts,
  metrics,
  ranges,
  sharding,
)

_PHASE = import_source.PHASE


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Converts a model; see experiments/import_model.py for every field.

  Args:
    config: as there.
    workdir: receives model.json, checkpoints/, tokenizer.json,
      pretraining_sample.npy, config.json and summary.json.

  Returns:
    The content of summary.json.

  Raises:
    OSError: a file cannot be read or written.
    ValueError: a field is wrong, the source is no model that is known, a
      checksum or the recorded reference is not met, or the workdir holds
      something else.
  """
  begun = time.monotonic()
  _check(config)
  if not workdir_lib.is_begun(workdir):  # else they may be gone since
    _check_files(config)
  with hosts.claimed(workdir, config.to_dict(), _PHASE) as claim:
    summary = workdir_lib.read_summary(workdir)
    if _is_complete(workdir, summary):
      _check_unchanged(config, summary['imported']['sha256'])
      metrics.say(_PHASE, f'done already: {workdir}')
      _print(summary)
      return summary
    with (
      import_source.on_this_machine(config.source, claim) as directory,
      import_source.tokenizer_here(config.tokenizer, claim) as named,
    ):
      read = _read(config, directory, named)
    _write(workdir, read, claim)
    summary = workdir_lib.add_to_summary(
      workdir,
      _entries(config, read) | {'wall_seconds': time.monotonic() - begun},
    )
  _print(summary)
  metrics.say(_PHASE, f'done: {workdir}')
  return summary


def _is_complete(workdir: str, summary: dict[str, Any]) -> bool:
  """Whether all that was imported is there."""
  return (
    model_files.is_whole(workdir)
    and checkpoints.latest_step(workdir) is not None
    and 'imported' in summary
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Read:
  """All that will be written."""

  kind: str
  config: GPTConfig
  params: dict[str, Any]
  sha256: str
  notes: list[str]
  parity: dict[str, Any] | None
  tokenizer: OwnTokenizer | None
  windows: Int[np.ndarray, '_ _'] | None
  corpus_hash: str | None


def _check(config):
  if not config.source:
    raise ValueError(
      'source must name a directory with a model, got nothing; give '
      '--config.source=<path>.'
    )
  ranges.check_seed(config)
  ranges.check_whole(config, {}, {'length': 2})
  ranges.check_number(config, 'tolerance', above=0)
  ranges.check_text(config, 'sha256', 'tokenizer', 'reference', optional=True)
  ranges.check_text(config, 'text')
  if config.sha256 and not re.fullmatch('[0-9a-fA-F]{64}', config.sha256):
    raise ValueError(
      'sha256 must be 64 hexadecimal digits, got '
      f'{config.sha256[:80]!r}; correct the checksum.'
    )


def _check_files(config):
  path = import_source.directory_of(config.source)
  if not remote.is_remote(path) and not pathlib.Path(path).is_dir():
    raise ValueError(
      f'source must be a directory or its file with weights, got {path}, '
      'where there is no directory; correct the path.'
    )
  if config.reference and not pathlib.Path(config.reference).is_file():
    raise ValueError(
      f'reference must be an npz file, got {config.reference}, where there is '
      'none; correct the path.'
    )
  if config.tokenizer and not remote.is_remote(config.tokenizer):
    imported_text.check_tokenizer(config.tokenizer)
  imported_text.check_text(config.text)


def _check_unchanged(config, digest):
  path = import_source.directory_of(config.source)
  if remote.is_remote(path) or not pathlib.Path(path).is_dir():
    return
  found = source.sha256(path)
  if found != digest:
    raise ValueError(
      f'source must hold what this workdir was made of, got weights with '
      f'sha256 {found[:12]} instead of {digest[:12]}; choose another workdir.'
    )


def _read(
  config: config_dict.ConfigDict, directory: pathlib.Path, named: str | None
) -> _Read:
  digest = source.sha256(directory)
  if config.sha256 and config.sha256.lower() != digest:
    raise ValueError(
      f'sha256 must be that of the weights, got {config.sha256[:64]} and a '
      f'file with {digest}; get the file again, or correct the checksum.'
    )
  with _notes() as notes:
    kind, model, params = source.load(directory)
  for note in notes:
    metrics.say(_PHASE, note)
  metrics.say(_PHASE, f'{kind} model in {config.source}, sha256 {digest}')
  apart = None
  if config.reference:
    apart = parity.measure(model, params, config.reference, config.tolerance)
  tokenizer = imported_text.find_tokenizer(named, directory, model, kind)
  windows = corpus_hash = None
  if tokenizer is not None:
    windows, corpus_hash = imported_text.cut_windows(
      config.text, config.length, config.seed, model, tokenizer.tokenizer
    )
  return _Read(
    kind, model, params, digest, notes, apart, tokenizer, windows, corpus_hash
  )


@contextlib.contextmanager
def _notes() -> Iterator[list[str]]:
  """Collects what readers log: what a model has and we do not use."""
  logger = logging.getLogger('sparse_interp.interop')
  level, notes = logger.level, []
  handler = logging.Handler()
  handler.emit = lambda record: notes.append(record.getMessage())
  logger.setLevel(logging.WARNING)
  logger.addHandler(handler)
  try:
    yield notes
  finally:
    logger.removeHandler(handler)
    logger.setLevel(level)


def _write(workdir: str, read: _Read, claim: workdir_lib.Claim) -> None:
  directory = pathlib.Path(workdir)
  if read.tokenizer is not None and read.windows is not None:
    read.tokenizer.tokenizer.save(directory / model_files.TOKENIZER)
    with (
      whole_file.writing(directory / model_files.SAMPLE) as part,
      part.open('wb') as file,
    ):
      np.save(file, read.windows)
  claim.record('checkpoints', directory=True)
  claim.settle()
  checkpoints.save_params(workdir, read.params)
  model_files.write(workdir, dataclasses.asdict(read.config))


def _entries(config: config_dict.ConfigDict, read: _Read) -> dict[str, Any]:
  own, tensors = read.tokenizer, statistics.named_tensors(read.params)
  tokens = 0 if read.windows is None else int(read.windows.size)
  return {
    'asked': {'config': config.to_dict(), 'seed': config.seed},
    'imported': {
      'source': config.source,
      'kind': read.kind,
      'sha256': read.sha256,
      'notes': read.notes,
      'params_hash': hash_params(read.params),
      'parameters': sum(int(tensor.size) for tensor in tensors.values()),
      'reference': config.reference,
      'parity': read.parity,
      'means_over': config.text if tokens else None,
      'mean_tokens': tokens,
    },
    'nonzeros': {
      name: {
        'asked': None,  # whoever trained it knows
        'found': int(np.count_nonzero(tensor)),
        'size': int(tensor.size),
      }
      for name, tensor in tensors.items()
    },
    'corpus_hash': read.corpus_hash,
    'tokenizer_hash': own and own.tokenizer.hash,
    'tokenizer': own and imported_text.describe(own, read.config),
    'code_version': workdir_lib.code_version(),
    'versions': versions.add([], versions.current(), phase=_PHASE),
    'device': sharding.device_name(),
  }


def _print(summary: dict[str, Any]) -> None:
  """The proof that the model is the one that was meant."""
  imported = summary['imported']
  width = max(map(len, summary['nonzeros']))
  for name, counts in summary['nonzeros'].items():
    share = counts['found'] / max(counts['size'], 1)
    print(
      f'{name:<{width}} {counts["found"]:>13,} of {counts["size"]:>13,} '
      f'nonzero ({share:.4f})'
    )
  found = sum(counts['found'] for counts in summary['nonzeros'].values())
  print(f'parameters: {imported["parameters"]:,}, {found:,} nonzero')
  print(f'sha256 of the weights: {imported["sha256"]}')
  print(f'params_hash: {imported["params_hash"]}')
  print(f'tokenizer_hash: {summary["tokenizer_hash"]}')
  if summary.get('tokenizer'):
    print(f'tokenizer: {summary["tokenizer"]["rule"]}')
  apart = imported['parity']
  if apart is None:
    print('parity: no --config.reference was given')
  else:
    at = apart['activations_at']
    print(
      f'parity: max |logit difference| {apart["logits"]:.2e} on '
      f'{apart["tokens"]} tokens of {imported["reference"]}'
      + (f'; activations {apart["activations"]:.2e} ({at})' if at else '')
    )
  if imported['mean_tokens']:
    print(
      f'means of removed nodes: over {imported["mean_tokens"]:,} tokens of '
      f'{imported["means_over"]}; ablations zero, task_mean, resample and '
      'counterfactual do not use them',
      flush=True,
    )
