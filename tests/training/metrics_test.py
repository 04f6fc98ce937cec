"""Rows on disk and lines on the console."""

import json

import pytest

from sparse_interp.files import metric_rows
from sparse_interp.training import metrics


def test_rows_after_the_restored_step_are_dropped_and_written_again(tmp_path):
  writer = metrics.MetricsWriter(tmp_path, 0)
  for step in (5, 10, 15):
    writer.write({'step': step, 'train_loss': 1 / 3})
    if step == 10:
      saved = writer.save()
  writer.close()
  writer = metrics.MetricsWriter(tmp_path, 10, saved)
  writer.write({'step': 15, 'train_loss': 0.25})
  writer.close()
  found = metric_rows.read(tmp_path / 'metrics.jsonl')
  assert found == [
    {'step': 5, 'train_loss': 1 / 3},
    {'step': 10, 'train_loss': 1 / 3},
    {'step': 15, 'train_loss': 0.25},
  ]


def written(directory, *steps):
  """Rows of these steps; what a checkpoint after them knows."""
  writer = metrics.MetricsWriter(directory, 0)
  for step in steps:
    writer.write({'step': step, 'train_loss': 1 / step})
  saved = writer.save()
  writer.close()
  return saved


def test_a_row_torn_by_a_kill_is_left_out(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  saved = written(tmp_path, 5)
  whole = path.read_bytes()
  path.write_bytes(whole + b'{"step": 10, "train_lo')
  assert [row['step'] for row in metric_rows.read(path)] == [5]
  metrics.MetricsWriter(tmp_path, 7, saved).close()
  assert path.read_bytes() == whole


@pytest.mark.parametrize(
  'rows',
  [
    b'7\n',
    b'"step"\n',
    b'[]\n',
    b'null\n',
    b'{"loss": 1}\n',
    b'{"step": "7"}\n',
    b'{"step": 7.0}\n',
    b'{"step": true}\n',
    b'{"step": 8}\n{"step": 8}\n',
    b'{"step": 9}\n{"step": 8}\n',
    b'\n{"step": 9}\n',
    b'{"step": 9\n{"step": 10}\n',
    b'\xff\xfe\x00\n',
    b'[' * 100_000 + b'\n',
  ],
)
def test_anything_but_a_torn_last_line_is_one_clear_line(tmp_path, rows):
  path = tmp_path / 'metrics.jsonl'
  saved = written(tmp_path, 1, 5)
  path.write_bytes(path.read_bytes() + rows)
  for call in (
    lambda: metric_rows.read(path),
    lambda: metrics.MetricsWriter(tmp_path, 5, saved),
  ):
    with pytest.raises(ValueError) as error:
      call()
    message = str(error.value)
    assert message.startswith(f'{path} must hold')
    assert 'restore' in message
    assert '\n' not in message
    assert len(message) < 500


@pytest.mark.parametrize(
  ('damage', 'found'),
  [
    (lambda content: None, 'no such file'),
    (lambda content: b'', '0 bytes'),
    (lambda content: content[:-1], 'bytes'),
    (lambda content: content.replace(b'0.2', b'0.3'), 'other content'),
    (lambda content: content.replace(b'5', b'6'), 'other content'),
  ],
)
def test_rows_that_a_checkpoint_has_seen_are_still_the_same(
  tmp_path, damage, found
):
  path = tmp_path / 'metrics.jsonl'
  saved = written(tmp_path, 1, 5)
  assert metrics.check(tmp_path, saved) == path.read_bytes()
  damaged = damage(path.read_bytes())
  path.unlink()
  if damaged is not None:
    path.write_bytes(damaged)
  for call in (
    lambda: metrics.check(tmp_path, saved),
    lambda: metrics.MetricsWriter(tmp_path, 5, saved),
  ):
    with pytest.raises(ValueError, match='must begin with') as error:
      call()
    assert found in str(error.value)
    assert str(path) in str(error.value)
  assert (path.read_bytes() if path.exists() else None) == damaged


def test_rows_without_a_checkpoint_do_not_go_in_silence(tmp_path, capsys):
  written(tmp_path, 1, 5)
  capsys.readouterr()
  metrics.MetricsWriter(tmp_path, 0).close()
  assert 'no checkpoint: 2 rows' in capsys.readouterr().out


def test_every_row_is_on_disk_at_once(tmp_path):
  writer = metrics.MetricsWriter(tmp_path, 0)
  writer.write({'step': 1})
  line = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(line) == {'step': 1}
  writer.close()


def test_rows_go_to_tensorboard_when_it_is_installed(tmp_path, monkeypatch):
  scalars = []

  class Board:
    def __init__(self, directory, purge_step):
      scalars.append(purge_step)

    def add_scalar(self, name, value, step):
      scalars.append((name, value, step))

    def close(self):
      scalars.append('closed')

  class Library:
    SummaryWriter = Board

  monkeypatch.setattr(metrics, 'tensorboard', Library)
  writer = metrics.MetricsWriter(tmp_path, 3)
  writer.write({'step': 4, 'density': 0.5})
  writer.close()
  assert scalars == [4, ('density', 0.5, 4), 'closed']
  monkeypatch.setattr(metrics, 'tensorboard', None)
  metrics.MetricsWriter(tmp_path, 3).close()
  assert len(scalars) == 3


def test_progress_names_step_loss_speed_and_time_left():
  line = metrics.progress_line(120, 6000, 2.34567, 41234.5, 190.2)
  assert line == (
    'step  120/6000  loss 2.3457  41234 tokens/s  3 min 10 s left'
  )
  line = metrics.progress_line(7, 60, 2.0, 0.516, 42.0, 'steps')
  assert line == 'step  7/60  loss 2.0000  0.52 steps/s  42 s left'
  assert metrics.duration(42) == '42 s'
  assert metrics.duration(5 * 3600 + 120) == '5 h 02 min'
