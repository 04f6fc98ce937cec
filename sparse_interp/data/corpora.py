"""Corpora: a short name for some text, and the documents it stands for.

A spec names one corpus:

  'stdlib'                  source of the running interpreter's own library
  'idioms'                  seeded generator of simple, repetitive programs
  'files:<glob>'            every matching file is a document; `**` recurses
  'jsonl:<path>[#field]'    one JSON object per line, text in `field`
  'parquet:<path>[#field]'  one row per document, text in `field`

Paths may be globs (which match hidden files, too), compressed (.gz, .bz2, .xz)
except for parquet, and local or anything that fsspec opens. `field` is 'text'
unless given. Nothing but such a path reaches the network.

All choices about a document are made from hashes of its content: which
duplicates are dropped, the order, what a limit in bytes keeps, and whether it
is for training or validation. They do not change with the place, the order or
the number of the files that the documents come from.
"""

import hashlib
import heapq
import lzma
import pathlib
import sysconfig
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sparse_interp.data import corpus_files, idioms
from sparse_interp.data.corpus_files import one_line

_SPECS = (
  'stdlib',
  'idioms',
  'files:<glob>',
  'jsonl:<path>[#field]',
  'parquet:<path>[#field]',
)
# Directories inside the library's that hold other people's code.
_FOREIGN = frozenset({'site-packages', 'dist-packages'})


