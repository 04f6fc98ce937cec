"""Records are what they are defined to be, however the text goes by."""

import types
from unittest import mock

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from sparse_interp.data.tokenizer import train_tokenizer
from sparse_interp.files import record_files
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.params_hash import hash_params
from sparse_interp.models.sites import node_sites
from sparse_interp.records import recording
from sparse_interp.records.recording import record
from sparse_interp.records.running import Running, Sizes
from tests.records.reference import assert_as_defined

CONFIG = GPTConfig(
  vocab_size=12,
  n_layer=1,
  d_model=8,
  d_head=4,
  context_length=8,
  activation_density=0.5,
)
SITE = '0.mlp.post_act'
SIZES = {'top': 3, 'quantiles': 3, 'per_quantile': 2, 'random': 4, 'length': 5}


@pytest.fixture(scope='module')
def model():
  tokens = jnp.zeros((1, 8), int)
  shapes = jax.eval_shape(GPT(CONFIG).init, jax.random.key(0), tokens)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32)),
    shapes['params'],
  )
  mlp = params['h_0']['mlp']
  # A dead neuron, and channels of the output that are always the same: one of
  # them is the largest, and the other none that AbsTopK keeps.
  kernel = mlp['c_fc']['kernel'].at[:, 3].set(0)
  mlp['c_fc'] = {'kernel': kernel, 'bias': mlp['c_fc']['bias'].at[3].set(0)}
  kernel = mlp['c_proj']['kernel'].at[:, :2].set(0)
  bias = mlp['c_proj']['bias'].at[0].set(1e3).at[1].set(1e-9)
  mlp['c_proj'] = {'kernel': kernel, 'bias': bias}
  # Few tokens: many windows begin alike, so that there are ties.
  windows = rng.integers(0, 12, (25, 8))
  return types.SimpleNamespace(
    config=CONFIG, params=params, tokenizer=None, windows=windows
  )


def all_activations(model, units):
  tokens = jnp.asarray(model.windows)
  _, seen = jax.jit(GPT(CONFIG).apply)({'params': model.params}, tokens)
  names = [name.split(':') for name in units]
  return np.stack([seen[site][..., int(i)] for site, i in names])


def written(records, directory):
  record_files.write(records, directory)
  return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_records_of_a_model_are_as_defined(model, monkeypatch):
  # The reference needs the activations of the same call.
  monkeypatch.setattr(recording, '_batch_size', lambda *_: 25)
  monkeypatch.setattr(recording, '_CHUNK', 8 * 25)
  sites = [*node_sites(CONFIG)]
  records = record(model, sites, **SIZES, seed=3)
  assert len(records.units) == sum(node_sites(CONFIG).values())
  activations = all_activations(model, records.units)
  assert_as_defined(records, activations, model.windows)

  dead = records.units.index(f'{SITE}:3')
  assert records.active[dead] == 0 == records.highest[dead]
  assert not records.edges[dead].any()
  assert len(records.rows(f'{SITE}:3')) == 4
  assert len(records.rows(f'{SITE}:3', 'random')) == 4
  constant = records.rows('0.mlp.resid_delta:0', 'quantile')
  np.testing.assert_array_equal(records.quantile[constant], [2, 2])
  tops = records.rows('0.mlp.resid_delta:0', 'top')
  np.testing.assert_array_equal(records.window[tops], [0, 1, 2])
  np.testing.assert_array_equal(records.start[tops], [0, 0, 0])
  zeroed = records.units.index('0.mlp.resid_delta:1')
  assert records.active[zeroed] == 0

  assert records.tokens_seen == 200
  assert records.model_hash == hash_params(model.params)
  assert records.model['d_model'] == 8


def test_bytes_are_the_same_twice_and_for_any_memory(model, tmp_path):
  units = [f'{SITE}:{i}' for i in range(4)] + ['0.attn.q:1', '0.attn.v:2']
  first = written(record(model, units, **SIZES), tmp_path / 'first')
  again = written(record(model, units, **SIZES), tmp_path / 'again')
  assert first == again
  # Passes of one unit, and of two.
  for memory, count in ((1, 6), (2 * 300_000, 3)):
    with mock.patch.object(
      recording, '_chunks', side_effect=recording._chunks
    ) as passes:
      found = record(model, units, **SIZES, memory=memory)
    assert passes.call_count == count
    assert written(found, tmp_path / str(memory)) == first


