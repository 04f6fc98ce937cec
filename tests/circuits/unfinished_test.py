"""Searches that are killed go on where they were, to the same bits."""

import dataclasses
import random

import numpy as np
import pytest

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.circuits import find, unfinished
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import task_loss
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import gate_steps
from sparse_interp.circuits.selecting import elimination

_CONFIG = PruneConfig(
  steps=45,
  batch_pairs=8,
  selection_pairs=16,
  holdout_pairs=16,
  min_necessity=0.6,
  init_attribution=0.0,
)


class _Killed(BaseException):
  """Not an Exception: nothing in between may handle it."""


@pytest.fixture
def search(known):
  """Finds a circuit, with what is known on the way in a directory."""

  def search(directory=None, seed=0, config=_CONFIG, progress=None):
    return find.find_circuit(
      known.config,
      known.params,
      known.means,
      known.train,
      known.test,
      config,
      seed,
      progress,
      directory=directory,
    )

  return search


@pytest.fixture
def content(tmp_path):
  """Bytes of a circuit's files."""

  def content(circuit):
    directory = tmp_path / 'saved'
    circuit_lib.save(circuit, directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}

  return content


@pytest.fixture
def killed_after_a_write(monkeypatch):
  """Has every search end as soon as one more thing is known on disk."""
  keep_gates, append = (
    unfinished.Unfinished.keep_gates,
    unfinished.Unfinished._append,
  )

  def after(write):
    def write_and_die(*arguments):
      write(*arguments)
      raise _Killed

    return write_and_die

  monkeypatch.setattr(unfinished, '_SECONDS', 0.0)
  monkeypatch.setattr(unfinished.Unfinished, 'keep_gates', after(keep_gates))
  monkeypatch.setattr(unfinished.Unfinished, '_append', after(append))


@pytest.mark.slow
@pytest.mark.parametrize('gates', ['nodes', 'edges'])
def test_killed_after_every_write_it_ends_with_the_same_bits(
  gates, search, content, tmp_path, killed_after_a_write, monkeypatch
):
  config = dataclasses.replace(_CONFIG, gates=gates)
  directory, shown = tmp_path / 'way', []
  sessions = 0
  while True:
    try:
      circuit = search(directory, config=config, progress=shown.append)
      break
    except _Killed:
      sessions += 1
  # Five chunks of gates, and every answer: each session came further by one.
  lines = (directory / 'answers.jsonl').read_text().count('\n')
  assert sessions == 5 + lines - 1
  steps = [numbers['step'] for numbers in shown if 'step' in numbers]
  assert steps == []  # a write ends the session before it is shown
  monkeypatch.undo()
  assert content(circuit) == content(search(config=config))


@pytest.mark.slow
def test_steps_that_are_kept_are_not_made_again(search, tmp_path, monkeypatch):
  made = []
  run_chunk = gate_steps.run_chunk

  def count(*arguments):
    made.append(1)
    return run_chunk(*arguments)

  monkeypatch.setattr(gate_steps, 'run_chunk', count)
  search(tmp_path)
  assert len(made) == 5
  search(tmp_path)
  assert len(made) == 5


@pytest.mark.slow
def test_damage_costs_time_and_nothing_else(search, content, tmp_path):
  right = content(search(tmp_path / 'way'))
  rng = random.Random(0)
  files = sorted((tmp_path / 'way').iterdir())
  for _ in range(24):
    path = rng.choice(files)
    before = path.read_bytes()
    bits = bytearray(before)
    bits[rng.randrange(len(bits))] ^= 1 << rng.randrange(8)
    path.write_bytes(bits if rng.random() < 0.7 else bits[: len(bits) // 2])
    assert content(search(tmp_path / 'way')) == right


@pytest.mark.slow
def test_what_another_search_knows_is_not_used(
  search, content, tmp_path, monkeypatch
):
  search(tmp_path / 'way', seed=1)
  assert content(search(tmp_path / 'way')) == content(search())
  known = unfinished.Unfinished(tmp_path / 'way', 'another')
  assert known.began_anew
  assert not (tmp_path / 'way').exists()
  # Other code, too, is another search.
  search(tmp_path / 'way')
  before = (tmp_path / 'way' / 'answers.jsonl').read_bytes()
  monkeypatch.setattr(unfinished, 'machine', lambda: ['other'])
  monkeypatch.setattr(find, 'machine', lambda: ['other'])
  search(tmp_path / 'way')
  after = (tmp_path / 'way' / 'answers.jsonl').read_bytes()
  assert before.split(b'\n')[1] != after.split(b'\n')[1]


def test_nothing_but_its_own_files_is_removed(tmp_path):
  directory = tmp_path / 'way'
  known = unfinished.Unfinished(directory, 0)
  assert known.recall('a', lambda: 1.5) == 1.5
  (directory / 'notes.txt').write_text('mine')
  unfinished.remove(directory)
  assert [path.name for path in directory.iterdir()] == ['notes.txt']
  unfinished.remove(directory / 'missing')


def test_an_answer_is_recalled_as_it_was(tmp_path):
  values = [0.1, float(np.float32(0.1)), [1, 2], {'a': None, 'b': 1e-300}]
  known = unfinished.Unfinished(tmp_path / 'way', 0)
  for i, value in enumerate(values):
    known.recall(str(i), lambda value=value: value)
  again = unfinished.Unfinished(tmp_path / 'way', 0)
  for i, value in enumerate(values):
    assert again.recall(str(i), lambda: pytest.fail('asked again')) == value


@pytest.mark.slow
def test_an_elimination_says_how_long_it_still_takes(known):
  shown = []
  units = units_lib.make(known.model, 'edges', final_resid=False)
  keep = np.ones(units.count, bool)
  pairs = task_loss.make_pairs(known.train).take(np.arange(16))
  elimination.eliminate(
    units,
    keep,
    pairs,
    0.3,
    PruneConfig(calibrate='during', standard_errors=0.0),
    progress=shown.append,
  )
  assert {left.number for left in shown} >= {0, 1}
  # Before the first trial nothing is known of their pace.
  assert all(left.seconds is not None for left in shown[1:])
  first = [left.seconds for left in shown if left.number == 1]
  assert first[0] > 0
  assert first[-1] <= first[0]
