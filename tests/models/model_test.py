"""A model in memory: its means, what keeps them, and what it says of itself."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.models import model as model_lib
from sparse_interp.models.means import site_means
from tests import known_text


@pytest.fixture(scope='module')
def model():
  return known_text.make_model()


def test_means_are_those_over_its_windows(model):
  expected = site_means(model.config, model.params, np.split(model.windows, 2))
  assert model.means.keys() == expected.keys()
  for site, mean in expected.items():
    np.testing.assert_array_equal(model.means[site], mean)
  assert model.mean_tokens == 64 * 16


def test_means_that_came_along_are_taken_as_they_are(model):
  means = {site: mean + 1 for site, mean in model.means.items()}
  assert known_text.make_model(known_means=means).means is means


def test_a_model_is_one_line_that_says_where_it_is_from(model):
  assert repr(model).count('\n') == 0
  assert 'from memory' in repr(model)
  assert model.provenance['params_hash'] == model.hash
  assert model.provenance['tokenizer_hash'] == model.tokenizer.hash


def _count(monkeypatch):
  calls = []

  def counted(*args):
    calls.append(1)
    return site_means(*args)

  monkeypatch.setattr(model_lib, 'site_means', counted)
  return calls


def test_a_workdir_keeps_means(model, tmp_path, monkeypatch):
  calls = _count(monkeypatch)
  there = dataclasses.replace(model, workdir=tmp_path)
  first = there.means
  assert there.means is first
  again = dataclasses.replace(model, workdir=tmp_path).means
  assert len(calls) == 1
  for site, mean in first.items():
    np.testing.assert_array_equal(again[site], mean)
    assert again[site].dtype == jnp.float32


def test_means_of_another_model_or_text_are_taken_anew(
  model, tmp_path, monkeypatch
):
  _ = dataclasses.replace(model, workdir=tmp_path).means
  calls = _count(monkeypatch)
  windows = model.windows[:32]
  less = dataclasses.replace(model, workdir=tmp_path, windows=windows)
  expected = site_means(model.config, model.params, [windows])
  np.testing.assert_array_equal(less.means['0.attn.v'], expected['0.attn.v'])
  assert len(calls) == 1
  _ = dataclasses.replace(less).means  # these are kept now
  assert len(calls) == 1
  _ = dataclasses.replace(model, workdir=tmp_path).means
  assert len(calls) == 2


def test_a_file_that_no_run_wrote_stays_as_it_is(model, tmp_path):
  path = tmp_path / model_lib.MEANS
  path.write_text('mine')
  there = dataclasses.replace(model, workdir=tmp_path)
  np.testing.assert_array_equal(
    there.means['0.attn.v'], model.means['0.attn.v']
  )
  assert path.read_text() == 'mine'


def test_a_model_without_text_says_what_to_do():
  mute = known_text.make_model(windows=None)
  with pytest.raises(ValueError, match='windows must hold text') as error:
    _ = mute.means
  assert '\n' not in str(error.value)
  assert 'no text' in repr(mute)