def read_corpus(
  spec: str,
  seed: int,
  max_bytes: int | None = None,
  left_out: Counter[str] | None = None,
) -> list[str]:
  """Reads the distinct documents of a corpus, in a seeded random order.

  Documents that are null, empty or not valid UTF-8 are left out. Where
  `max_bytes` does not hold the whole corpus, documents larger than it are left
  out, and the result is the longest prefix of the random order that fits: a
  sample without regard to file names or positions.

  Args:
    spec: The corpus; the module's docstring lists the forms.
    seed: Decides the order (and the programs, for 'idioms').
    max_bytes: Limit on the total size in UTF-8 bytes; None for no limit.
    left_out: Receives how many documents were left out, by reason: 'null',
      'empty', 'not UTF-8', 'larger than data.max_bytes'.

  Returns:
    The documents, never empty.

  Raises:
    ValueError: If the spec is unknown, its files or text field are missing or
      damaged, or no document fits `max_bytes`.
  """
  _check_limit(max_bytes)
  left_out = Counter() if left_out is None else left_out
  try:
    stream = _stream(spec, seed, max_bytes, left_out)
    documents = _sample(stream, seed, max_bytes, left_out)
  except (
    EOFError,
    OSError,
    MemoryError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise ValueError(
      f'data.corpora must name readable files, got {spec!r}: '
      f'{one_line(error)}; correct the path or the file.'
    ) from error
  if not documents:
    limit = '' if max_bytes is None else f' within {max_bytes} bytes'
    others = f' ({describe(left_out)} left out)' if left_out.total() else ''
    raise ValueError(
      f'data.corpora must name corpora with UTF-8 text, got {spec!r} with no '
      f'such document{limit}{others}; check the path or raise data.max_bytes.'
    )
  return documents


def describe(left_out: Mapping[str, int]) -> str:
  """What was left out, in words: '3 null, 1 not UTF-8'."""
  return ', '.join(f'{n:,} {why}' for why, n in left_out.items() if n)


def check_corpus(spec: str, max_bytes: int | None = None) -> None:
  """Refuses what cannot be a corpus; looks for its files, and reads none.

  Args:
    spec: as in `read_corpus`.
    max_bytes: as there.

  Raises:
    ValueError: If the spec is unknown, or no file matches it.
  """
  _check_limit(max_bytes)
  _stream(spec, 0, max_bytes, Counter())  # a generator that is not begun
  if spec in ('stdlib', 'idioms'):
    return
  kind, path, _ = _parts(spec)
  if kind == 'parquet':
    corpus_files.import_parquet()
  try:
    corpus_files.matching(path)
  except OSError as error:
    raise ValueError(
      f'data.corpora must name readable files, got {spec!r}: '
      f'{one_line(error)}; correct the path.'
    ) from error


def _check_limit(max_bytes):
  if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
    raise ValueError(
      f'data.max_bytes must be at least 1 or None, got {max_bytes!r}; '
      'choose e.g. 8000000.'
    )


def split_documents(
  documents: Sequence[str], validation_fraction: float
) -> tuple[list[str], list[str]]:
  """Splits documents by content: equal text is always on the same side.

  A document's side depends on nothing but its text and the fraction, so adding
  documents moves none, and two corpora that share a document agree about it.

  Whole documents cannot be shared out where there are too few of them: where
  one is longer than all others together, as a single file is, or where all fall
  on one side. Then every document is cut instead, whatever file it is from: its
  beginning is for training and its last lines, about `validation_fraction` of
  its characters, are for validation; a line that is too long for that is cut,
  too. Such corpora must not share documents with others.

  Args:
    documents: The documents, kept in order on each side.
    validation_fraction: Expected share of validation documents, in [0, 1).

  Returns:
    The pair (train, validation). With a fraction above 0 and two characters of
    text, neither is empty.
  """
  if not 0 <= validation_fraction < 1:
    raise ValueError(
      'data.validation_fraction must be in [0, 1), '
      f'got {validation_fraction}; choose e.g. 0.05.'
    )
  if not validation_fraction:
    return list(documents), []
  bound = int(validation_fraction * 2**64)
  sides = train, validation = [], []
  for document in documents:
    digest = _digest(document.encode())
    is_validation = int.from_bytes(digest[:8], 'big') < bound
    sides[is_validation].append(document)
  sizes = [len(document) for document in documents]
  if train and validation and 2 * max(sizes) <= sum(sizes):
    return sides
  halves = [_cut(document, validation_fraction) for document in documents]
  return [a for a, _ in halves if a], [b for _, b in halves if b]


def _cut(document: str, fraction: float) -> tuple[str, str]:
  """The beginning of a document, and `fraction` of it: lines, if they fit."""
  size = len(document)
  if size < 2:
    return document, ''
  at = min(max(1, round(size * (1 - fraction))), size - 1)
  before = document.rfind('\n', 0, at) + 1
  after = document.find('\n', at) + 1 or size
  nearest = min(before, after, key=lambda end: abs(end - at))
  if abs(nearest - at) <= min(at, size - at) // 2:
    at = nearest
  return document[:at], document[at:]


def corpus_hash(documents: Iterable[str]) -> str:
  """Hex SHA-256 over the documents' contents and their order."""
  total = hashlib.sha256()
  for document in documents:
    total.update(_digest(document.encode()))
  return total.hexdigest()


def _digest(content: bytes) -> bytes:
  return hashlib.sha256(content).digest()


def _sample(
  documents: Iterable[str],
  seed: int,
  max_bytes: int | None,
  left_out: Counter[str],
) -> list[str]:
  """De-duplicates, orders by seeded hash, keeps the prefix within max_bytes.

  One pass that never holds more than `max_bytes` of text and 32 bytes per
  document seen: the kept documents are a heap with the last in order on top.
  """
  salt = b'order %d ' % seed
  seen = set()
  heap = []  # (-rank, size in bytes, text)
  total = 0
  end = 2**256  # ranks from here on are known not to fit
  for document in documents:
    try:
      content = document.encode()
    except UnicodeEncodeError:  # a lone surrogate out of a JSON escape
      left_out[corpus_files.NOT_UTF8] += 1
      continue
    if not content:
      left_out['empty'] += 1
      continue
    if max_bytes is not None and len(content) > max_bytes:
      left_out[corpus_files.TOO_LARGE] += 1
      continue
    digest = _digest(content)
    rank = int.from_bytes(_digest(salt + digest), 'big')
    if digest in seen or rank >= end:
      continue
    seen.add(digest)
    heapq.heappush(heap, (-rank, len(content), document))
    total += len(content)
    while max_bytes is not None and total > max_bytes:
      negative_rank, size, _ = heapq.heappop(heap)
      end = -negative_rank
      total -= size
  return [document for _, _, document in sorted(heap, reverse=True)]


def _stream(
  spec: str, seed: int, max_bytes: int | None, left_out: Counter[str]
) -> Iterator[str]:
  if spec == 'stdlib':
    return _stdlib(left_out)
  if spec == 'idioms':
    if max_bytes is None:
      raise ValueError(
        "data.max_bytes must be given for the endless corpus 'idioms', "
        'got None; choose e.g. 8000000.'
      )
    return idioms.documents(seed, max_bytes)
  kind, path, field = _parts(spec)
  if kind == 'files':
    return corpus_files.text_files(path, max_bytes, left_out)
  if kind == 'jsonl':
    return corpus_files.json_lines(path, field, left_out)
  if kind == 'parquet':
    return corpus_files.parquet_rows(path, field, left_out)
  raise ValueError(
    f'data.corpora must be one of {", ".join(_SPECS)}, got {spec!r}; '
    'correct the name.'
  )


def _parts(spec: str) -> tuple[str, str, str]:
  """(kind, path, field) of a spec that names files."""
  kind, _, path = spec.partition(':')
  if kind == 'files' or '#' not in path:
    return kind, path, 'text'
  path, _, field = path.rpartition('#')
  return kind, path, field


def _stdlib(left_out: Counter[str]) -> Iterator[str]:
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  for path in root.rglob('*.py'):
    if _FOREIGN.isdisjoint(path.relative_to(root).parts) and path.is_file():
      try:
        yield path.read_bytes().decode()
      except UnicodeDecodeError:
        left_out[corpus_files.NOT_UTF8] += 1
