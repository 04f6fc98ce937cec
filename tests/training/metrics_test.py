"""Rows on disk and lines on the console."""

import json

from sparse_interp.training import metrics


def test_rows_after_the_restored_step_are_dropped_and_written_again(tmp_path):
  writer = metrics.MetricsWriter(tmp_path, 0)
  for step in (5, 10, 15):
    writer.write({'step': step, 'train_loss': 1 / 3})
  writer.close()
  writer = metrics.MetricsWriter(tmp_path, 10)
  writer.write({'step': 15, 'train_loss': 0.25})
  writer.close()
  found = metrics.read_rows(tmp_path / 'metrics.jsonl')
  assert found == [
    {'step': 5, 'train_loss': 1 / 3},
    {'step': 10, 'train_loss': 1 / 3},
    {'step': 15, 'train_loss': 0.25},
  ]


def test_a_row_torn_by_a_kill_is_left_out(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text('{"step": 5}\n{"step": 10, "train_lo')
  assert metrics.read_rows(path) == [{'step': 5}]
  metrics.MetricsWriter(tmp_path, 7).close()
  assert path.read_text() == '{"step": 5}\n'


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
  assert metrics.duration(42) == '42 s'
  assert metrics.duration(5 * 3600 + 120) == '5 h 02 min'
