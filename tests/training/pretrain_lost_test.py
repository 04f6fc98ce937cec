"""Runs whose files were lost, changed, are in use, or are other people's."""

import shutil

import jax
import pytest

from sparse_interp.files import model_files, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.training import inputs, pretrain, sharding
from tests.training.results import assert_same_result

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  """Runs in this process use one device, like those in their own."""
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  monkeypatch.setattr(sharding, 'make_mesh', lambda fsdp: mesh)


def resumed(config, undisturbed, workdir, *missing):
  """A run of which some was lost after its end, run again."""
  shutil.copytree(undisturbed, workdir)
  for name in missing:
    path = workdir / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  return pretrain.run(config, str(workdir))


def test_what_is_missing_of_a_finished_run_is_made_again(
  config, undisturbed, tmp_path
):
  missing = ('summary.json', 'model.json', 'tokenizer.json', model_files.SAMPLE)
  summary = resumed(config, undisturbed, tmp_path / 'w', *missing)
  for name in ('model.json', 'tokenizer.json', model_files.SAMPLE):
    again = (tmp_path / 'w' / name).read_bytes()
    assert again == (undisturbed / name).read_bytes(), name
  before = workdir_lib.read_summary(undisturbed)
  for entries in (summary, before):
    del entries['wall_seconds'], entries['device']
  assert summary == before


def test_a_model_alone_is_no_finished_run(config, undisturbed, tmp_path):
  missing = ('tokenizer.json',)
  resumed(config, undisturbed, tmp_path / 'w', *missing)
  assert (tmp_path / 'w' / 'tokenizer.json').exists()


@pytest.mark.parametrize('summary', [True, False])
@pytest.mark.parametrize('content', [None, b'', b'7\n', b'\xff\x00', 'flip'])
def test_rows_that_were_lost_or_changed_are_said_in_one_line(
  config, undisturbed, tmp_path, content, summary
):
  shutil.copytree(undisturbed, tmp_path / 'w')
  path = tmp_path / 'w' / 'metrics.jsonl'
  if not summary:
    (tmp_path / 'w' / 'summary.json').unlink()
  if content == 'flip':
    content = path.read_bytes().replace(b'"step": 30', b'"step": 31')
  path.unlink()
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(ValueError) as error:
    pretrain.run(config, str(tmp_path / 'w'))
  assert str(path) in str(error.value)
  assert '\n' not in str(error.value)
  assert (path.read_bytes() if path.exists() else None) == content


def test_other_versions_are_kept_with_the_step_they_took_over_at(
  config, undisturbed, tmp_path, monkeypatch, capsys
):
  first = workdir_lib.read_summary(undisturbed)['versions']
  assert first == [
    {'phase': 'pretrain', 'from_step': 0, 'versions': versions.current()}
  ]
  other = versions.current() | {'jax': '9.9', 'code': '0.1.0+other'}
  monkeypatch.setattr(versions, 'current', lambda: other)
  missing = ('summary.json', 'checkpoints/61')
  summary = resumed(config, undisturbed, tmp_path / 'w', *missing)
  entry = {'phase': 'pretrain', 'from_step': 60, 'versions': other}
  assert summary['versions'] == [*first, entry]
  assert summary['code_version'] == '0.1.0+other'
  assert 'from step 60 on: code ' in (printed := capsys.readouterr().out)
  assert ' -> 9.9' in printed
  assert_same_result(tmp_path / 'w', undisturbed)
  # What is only read again by others was made by these all the same.
  monkeypatch.setattr(versions, 'current', lambda: other | {'jax': '10'})
  (tmp_path / 'w' / 'summary.json').unlink()
  again = pretrain.run(config, str(tmp_path / 'w'))
  assert again['versions'] == summary['versions']


def test_files_that_come_while_text_is_prepared_outlive_its_failure(
  config, tmp_path, monkeypatch
):
  config.data.length = 100_000
  config.train.tokens = 10**9
  make_batches = inputs.make_batches
  mine = [tmp_path / name for name in ('data/train-mine.npy', 'notes.txt')]

  def and_files_come(*arguments):
    for path in mine:
      path.write_text('keep')
    return make_batches(*arguments)

  monkeypatch.setattr(inputs, 'make_batches', and_files_come)
  with pytest.raises(ValueError, match=r'data\.corpora must each hold'):
    pretrain.run(config, str(tmp_path))
  left = [path for path in tmp_path.rglob('*') if path.is_file()]
  assert sorted(left) == mine


def test_a_data_set_of_others_is_left_alone(config, tmp_path):
  for name in ('tokenizer.json', 'data/train-00000-of-00001.parquet'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('mine')
  config.data.vocab_size = 100_000
  before = {p: p.stat().st_mtime_ns for p in [tmp_path, *tmp_path.rglob('*')]}
  with pytest.raises(ValueError, match=r'data/train-00000-of-00001\.parquet'):
    pretrain.run(config, str(tmp_path))
  after = {p: p.stat().st_mtime_ns for p in [tmp_path, *tmp_path.rglob('*')]}
  assert after == before


def test_a_second_run_is_told_of_the_first(config, start, tmp_path):
  run = start(tmp_path / 'run')
  assert run.wait_for('step  5/')
  with pytest.raises(
    ValueError, match=f'process {run.process.pid} on .* since'
  ):
    pretrain.run(config, str(tmp_path / 'run'))
  status, errors = run.end()
  assert status == 0, errors
