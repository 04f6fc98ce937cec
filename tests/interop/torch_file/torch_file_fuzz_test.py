"""Thousands of damaged models: each is read, or refused in one clear line."""

import io
import pathlib
import random
import resource
import zipfile

import numpy as np
import pytest

from sparse_interp.interop.openai import openai_release
from sparse_interp.interop.torch_file import torch_file
from tests.interop.openai import released_models

PLAIN = pathlib.Path(__file__).parents[2] / 'data' / 'released_format' / 'plain'
_TINY = {
  'n_layer': 1,
  'd_model': 8,
  'd_mlp': 8,
  'n_head': 2,
  'd_head': 4,
  'vocab_size': 6,
  'block_size': 4,
}
# What pickles and archives are made of.
_PIECES = (
  *(b'PK\1\2', b'PK\3\4', b'PK\5\6', b'\xff\xff\xff\xff', bytes(8), b'.'),
  *(b'cos\nsystem\n', b'\x85R', b'(t', b'q\0', b'h\0', b'\x80\4', b'}', b']'),
  *(b'r\xff\xff\xff\x7f', b'X\xff\xff\xff\x7f', b'\x8e', b'b', b'e', b'u'),
  *(b'"n_layer"', b'[[', b'1e999', b'null', b'-1', b'{}', b'\\u0000', b','),
)


def _mutate(rng, data):
  data = bytearray(data)
  for _ in range(rng.choice([1, 1, 2, 8])):
    at, kind = rng.randrange(len(data) + 1), rng.randrange(6)
    if kind == 0 and at < len(data):
      data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
      data[at] = rng.randrange(256)
    elif kind == 2:
      del data[at:]
    elif kind == 3:
      del data[at : at + rng.randrange(1, 40)]
    elif kind == 4:
      data[at:at] = rng.choice(_PIECES)
    else:
      other = rng.randrange(len(data) + 1)
      data[at:at] = data[other : other + rng.randrange(1, 60)]
    if not data:
      break
  return bytes(data)


def _members(data):
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    return {name: archive.read(name) for name in archive.namelist()}


def _rezip(members):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return buffer.getvalue()


def _mutants(rng, model, config, count):
  """(final_model.pt, beeg_config.json), one of which is damaged."""
  members = _members(model)
  pickled = next(name for name in members if name.endswith('data.pkl'))
  # Where an archive's structure is, not its numbers.
  tail = model.rindex(b'byteorder')
  for number in range(count):
    if number % 4 == 0:
      yield _mutate(rng, model), config
    elif number % 4 == 1:
      spoilt = _mutate(rng, members[pickled])
      yield _rezip({**members, pickled: spoilt}), config
    elif number % 4 == 2:
      yield model, _mutate(rng, config)
    else:
      at = rng.choice([0, model.index(b'PK\1\2'), tail])
      yield model[:at] + _mutate(rng, model[at:]), config


def _try(directory, model, config):
  (directory / 'final_model.pt').write_bytes(model)
  (directory / 'beeg_config.json').write_bytes(config)
  outcomes = []
  for read in (
    lambda: torch_file.read(directory / 'final_model.pt'),
    lambda: openai_release.load(directory),
  ):
    try:
      read()
      outcomes.append(True)
    except ValueError as error:
      text = str(error)
      assert '\n' not in text, text
      assert str(directory) in text, text
      assert len(text) < 1000, text
      outcomes.append(False)
  return outcomes


def _fuzz(tmp_path, count, seed):
  fields = released_models.write(
    tmp_path, _TINY, released_models.random_state(_TINY)
  )
  assert fields['n_layer'] == 1
  model = (tmp_path / 'final_model.pt').read_bytes()
  config = (tmp_path / 'beeg_config.json').read_bytes()
  rng = random.Random(seed)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  outcomes = np.array(
    [_try(tmp_path, *pair) for pair in _mutants(rng, model, config, count)]
  )
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  # Flipped weights are read.
  assert 0.02 < outcomes[:, 1].mean() < 0.9
  assert after - before < 300_000  # kB


@pytest.mark.slow
def test_damaged_models_are_read_or_refused(tmp_path):
  _fuzz(tmp_path, 200, 0)


@pytest.mark.slow
def test_thousands_of_damaged_models_are_read_or_refused(tmp_path):
  _fuzz(tmp_path, 2500, 1)


@pytest.mark.slow
def test_damaged_files_of_torch_are_read_or_refused(tmp_path):
  model = (PLAIN / 'final_model.pt').read_bytes()
  config = (PLAIN / 'beeg_config.json').read_bytes()
  for pair in _mutants(random.Random(2), model, config, 400):
    _try(tmp_path, *pair)
