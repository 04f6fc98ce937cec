"""The files of a model to import: where they are, or copied for a while."""

import contextlib
import pathlib
from collections.abc import Iterator

from sparse_interp.files import workdir as workdir_lib
from sparse_interp.interop import own_tokenizer, remote, source
from sparse_interp.training import metrics

PHASE = 'import'


def directory_of(path: str) -> str:
  """The directory of a model that is named by it or by its weights."""
  head, _, name = path.rstrip('/').rpartition('/')
  return (head or '.') if name in source.WEIGHTS else path


@contextlib.contextmanager
def on_this_machine(
  path: str, claim: workdir_lib.Claim
) -> Iterator[pathlib.Path]:
  """Yields a directory with the files of the source; a copy if it is remote."""
  path = directory_of(path)
  if not remote.is_remote(path):
    yield pathlib.Path(path)
    return
  # In the workdir, since that disk has to hold the model anyway.
  with claim.scratch('source') as copy:
    found = remote.copy(path, source.FILES, copy)
    found += remote.copy(path, source.shards(copy), copy)
    metrics.say(PHASE, f'copied {", ".join(found) or "nothing"} from {path}')
    yield copy


@contextlib.contextmanager
def tokenizer_here(
  path: str | None, claim: workdir_lib.Claim
) -> Iterator[str | None]:
  """Yields the path of a tokenizer that is named; of a copy if it is remote."""
  if path is None or not remote.is_remote(path):
    yield path
    return
  head, _, name = path.rstrip('/').rpartition('/')
  is_file = name.endswith(own_tokenizer.ENDINGS)
  wanted = dict.fromkeys([*own_tokenizer.FILES, *[name] * is_file])
  with claim.scratch('tokenizer') as copy:
    found = remote.copy(head if is_file else path, wanted, copy, 'tokenizer')
    if not found or (is_file and name not in found):
      raise ValueError(
        f'tokenizer must name files that are there, got nothing at {path}; '
        'correct the path.'
      )
    metrics.say(PHASE, f'copied {", ".join(found)} from {path}')
    yield str(copy / name if is_file else copy)
