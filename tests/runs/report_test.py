"""The page of a workdir, made again."""

import json
import shutil

import pytest

from sparse_interp import configs, main
from sparse_interp.files import sealed, workdir
from sparse_interp.runs import report
from tests.refusals import assert_refused


@pytest.fixture
def pretrained(tmp_path):
  """What a run leaves that the page speaks of."""
  directory = tmp_path / 'w'
  config = configs.load('pretrain/tiny').to_dict()
  with workdir.claimed(directory, config):
    workdir.add_to_summary(
      directory, {'asked': {'seed': 0}, 'pretrain': {'step': 3}, 'nonzeros': {}}
    )
  return directory


@pytest.mark.parametrize('named', ['report', 'pretrain/tiny', 'quickstart'])
def test_the_page_is_made_again_by_any_configuration(named, pretrained):
  before = (pretrained / 'config.json').read_bytes()
  config = configs.load(named)
  config.run = 'report'
  main.run(config, str(pretrained))
  assert '<html' in (pretrained / report.PAGE).read_text()
  summary = workdir.read_summary(pretrained)
  assert report.is_current(pretrained, summary)
  assert (pretrained / 'config.json').read_bytes() == before
  (pretrained / report.PAGE).write_text('edited')
  assert not report.is_current(pretrained, summary)
  # The workdir is still that of its own run.
  with workdir.claimed(pretrained, configs.load('pretrain/tiny').to_dict()):
    pass


def test_what_is_no_finished_run_is_refused_and_left_alone(capfd, tmp_path):
  config = configs.load('report')
  assert_refused(
    capfd, config, tmp_path / 'w', 'workdir must hold a run that has ended'
  )
  assert not (tmp_path / 'w').exists()
  other = tmp_path / 'other'
  other.mkdir()
  (other / 'config.json').write_text('{}')
  sealed.write_json(other / 'summary.json', {'scores': []})
  assert_refused(capfd, config, other, 'makes circuits', 'with scores')
  assert len(list(other.iterdir())) == 2


def test_damaged_files_are_named(capfd, pretrained, tmp_path):
  for name, content in (('config.json', '{'), ('summary.json', '{"a": 3}')):
    copy = tmp_path / name
    shutil.copytree(pretrained, copy)
    (copy / name).write_text(content)
    assert_refused(capfd, configs.load('report'), copy, str(copy), name)
    assert json.loads((copy / 'manifest.json').read_text())


def test_a_page_that_cannot_be_made_takes_nothing_with_it(capfd, tmp_path):
  # As a run leaves it that was killed after its summary.
  config = configs.load('pretrain/tiny').to_dict()
  with workdir.claimed(tmp_path / 'w', config):
    workdir.add_to_summary(tmp_path / 'w', {'asked': {}, 'pretrain': {}})
    shutil.copytree(tmp_path / 'w', tmp_path / 'killed')
  circuit = tmp_path / 'killed' / 'circuits' / 'a' / 'circuit.json'
  circuit.parent.mkdir(parents=True)
  circuit.write_text('{')
  assert_refused(
    capfd, configs.load('report'), tmp_path / 'killed', 'circuit.json'
  )
  assert (tmp_path / 'killed' / 'summary.json').exists()
