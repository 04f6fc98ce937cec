"""Remote directories: in memory and by file://, never over the network."""

import sys

import fsspec
import pytest

from sparse_interp.interop import remote


@pytest.fixture
def memory():
  system = fsspec.filesystem('memory')
  system.pipe('/models/one/config.json', b'{}')
  system.pipe('/models/one/model.safetensors', bytes(100_000))
  yield 'memory://models/one'
  system.rm('/models', recursive=True)


def test_only_paths_with_a_protocol_are_remote():
  assert remote.is_remote('s3://bucket/model')
  assert not remote.is_remote('/models/one')
  assert not remote.is_remote('models:one')


def test_named_files_are_copied_whole_and_missing_ones_left_out(
  memory, tmp_path
):
  names = ['config.json', 'model.safetensors', 'vocab.bpe']
  found = remote.copy(memory, names, tmp_path / 'copy')
  assert found == names[:2]
  assert (tmp_path / 'copy' / 'config.json').read_bytes() == b'{}'
  assert (tmp_path / 'copy' / 'model.safetensors').stat().st_size == 100_000
  assert sorted(p.name for p in (tmp_path / 'copy').iterdir()) == names[:2]


def test_files_of_this_machine_have_a_protocol_too(tmp_path):
  (tmp_path / 'model').mkdir()
  (tmp_path / 'model' / 'a').write_text('x')
  source = f'file://{tmp_path / "model"}/'
  assert remote.copy(source, ['a', 'b'], tmp_path) == ['a']
  assert (tmp_path / 'a').read_text() == 'x'


@pytest.mark.parametrize(
  ('source', 'module', 'extra'),
  [
    ('s3://bucket/model', 's3fs', 's3'),
    ('gs://bucket/model', 'gcsfs', 'gcs'),
    ('https://host.invalid/model', 'aiohttp', 'http'),
  ],
)
def test_a_missing_library_is_one_line_that_names_the_extra(
  tmp_path, monkeypatch, source, module, extra
):
  monkeypatch.setitem(sys.modules, module, None)
  for name in list(sys.modules):
    if name.startswith(('fsspec.implementations.http', module)):
      monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ValueError, match=rf'sparse_interp\[{extra}\]') as error:
    remote.copy(source, ['config.json'], tmp_path)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())


def test_an_unknown_protocol_is_refused(tmp_path):
  with pytest.raises(ValueError, match='of a kind that fsspec knows'):
    remote.copy('sftq://host/model', ['config.json'], tmp_path)


def test_a_store_that_fails_leaves_nothing_half_copied(
  memory, tmp_path, monkeypatch
):
  def fail(stream, file, size):
    file.write(b'half')
    raise ConnectionError('reset by peer')

  monkeypatch.setattr(remote.shutil, 'copyfileobj', fail)
  with pytest.raises(ValueError, match='ConnectionError: reset by peer'):
    remote.copy(memory, ['config.json'], tmp_path)
  assert not list(tmp_path.iterdir())