def test_a_unit_has_what_it_has_alone(model):
  among = record(model, [*node_sites(CONFIG)], **SIZES)
  alone = record(model, [f'{SITE}:5'], **SIZES)
  rows, at = among.rows(f'{SITE}:5'), among.units.index(f'{SITE}:5')
  for name in ('kind', 'quantile', 'window', 'start', 'position', 'values'):
    np.testing.assert_array_equal(
      getattr(among, name)[rows], getattr(alone, name)
    )
  for name in ('mean', 'active', 'lowest', 'highest', 'edges'):
    assert (getattr(among, name)[at] == getattr(alone, name)[0]).all()


def test_another_seed_chooses_others_but_the_same_tops(model):
  one, other = (record(model, [SITE], **SIZES, seed=seed) for seed in (0, 1))
  for kind, same in (('top', True), ('quantile', False), ('random', False)):
    rows = [
      np.stack([r.unit, r.window, r.start + r.position])[
        :, r.kind == record_files.KINDS.index(kind)
      ]
      for r in (one, other)
    ]
    assert np.array_equal(*rows) == same


# Few values, so that most are zero or alike; and all that a float can be.
VALUES = st.one_of(
  st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.001]),
  st.floats(-(2.0**99), 2.0**99, width=32),
)


@pytest.mark.slow
@hypothesis.settings(max_examples=30)
@hypothesis.given(
  data=st.data(),
  shape=st.tuples(st.integers(1, 40), st.integers(1, 7)),
  batch=st.integers(1, 9),
  chunk=st.integers(1, 60),
  memory=st.sampled_from([1, 10**6, 10**9]),
  sizes=st.tuples(*[st.integers(0, 4)] * 5),
)
def test_any_activations_in_any_batches(
  data, shape, batch, chunk, memory, sizes
):
  few = data.draw(st.lists(VALUES, min_size=1, max_size=6))
  rng = np.random.default_rng(data.draw(st.integers(0, 99)))
  activations = rng.choice(np.float32(few), (3, *shape))
  activations[0] *= rng.integers(0, 2, shape) * rng.standard_normal(shape)
  size = shape[0] * shape[1]
  model = types.SimpleNamespace(
    config=GPTConfig(vocab_size=size, n_layer=1, d_model=4, d_head=4),
    params={},
    tokenizer=None,
    windows=np.arange(size).reshape(shape),
  )

  # Every token is there once, so that it says where it is.
  def look_up(config, params, tokens, channels):
    assert tokens.shape == (batch, shape[1])
    flat = activations.reshape(3, -1)[:, np.asarray(tokens).ravel()]
    return {site: flat[np.asarray(kept)] for site, kept in channels.items()}

  top, quantiles, per_quantile, random, length = sizes
  arguments = {
    'units': [f'{SITE}:{i}' for i in range(3)],
    'top': top,
    'quantiles': quantiles + 1,
    'per_quantile': per_quantile,
    'random': random,
    'length': length + 1,
    'seed': data.draw(st.integers(0, 3)),
  }
  with (
    mock.patch.object(recording, '_activations', look_up),
    mock.patch.object(recording, '_batch_size', return_value=batch),
    mock.patch.object(recording, '_CHUNK', chunk),
    mock.patch.object(recording.frozen, 'freeze', lambda _, params: params),
  ):
    records = record(model, memory=memory, **arguments)
  assert records.length == min(length + 1, shape[1])
  assert_as_defined(records, activations, model.windows)


