"""How a run ends that its user has to mend: one line, status 2, no traces."""

import pytest

from sparse_interp import main
from sparse_interp.files import errors


def assert_one_line(stderr, *parts):
  assert stderr.startswith('error: ')
  assert stderr.count('\n') == 1
  for part in parts:
    assert part in stderr


def assert_refused(capfd, config, workdir, *parts):
  """Does a run as `main` does, and checks how it ends."""
  capfd.readouterr()
  with pytest.raises(SystemExit) as info, errors.in_one_line():
    main.run(config, str(workdir))
  assert info.value.code == 2
  assert_one_line(capfd.readouterr().err, *parts)


def content(directory):
  return {
    path.relative_to(directory).as_posix(): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  }
