"""The files of a corpus, and the documents in them: text, JSON lines, parquet.

What cannot be a document is left out and counted, by its reason. What says that
a file is another than the one meant is an error.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sparse_interp.files import json_text, regular

NULL, NOT_UTF8, TOO_LARGE = 'null', 'not UTF-8', 'larger than data.max_bytes'
# A compressed file of a few kB can inflate to more than any memory.
_MOST_BYTES = 2**30
_MOST_BYTES_OF_LINE = 64 * 2**20


def text_files(
  glob: str, max_bytes: int | None, left_out: Counter[str]
) -> Iterator[str]:
  """Every file that matches, as a document.

  Args:
    glob: path or pattern.
    max_bytes: at which reading a file ends, since it is left out then.
    left_out: counts files that are not UTF-8 or too large.

  Raises:
    ValueError: if no file matches, or one is larger than 1 GiB and there is no
      max_bytes.
  """
  most = _MOST_BYTES if max_bytes is None else max_bytes
  for name, stream in _open_files(glob, 'infer'):
    content = stream.read(most + 1)
    if len(content) > most:
      if max_bytes is None:
        raise ValueError(
          f'data.corpora must name files of at most {most:,} bytes, got more '
          f'in {name}; split it, or set data.max_bytes to leave it out.'
        )
      left_out[TOO_LARGE] += 1
      continue
    try:
      yield content.decode()
    except UnicodeDecodeError:
      left_out[NOT_UTF8] += 1


def json_lines(glob: str, field: str, left_out: Counter[str]) -> Iterator[str]:
  """The text in a field of every line; lines that are blank do not count.

  Raises:
    ValueError: if no file matches, or a line is no object with text or null in
      the field, or has more than 64 MiB.
  """
  for name, stream in _open_files(glob, 'infer'):
    for number, line in enumerate(_lines(name, stream), start=1):
      if not line.strip():
        continue
      try:
        row = json_text.parse(line, strict=False)
      except ValueError as error:
        raise ValueError(
          f'data.corpora must hold one JSON object per line, got {error} '
          f'in {name} line {number}; correct or remove the line.'
        ) from error
      where = f'in {name} line {number}'
      if not isinstance(row, dict):
        raise ValueError(
          f'data.corpora must have an object with text in field {field!r}, got '
          f'{json_text.kind(row)} {where}; correct or remove the line.'
        )
      if field not in row:
        raise _no_field(field, row, where, 'jsonl')
      text = row[field]
      if text is None:
        left_out[NULL] += 1
      elif isinstance(text, str):
        yield text
      else:
        raise ValueError(
          f'data.corpora must have text in field {field!r}, got '
          f'{json_text.kind(text)} {str(text)[:40]!r} {where}; correct the '
          "line, or name another field as in 'jsonl:<path>#field'."
        )


def _lines(name, stream):
  number = 0
  while line := stream.readline(_MOST_BYTES_OF_LINE + 1):
    number += 1
    if len(line) > _MOST_BYTES_OF_LINE:
      raise ValueError(
        f'data.corpora must hold one JSON object per line, got a line of more '
        f'than {_MOST_BYTES_OF_LINE:,} bytes in {name} line {number}; see that '
        'the file is JSON lines.'
      )
    yield line


def import_parquet() -> Any:
  """pyarrow, an extra of this package.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import pyarrow
    import pyarrow.parquet
  except ImportError as error:
    raise ValueError(
      "data.corpora must not name 'parquet:' where pyarrow is missing; "
      "install it with pip install 'sparse_interp[parquet]'."
    ) from error
  return pyarrow


def parquet_rows(
  glob: str, field: str, left_out: Counter[str]
) -> Iterator[str]:
  """The text in a column, of any kind of text that parquet has.

  A text that several rows of a batch share is given once.

  Raises:
    ValueError: if no file matches, one is no parquet, the column is missing or
      holds something else, or pyarrow is not installed.
  """
  pyarrow = import_parquet()
  for name, stream in _open_files(glob, None):
    try:
      schema = pyarrow.parquet.read_schema(stream)
      kind = _column(pyarrow, schema, field, f'in {name}')
      stream.seek(0)
      # As a dictionary, a text that is repeated takes its room once.
      columns = [] if pyarrow.types.is_null(kind) else [field]
      file = pyarrow.parquet.ParquetFile(stream, read_dictionary=columns)
      for batch in file.iter_batches(batch_size=1024, columns=[field]):
        column = batch.column(0)
        if column.null_count:
          left_out[NULL] += column.null_count
        if columns:
          yield from _distinct(pyarrow, column, left_out)
    except pyarrow.ArrowException as error:
      raise ValueError(
        f'data.corpora must name parquet files, got {name}: '
        f'{one_line(error)}; correct the path or the file.'
      ) from error


