"""Training as a function: what it is asked, and how it stops."""

import pathlib

import pytest

from sparse_interp.training import trained


def _stopping(seen):
  def run(config, workdir):
    seen.append((config, pathlib.Path(workdir)))
    assert seen[-1][1].parent.is_dir()
    raise SystemExit(0)

  return run


def test_an_interrupted_training_leaves_the_notebook_alive(
  tmp_path, monkeypatch
):
  seen = []
  monkeypatch.setattr(trained.pretrain_lib, 'run', _stopping(seen))
  with pytest.raises(KeyboardInterrupt, match='the same call goes on'):
    trained.pretrain('pretrain/tiny', tmp_path / 'w')
  ((config, workdir),) = seen
  assert config.run == 'pretrain'
  assert workdir == tmp_path / 'w'


def test_without_a_workdir_nothing_is_left(monkeypatch):
  seen = []
  monkeypatch.setattr(trained.pretrain_lib, 'run', _stopping(seen))
  with pytest.raises(KeyboardInterrupt, match='nothing is kept'):
    trained.pretrain('quickstart:tiny')
  ((config, workdir),) = seen
  assert config.data.length == 80
  assert not workdir.exists()


def test_a_configuration_that_does_not_ship_is_named():
  with pytest.raises(ValueError, match="got 'nothing'"):
    trained.pretrain('nothing')