def test_what_does_not_fit_the_sample_is_left_to_its_lot():
  """More nonzero activations than are kept for the quantiles: 2 * 32 here."""
  values = np.random.default_rng(0).standard_normal((1, 50, 8), np.float32)
  values[0, :30] = 5.0
  model = types.SimpleNamespace(
    config=GPTConfig(vocab_size=400, n_layer=1, d_model=4, d_head=4),
    params={},
    tokenizer=None,
    windows=np.arange(400).reshape(50, 8),
  )
  with (
    mock.patch.object(
      recording,
      '_activations',
      lambda _, __, tokens, channels: {
        SITE: values[0].ravel()[np.asarray(tokens).ravel()][None]
      },
    ),
    mock.patch.object(recording, '_CHUNK', 40),
    mock.patch.object(recording, '_batch_size', return_value=4),
    mock.patch.object(recording.frozen, 'freeze', lambda _, params: params),
  ):
    records = record(
      model, [f'{SITE}:0'], top=2, quantiles=2, per_quantile=1, random=1
    )
  assert_as_defined(records, values, model.windows)


def test_memory_is_what_is_counted():
  sizes = Sizes(3, 4, 2, 5, length=6, window=7)
  assert sizes.sampled == 4 * (24 + 16)
  running = Running(['a:0', 'a:1'], sizes, seed=0)
  large = [running.histogram]
  for kept in (running.top, running.sample, running.random):
    large += [kept.rank, kept.place, kept.values]
  assert sum(array.nbytes for array in large) == 2 * sizes.bytes_of_unit


def test_pieces_are_those_of_the_tokens_in_excerpts(model, tmp_path):
  tokenizer = train_tokenizer(['def f(x):\n  return x\n'] * 9, 260)
  found = record(
    types.SimpleNamespace(**{**vars(model), 'tokenizer': tokenizer}),
    [SITE],
    **SIZES,
  )
  assert [*found.pieces] == sorted(set(found.tokens.ravel().tolist()))
  assert [*found.pieces.values()] == tokenizer.pieces([*found.pieces])
  assert found.tokenizer_hash == tokenizer.hash
  record_files.write(found, tmp_path)
  assert record_files.read(tmp_path).pieces == found.pieces


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'units': []}, 'units must be a list of names with at least one, got'),
    ({'units': '0.attn.q'}, 'units must be a list of names'),
    ({'units': ['0.attn.qq:1']}, "must name sites of the model, got '0.attn.q"),
    ({'units': ['0.attn.q:8']}, "channels from 0 to 7 of 0.attn.q, got '0.at"),
    ({'units': ['0.attn.q:-1']}, 'channels from 0 to 7'),
    ({'units': ['0.attn.q:']}, 'channels from 0 to 7'),
    ({'top': -1}, 'top must be at least 0, got -1'),
    ({'quantiles': 0}, 'quantiles must be at least 1, got 0'),
    ({'length': 0}, 'length must be at least 1, got 0'),
    ({'seed': -1}, 'seed must be at least 0, got -1'),
    ({'memory': 0}, 'memory must be at least 1, got 0'),
    ({'windows': np.zeros((2, 2))}, 'windows must be integers .* got float64'),
    ({'windows': np.zeros(3, int)}, 'windows must be integers'),
    ({'windows': np.zeros((0, 3), int)}, 'at least one, got int64 .0, 3.'),
    ({'windows': np.full((1, 3), 12)}, 'tokens from 0 to 11, got 12 to 12'),
    ({'windows': np.full((1, 3), -1)}, 'tokens from 0 to 11, got -1 to -1'),
  ],
)
def test_what_cannot_be_is_refused(model, changed, message):
  arguments = {'units': ['0.attn.q:1'], **changed}
  # The annotations would refuse some of these before: a user has none.
  inner = record.__wrapped__
  with pytest.raises(ValueError, match=message) as error:
    inner(model, **arguments)
  assert '\n' not in str(error.value)


def test_a_model_without_text_or_with_infinite_activations_is_refused(model):
  without = types.SimpleNamespace(**{**vars(model), 'windows': None})
  with pytest.raises(ValueError, match='windows must be given for a model'):
    record(without, [SITE])
  params = jax.tree.map(lambda x: x, model.params)
  params['wte'] = {'embedding': params['wte']['embedding'].at[5].set(jnp.nan)}
  broken = types.SimpleNamespace(**{**vars(model), 'params': params})
  with pytest.raises(ValueError, match=f'finite activations.*{SITE}:0'):
    record(broken, [f'{SITE}:0'])
