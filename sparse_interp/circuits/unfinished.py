"""What is known of a search that has not ended, on disk or only in memory.

A search for a circuit is deterministic: asked the same questions it gets the
same answers. What costs time is kept as soon as it is known: learned gates
every few seconds, and every answer of the model, one line each. A search that
is killed and begins again finds its answers there, comes in no time to where it
was, and ends as if it had never been interrupted.
"""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Bool

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.files import whole_file
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models.params_hash import hash_params

_Value = TypeVar('_Value')

_ANSWERS, _GATES = 'answers.jsonl', 'gates.npz'
FILES = (_ANSWERS, _GATES)

# Between two times that gates are written: what a kill can cost.
_SECONDS = 2.0


def digest(*parts: Any) -> str:
  """Short hash of JSON values and of arrays, masks in particular."""
  result = hashlib.blake2b(digest_size=12)
  for part in parts:
    if isinstance(part, np.ndarray):
      bits = np.packbits(part) if part.dtype == bool else part
      result.update(f'{part.dtype} {part.shape}'.encode() + bits.tobytes())
    else:
      result.update(json.dumps(part, sort_keys=True).encode())
    result.update(b'\0')
  return result.hexdigest()


def identity(
  model: GatedModel, data: Mapping[str, Batch], config: PruneConfig, seed: int
) -> dict[str, Any]:
  """What another search would not share: model, data, start and seed.

  Args:
    model: the model with its ablation.
    data: pairs or sequences by name.
    config: hyper-parameters.
    seed: of gates and batches.
  """
  return {
    'params_hash': hash_params(model.params),
    'values_hash': hash_params(dict(model.values)),
    'ablation': model.ablation,
    'data_hash': hash_params(dict(data)),
    'base': dataclasses.asdict(config),
    'seed': seed,
  }


def machine() -> list[Any]:
  """What results may depend on to the last bit, besides what was asked."""
  device = jax.devices()[0]
  where = [device.platform, device.device_kind, jax.device_count()]
  return [workdir_lib.code_version(), jax.__version__, np.__version__, *where]


class Unfinished:
  """Answers and gates of one search.

  Attributes:
    began_anew: whether what was there belonged to another search, or to other
      versions of code, and was dropped.
  """

  def __init__(
    self, directory: pathlib.Path | None = None, identity: Any = None
  ):
    """Reads what is there.

    Args:
      directory: made when there is something to write; None writes nothing.
      identity: JSON values that no other search shares, as `identity` and
        `machine` give them.
    """
    self.began_anew = False
    self._directory, self._identity = directory, digest(identity)
    self._answers: dict[str, Any] = {}
    self._file = None
    self._paces: deque[float] = deque(maxlen=20)
    self._written = time.monotonic()
    if directory is not None and (directory / _ANSWERS).exists():
      self._read(directory / _ANSWERS)

  def _read(self, path: pathlib.Path) -> None:
    """Takes whole lines only: a kill or a full disk may tear one."""
    lines = path.read_bytes().split(b'\n')[1:]
    first, *others = [_parse(line) for line in lines] or [None]
    if first == ['identity', self._identity]:
      self._answers = dict(entry for entry in others if entry)
    else:
      self.began_anew = True
      remove(self._directory)

  def recall(self, question: str, compute: Callable[[], _Value]) -> _Value:
    """The answer to a question, computed if it was never asked.

    Args:
      question: which says all that this search does not share with itself.
      compute: gives JSON values: numbers, strings, lists, mappings of them.

    Raises:
      OSError: the disk is full or may not be written to.
    """
    if question not in self._answers:
      began = time.monotonic()
      answer = compute()
      self._paces.append(time.monotonic() - began)
      self._append([question, answer])
      self._answers[question] = answer
    return self._answers[question]

  def seconds_per_answer(self) -> float | None:
    """Median time of the last answers; None before there were any."""
    return float(np.median(self._paces)) if self._paces else None

  def _append(self, entry: list) -> None:
    if self._directory is None:
      return
    if self._file is None:
      self._directory.mkdir(parents=True, exist_ok=True)
      path = self._directory / _ANSWERS
      # Unbuffered: a line is handed over whole, or not at all.
      self._file = path.open('ab', buffering=0)
      if self._file.tell() == 0:
        self._file.write(_line(['identity', self._identity]))
    self._file.write(_line(entry))

  def gates(self, shapes: Sequence[Any]) -> list[np.ndarray] | None:
    """Arrays of the optimisation as `keep_gates` last wrote them.

    Args:
      shapes: what has the shape and dtype of each.

    Returns:
      The arrays; None where there are none of this search, or damaged ones.
    """
    if self._directory is None:
      return None
    path = self._directory / _GATES
    seal, _, content = (path.read_bytes() if path.exists() else b'').partition(
      b'\n'
    )
    if seal != self._seal(content):
      return None
    with np.load(io.BytesIO(content)) as file:
      arrays = [file[f'arr_{i}'] for i in range(len(file.files))]
    fits = [(one.shape, one.dtype) for one in arrays] == [
      (one.shape, one.dtype) for one in shapes
    ]
    return arrays if fits else None

  def keep_gates(
    self, arrays: Callable[[], Sequence[np.ndarray]], last: bool
  ) -> None:
    """Writes the arrays of the optimisation in one step, now and then.

    Args:
      arrays: gives them.
      last: whether these are the final ones, which are written in any case.

    Raises:
      OSError: the disk is full or may not be written to.
    """
    if self._directory is None:
      return
    if not last and time.monotonic() - self._written < _SECONDS:
      return
    buffer = io.BytesIO()
    np.savez(buffer, *arrays())
    content = buffer.getvalue()
    with whole_file.writing(self._directory / _GATES) as part:
      part.write_bytes(self._seal(content) + b'\n' + content)
    self._written = time.monotonic()

  def _seal(self, content: bytes) -> bytes:
    """Of a file of this search: nothing else has it."""
    return (
      hashlib.sha256(self._identity.encode() + content).hexdigest().encode()
    )


def remove(directory: str | os.PathLike) -> None:
  """Deletes what a search has left in its directory, if anything."""
  directory = pathlib.Path(directory)
  for name in (_ANSWERS, _GATES):
    (directory / name).unlink(missing_ok=True)
  if directory.is_dir() and not any(directory.iterdir()):
    directory.rmdir()


def question(what: str, *masks: Bool[np.ndarray, 'units']) -> str:
  """Names a question about masks of units."""
  return f'{what} {digest(*masks)}'


def _line(entry: list) -> bytes:
  # The line before may have been torn: a new one does not rely on its end.
  text = json.dumps(entry, separators=(',', ':'))
  return f'\n{zlib.crc32(text.encode()):08x} {text}'.encode()


def _parse(line: bytes) -> list | None:
  """The entry of a line; None if it is not as it was written."""
  crc, _, text = line.partition(b' ')
  if crc != f'{zlib.crc32(text):08x}'.encode():
    return None
  return json.loads(text)
