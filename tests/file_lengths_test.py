"""A file says one thing, and is read in one go."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
MOST_LINES = {'sparse_interp': 300, 'tests': 400}


def too_long(root: pathlib.Path) -> list[str]:
  """Files of Python with more lines than a file may have, below each top."""
  found = []
  for top, most in MOST_LINES.items():
    for path in sorted((root / top).rglob('*.py')):
      lines = len(path.read_text(encoding='utf-8').splitlines())
      if lines > most:
        name = path.relative_to(root / top).as_posix()
        found.append(name.removesuffix('.py'))
  return found


def test_no_file_is_longer_than_one_reads_in_one_go():
  assert not too_long(ROOT)


def test_a_long_file_is_found(tmp_path):
  for top, most in MOST_LINES.items():
    (tmp_path / top / 'room').mkdir(parents=True)
    (tmp_path / top / 'room' / 'right.py').write_text('\n' * most)
    (tmp_path / top / 'room' / f'{top}_long.py').write_text('\n' * (most + 1))
  assert too_long(tmp_path) == ['room/sparse_interp_long', 'room/tests_long']
