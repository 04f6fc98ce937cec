"""The version of XLA's interface is read from what jaxlib ships."""

import pytest

from sparse_interp.ops.cpu_kernels import xla_interface

HEADER = """// text
#define XLA_FFI_API_MAJOR {}
#define XLA_FFI_API_MINOR 7
"""


def test_the_version_at_hand_is_known():
  major, minor = xla_interface.version()
  assert (major, minor) >= (0, 1)
  xla_interface.check()


@pytest.mark.parametrize(
  ('text', 'version'),
  [(HEADER.format(0), (0, 7)), (HEADER.format(12), (12, 7)), ('//', None)],
)
def test_other_versions_are_refused(tmp_path, monkeypatch, text, version):
  monkeypatch.setattr(xla_interface.jax.ffi, 'include_dir', lambda: tmp_path)
  assert xla_interface.version() is None
  header = tmp_path / 'xla/ffi/api/c_api.h'
  header.parent.mkdir(parents=True)
  header.write_text(text)
  assert xla_interface.version() == version
  if version == (0, 7):
    xla_interface.check()
    return
  with pytest.raises(xla_interface.UnknownVersionError) as error:
    xla_interface.check()
  assert '12.7' in str(error.value) or version is None