def _column(pyarrow, schema, field, where):
  """The type of the column, which is text of some kind, or all null."""
  if field not in schema.names:
    raise _no_field(field, schema.names, where, 'parquet')
  if schema.names.count(field) > 1:
    raise ValueError(
      f'data.corpora must have one field {field!r}, got '
      f'{schema.names.count(field)} {where}; rename the others.'
    )
  kind = values = schema.field(field).type
  if pyarrow.types.is_dictionary(kind):
    values = kind.value_type
  types = pyarrow.types
  views = getattr(types, 'is_string_view', lambda _: False)
  if not (
    types.is_string(values)
    or types.is_large_string(values)
    or views(values)
    or types.is_null(values)
  ):
    raise ValueError(
      f'data.corpora must have text in field {field!r}, got {kind} {where}; '
      "name another field as in 'parquet:<path>#field'."
    )
  return values


def _distinct(pyarrow, column, left_out):
  """The texts of a column that is a dictionary."""
  column.validate()
  for index in column.indices.unique().to_pylist():
    if index is None:
      continue
    if not 0 <= index < len(column.dictionary):
      raise pyarrow.ArrowInvalid(f'text {index} of {len(column.dictionary)}')
    try:
      text = column.dictionary[index].as_py()
    except UnicodeDecodeError:
      left_out[NOT_UTF8] += 1
      continue
    if text is None:
      left_out[NULL] += 1
    else:
      yield text


def _no_field(field, fields, where, kind):
  names = ', '.join(map(str, fields))
  names = names if len(names) <= 200 else f'{names[:197]}...'
  return ValueError(
    f'data.corpora must have text in field {field!r}, got the fields '
    f'{names or "of an empty object"} {where}; name the field as in '
    f"'{kind}:<path>#field'."
  )


def matching(glob: str) -> tuple[Any, list[str]]:
  """The file system of a path or pattern, and its files that match.

  Raises:
    OSError: if they cannot be looked for.
    ValueError: if none does, or what does is no file.
  """
  try:
    filesystem, path = fsspec.core.url_to_fs(glob)
  except (ImportError, ValueError) as error:
    raise ValueError(
      'data.corpora must name paths of a kind that fsspec knows, got '
      f'{glob!r}: {one_line(error)}; correct the path.'
    ) from error
  with _named(glob):
    entries = filesystem.glob(path, detail=True) if glob else {}
  if isinstance(filesystem, LocalFileSystem):
    # Links count as what they lead to.
    names = [name for name in entries if os.path.isfile(name)]
    odd = [n for n in entries if os.path.exists(n) and not os.path.isdir(n)]
  else:
    names = [n for n, entry in entries.items() if entry['type'] == 'file']
    odd = []
  if not names:
    found = f'{regular.what_is(odd[0])}, {odd[0]}' if odd else 'none'
    raise ValueError(
      f'data.corpora must match at least one file, got {glob!r} with {found}; '
      'correct the path.'
    )
  return filesystem, names


def _open_files(glob, compression):
  """(name, stream) of the files that match, in no set order."""
  filesystem, names = matching(glob)
  for name in names:
    with _named(name):
      if isinstance(filesystem, LocalFileSystem):
        regular.check(name)
      file = filesystem.open(name, 'rb', compression=compression)
    with file as stream:
      yield name, stream


@contextlib.contextmanager
def _named(path):
  """Turns whatever a file system raises into one line."""
  try:
    yield
  except Exception as error:  # each has its own
    raise ValueError(
      f'data.corpora must name readable files, got {path!r}: '
      f'{one_line(error)}; correct the path or the file.'
    ) from error


def one_line(error: Exception) -> str:
  """Its message without line breaks."""
  return ' '.join(str(error).split()) or type(error).__name__
