r"""Compiles the published programs into one small file each.

python -m sparse_interp.ground_truth.compiled.compile \
    --directory=sparse_interp/ground_truth/compiled/shipped
"""

import pathlib

from absl import app, flags

from sparse_interp.files import errors
from sparse_interp.ground_truth.compiled.programs import (
  PROGRAMS,
  compile_published,
)
from sparse_interp.ground_truth.compiled.storage import save

_DIRECTORY = flags.DEFINE_string(
  'directory', None, 'Where <program>.npz goes.', required=True
)
_PROGRAMS = flags.DEFINE_list('programs', list(PROGRAMS), 'Which programs.')
_CAUSAL = flags.DEFINE_bool('causal', False, 'See earlier positions only.')


def main(_: list[str]) -> None:
  """Writes the files and says how large they are."""
  with errors.in_one_line(ImportError):
    directory = pathlib.Path(_DIRECTORY.value)
    directory.mkdir(parents=True, exist_ok=True)
    for name in _PROGRAMS.value:
      path = directory / f'{name}.npz'
      save(compile_published(name, _CAUSAL.value), path)
      print(f'{path}: {path.stat().st_size:,} bytes')


if __name__ == '__main__':
  app.run(main)
