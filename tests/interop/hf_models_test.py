"""GPT-2 and GPT-NeoX of other people compute here what they compute there."""

import json
import math
import shutil

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from sparse_interp.interop import gpt2, gpt_neox
from sparse_interp.models import GPT
from tests.interop import hf_reference
from tests.interop.hf_reference import CASES, DIRECTORY, our_logits

_MODULES = {'GPT2': gpt2, 'GPTNeoX': gpt_neox}
_ONE = 'model.safetensors'


def _module(case):
  return _MODULES[CASES[case][0]]


def _shapes(config):
  tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
  return jax.eval_shape(GPT(config).init, jax.random.key(0), tokens)['params']


@pytest.fixture
def copied(tmp_path, request):
  """(case, directory with a copy of it that a test may change)."""
  case = getattr(request, 'param', 'gpt2')
  shutil.copytree(DIRECTORY / case, tmp_path / case)
  return case, tmp_path / case


def _edit_config(directory, **fields):
  path = directory / 'config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _edit_tensors(directory, edit):
  path = directory / _ONE
  arrays = safetensors.numpy.load_file(path)
  edit(arrays)
  safetensors.numpy.save_file(arrays, path)


@pytest.mark.parametrize('case', CASES)
def test_recorded_logits_are_matched(case):
  config, params = _module(case).load(DIRECTORY / case)
  recorded = np.load(DIRECTORY / case / 'io.npz')
  found = our_logits(config, params, recorded['tokens'])
  np.testing.assert_allclose(found, recorded['logits'], atol=2e-5)
  assert np.abs(recorded['logits']).max() > 3
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
    lambda x: (x.shape, x.dtype), _shapes(config)
  )


@pytest.mark.parametrize('copied', CASES, indirect=True)
def test_saved_models_are_read_the_same_here_and_there(copied):
  case, directory = copied
  module = _module(case)
  config, params = module.load(DIRECTORY / case)
  shutil.rmtree(directory)
  module.save(directory, config, params)
  names = sorted(path.name for path in directory.iterdir())
  assert names == ['config.json', _ONE]
  modes = {(directory / name).stat().st_mode for name in names}
  assert len(modes) == 1
  again, same = module.load(directory)
  assert again == config
  jax.tree.map(np.testing.assert_array_equal, same, params)
  before = safetensors.numpy.load_file(DIRECTORY / case / _ONE)
  after = safetensors.numpy.load_file(directory / _ONE)
  jax.tree.map(np.testing.assert_array_equal, after, before)


@pytest.mark.parametrize('copied', CASES, indirect=True)
def test_transformers_reads_what_was_saved(copied):
  transformers = pytest.importorskip('transformers')
  case, directory = copied
  module = _module(case)
  module.save(directory, *module.load(DIRECTORY / case))
  model = transformers.AutoModelForCausalLM.from_pretrained(directory)
  recorded = np.load(DIRECTORY / case / 'io.npz')
  found = hf_reference.logits(model.eval(), recorded['tokens'].astype(int))
  np.testing.assert_allclose(found, recorded['logits'], atol=2e-5)


@pytest.mark.parametrize(
  ('copied', 'change', 'expected'),
  [
    ('gpt2', {'norm': 'rms'}, r"model\.norm must be 'layer'.*got 'rms'"),
    ('gpt2', {'position': 'rotary'}, r"model\.position must be 'added'"),
    ('gpt2', {'activation_density': 0.5}, r'model\.activation_density'),
    ('gpt2', {'n_head': 2}, r'model\.d_head must be 12 .*got 8'),
    ('gpt_neox', {'sink': True}, r'model\.sink must be False'),
    ('gpt_neox', {'use_bias': False}, r'model\.use_bias must be True'),
  ],
  indirect=['copied'],
)
def test_models_of_another_kind_are_not_written(copied, change, expected):
  case, directory = copied
  config, params = _module(case).load(directory)
  before = {p.name: p.read_bytes() for p in directory.iterdir()}
  changed = type(config)(**{**vars(config), **change})
  with pytest.raises(ValueError, match=expected):
    _module(case).save(directory, changed, params)
  assert {p.name: p.read_bytes() for p in directory.iterdir()} == before


@pytest.mark.parametrize('copied', ['gpt2', 'gpt_neox'], indirect=True)
def test_names_without_prefix_and_buffers_change_nothing(copied):
  case, directory = copied

  def edit(arrays):
    prefix = {'gpt2': 'transformer.', 'gpt_neox': 'gpt_neox.'}[case]
    for name in list(arrays):
      arrays[name.removeprefix(prefix)] = arrays.pop(name)
    if case == 'gpt2':
      arrays['h.0.attn.bias'] = np.ones((1, 1, 4, 4), bool)
      arrays['h.1.attn.masked_bias'] = np.array(-np.inf, np.float32)
      arrays['lm_head.weight'] = arrays['wte.weight'].copy()
    else:
      arrays['layers.0.attention.bias'] = np.ones((1, 1, 4, 4), bool)
      arrays['layers.1.attention.masked_bias'] = np.array(-1e9, np.float32)
      arrays['layers.1.attention.rotary_emb.inv_freq'] = np.zeros(3)

  _edit_tensors(directory, edit)
  config, params = _module(case).load(directory)
  expected, same = _module(case).load(DIRECTORY / case)
  assert config == expected
  jax.tree.map(np.testing.assert_array_equal, params, same)


@pytest.mark.parametrize('dtype', [np.float16, jnp.bfloat16])
def test_narrow_dtypes_are_widened_exactly(copied, dtype):
  _, directory = copied
  _, exact = gpt2.load(directory)

  def narrow(arrays):
    arrays.update({k: v.astype(dtype) for k, v in arrays.items()})

  _edit_tensors(directory, narrow)
  _, params = gpt2.load(directory)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(a, b.astype(dtype)),
    params,
    exact,
  )
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('float32')}


def _shard(directory):
  """Splits the model into two files and an index."""
  arrays = safetensors.numpy.load_file(directory / _ONE)
  names, where = sorted(arrays), {}
  for i in (1, 2):
    part = f'model-0000{i}-of-00002.safetensors'
    mine = {name: arrays[name] for name in names[i - 1 :: 2]}
    safetensors.numpy.save_file(mine, directory / part)
    where |= dict.fromkeys(mine, part)
  (directory / _ONE).unlink()
  return where


def _write_index(directory, where):
  index = {'metadata': {'total_size': 1}, 'weight_map': where}
  (directory / f'{_ONE}.index.json').write_text(json.dumps(index))


def test_shards_are_read_as_one(copied):
  case, directory = copied
  _write_index(directory, _shard(directory))
  _, params = gpt2.load(directory)
  _, same = gpt2.load(DIRECTORY / case)
  jax.tree.map(np.testing.assert_array_equal, params, same)


def test_an_index_must_say_where_each_tensor_is(copied):
  _, directory = copied
  where = _shard(directory)
  name = 'transformer.wpe.weight'
  right = where[name]
  for wrong in ('../other.safetensors', '/etc/passwd', 'x.bin', 3, None, ''):
    _write_index(directory, where | {name: wrong})
    with pytest.raises(ValueError, match='must name files of its own') as info:
      gpt2.load(directory)
    assert '\n' not in str(info.value)
  _write_index(directory, where | {name: 'model-00003-of-00002.safetensors'})
  with pytest.raises(ValueError, match=r'00003.*must be safetensors'):
    gpt2.load(directory)
  _write_index(directory, where | {name: min(set(where.values()) - {right})})
  with pytest.raises(ValueError, match=rf'where each tensor is.*{name}'):
    gpt2.load(directory)
  _write_index(directory, where | {'other': right})
  with pytest.raises(ValueError, match=r"where each tensor is.*'other'"):
    gpt2.load(directory)
  _write_index(directory, {})
  with pytest.raises(ValueError, match='must have a weight_map'):
    gpt2.load(directory)


@pytest.mark.parametrize(
  ('copied', 'fields', 'expected'),
  [
    ('gpt2', {'scale_attn_weights': False}, 'scale_attn_weights=True'),
    (
      'gpt2',
      {'scale_attn_by_inverse_layer_idx': True},
      'scale_attn_by_inverse_layer_idx=False, got True',
    ),
    ('gpt2', {'add_cross_attention': True}, 'add_cross_attention=False'),
    ('gpt2', {'pruned_heads': {'0': [1]}}, 'pruned_heads={}'),
    ('gpt2', {'quantization_config': {'bits': 4}}, 'quantization_config'),
    ('gpt2', {'model_type': 'gpt_neox'}, "model_type 'gpt2', got 'gpt_neox'"),
    ('gpt2', {'activation_function': 'silu'}, "activation_function.*'silu'"),
    ('gpt2', {'sliding_window': 4}, "'sliding_window'=4"),
    ('gpt2', {'n_head': 5}, '5 heads of a width of 24'),
    ('gpt2', {'n_head': 0}, '0 heads'),
    ('gpt2', {'n_layer': '2'}, "n_layer as int, got '2'"),
    ('gpt2', {'n_layer': True}, 'n_layer as int, got True'),
    ('gpt2', {'n_layer': None}, 'n_layer as int, got None'),
    ('gpt2', {'n_layer': 10**9}, r'hold h\.2\.ln_1\.weight'),
    ('gpt2', {'n_layer': 1}, r'alone.*h\.1'),
    ('gpt2', {'n_embd': 10**30, 'n_head': 1}, r'wte\.weight of shape'),
    ('gpt2', {'n_positions': 21}, r'wpe\.weight of shape \(21, 24\).*20, 24'),
    ('gpt2', {'layer_norm_epsilon': math.nan}, r'model\.norm_eps.*nan'),
    ('gpt2', {'tie_word_embeddings': False}, r'lm_head\.weight'),
    ('gpt_neox', {'attention_bias': False}, 'attention_bias=True, got False'),
    ('gpt_neox', {'rope_scaling': {'type': 'linear'}}, 'rope_scaling'),
    (
      'gpt_neox',
      {'rope_parameters': {'rope_type': 'yarn'}},
      'rope_type=.*yarn',
    ),
    ('gpt_neox', {'rope_parameters': {'factor': 2}}, 'factor=2'),
    (
      'gpt_neox',
      {'rotary_pct': 0.4, 'rope_parameters': None},
      r'model\.rotary_fraction.*0\.4, which rotates 3',
    ),
    ('gpt_neox', {'rope_parameters': {'rope_theta': math.inf}}, 'rotary_base'),
    ('gpt_neox', {'head_dim': 4}, 'head_dim 8.*got 4'),
    ('gpt_neox', {'hidden_act': 'quick_gelu'}, 'hidden_act'),
    ('gpt_neox', {'tie_word_embeddings': True}, 'embed_out.*equal to embed_in'),
  ],
  indirect=['copied'],
)
def test_what_changes_the_computation_is_refused_by_name(
  copied, fields, expected
):
  case, directory = copied
  _edit_config(directory, **fields)
  with pytest.raises(ValueError, match=expected) as info:
    _module(case).load(directory)
  assert '\n' not in str(info.value)
  assert len(str(info.value)) < 500


def test_old_fields_of_rotary_positions_mean_the_same(copied):
  _, directory = copied
  source = DIRECTORY / 'gpt_neox_variant'
  expected, _ = gpt_neox.load(source)
  for path in source.iterdir():
    shutil.copy(path, directory)
  _edit_config(
    directory, rope_parameters=None, rotary_pct=1, rotary_emb_base=100
  )
  assert gpt_neox.load_config(directory) == expected
  _edit_config(directory, rotary_pct=None, rotary_emb_base=None)
  config = gpt_neox.load_config(directory)
  assert (config.rotary_fraction, config.rotary_base) == (0.25, 10000)


def _set(name, value):
  return lambda arrays: arrays.update({name: value})


_BIAS = 'transformer.h.0.mlp.c_fc.bias'


@pytest.mark.parametrize(
  ('edit', 'expected'),
  [
    (lambda arrays: arrays.pop(_BIAS), r'hold h\.0\.mlp\.c_fc\.bias'),
    (_set('other', np.zeros(2, np.float32)), "alone, got 'other'"),
    (_set(_BIAS, np.zeros(95, np.float32)), r'\(96,\).*got \(95,\)'),
    (_set(_BIAS, np.zeros(96, np.int32)), 'F32 or F16 or BF16.*I32'),
    (_set(_BIAS, np.full(96, np.nan, np.float32)), 'finite numbers in h'),
    (
      _set('h.0.mlp.c_fc.bias', np.zeros(96, np.float32)),
      'one tensor under two names',
    ),
    (
      _set('lm_head.weight', np.zeros((61, 24), np.float32)),
      r'lm_head\.weight equal to wte\.weight',
    ),
    (
      _set('lm_head.weight', np.zeros((61, 23), np.float32)),
      r'lm_head\.weight of shape \(61, 24\)',
    ),
  ],
)
def test_other_tensors_are_refused_by_name(copied, edit, expected):
  _, directory = copied
  _edit_tensors(directory, edit)
  with pytest.raises(ValueError, match=expected) as info:
    gpt2.load(directory)
  assert '\n' not in str(info.value)


@pytest.mark.parametrize(
  ('name', 'content', 'expected'),
  [
    ('config.json', None, 'config.json must be readable'),
    ('config.json', b'\xff\xfe', 'must be json'),
    ('config.json', b'[' * 100_000, 'must be json'),
    ('config.json', b'[]', 'must be a json object, got list'),
    ('config.json', b'{"a": 1, "a": 2}', "once, got 'a' twice"),
    ('config.json', b'{"a": ' + b'1' * 5000 + b'}', 'must be json'),
    ('config.json', b' ' * (2**24 + 1), 'at most 16 MiB'),
    (_ONE, None, f'must hold {_ONE} or .*neither'),
    (_ONE, b'', 'must be safetensors'),
    (_ONE, (10**10).to_bytes(8, 'little') + b'{}', 'must be safetensors'),
  ],
)
def test_files_that_are_none_are_refused(copied, name, content, expected):
  _, directory = copied
  path = directory / name
  path.unlink() if content is None else path.write_bytes(content)
  with pytest.raises(ValueError, match=expected) as info:
    gpt2.load(directory)
  assert '\n' not in str(info.value)


@pytest.fixture(scope='module')
def mutable(tmp_path_factory):
  directory = tmp_path_factory.mktemp('mutable') / 'gpt_neox'
  shutil.copytree(DIRECTORY / 'gpt_neox', directory)
  return directory


@hypothesis.given(
  st.sampled_from(['config.json', _ONE]),
  st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)),
    min_size=1,
    max_size=4,
  ),
  st.booleans(),
)
@hypothesis.settings(max_examples=300)
def test_mutated_files_load_or_are_refused_in_one_line(
  mutable, name, edits, cut
):
  content = (DIRECTORY / 'gpt_neox' / name).read_bytes()
  mutated = bytearray(content)
  # The header of the tensors, at the start, is what is read with most care.
  span = min(len(content), 4000)
  for where, replacement in edits:
    at = int(where * span)
    mutated[at : at + len(replacement)] = replacement
  if cut:
    del mutated[int(edits[0][0] * len(mutated)) :]
  (mutable / name).write_bytes(mutated)
  try:
    gpt_neox.load(mutable)
  except ValueError as error:
    assert '\n' not in str(error)  # noqa: PT017
  finally:
    (mutable / name).write_bytes(content)


_SIZES = {
  'gpt2': (12, 768, 12, 124_439_808),
  'gpt2-medium': (24, 1024, 16, 354_823_168),
  'gpt2-large': (36, 1280, 20, 774_030_080),
  'gpt2-xl': (48, 1600, 25, 1_557_611_200),
}
_PYTHIA = {
  'pythia-70m': (6, 512, 8, 2048, 50304, 70_426_624),
  'pythia-410m': (24, 1024, 16, 4096, 50304, 405_334_016),
  'pythia-6.9b': (32, 4096, 32, 16384, 50432, 6_857_302_016),
}


def _gpt2_fields(layers, width, heads):
  return {'n_layer': layers, 'n_embd': width, 'n_head': heads}


def _neox_fields(layers, width, heads, neurons, vocab):
  return {
    'num_hidden_layers': layers,
    'hidden_size': width,
    'num_attention_heads': heads,
    'intermediate_size': neurons,
    'vocab_size': vocab,
  }


@pytest.mark.parametrize('name', [*_SIZES, *_PYTHIA])
def test_published_sizes_have_their_numbers_of_parameters(tmp_path, name):
  *size, count = (_SIZES | _PYTHIA)[name]
  if name in _SIZES:
    module, fields = gpt2, {'vocab_size': 50257, **_gpt2_fields(*size)}
  else:
    module, fields = gpt_neox, _neox_fields(*size)
  fields['model_type'] = module.__name__.split('.')[-1]
  (tmp_path / 'config.json').write_text(json.dumps(fields))
  config = module.load_config(tmp_path)
  shapes = _shapes(config)
  assert sum(x.size for x in jax.tree.leaves(shapes)) == count
  ours = {
    tuple(key.key for key in path): x.shape
    for path, x in jax.tree.leaves_with_path(shapes)
  }
  sizes = {w.path: math.prod(w.shape) for w in module.weights(config)}
  assert sizes == {path: math.prod(shape) for path, shape in ours.items()}


def _compare_with_transformers(directory, kind, fields, tokens, scale=0.3):
  model = hf_reference.make(kind, scale, **fields)
  model.save_pretrained(directory)
  expected = hf_reference.logits(model, tokens)
  del model
  found = our_logits(*_MODULES[kind].load(directory), tokens)
  difference = np.abs(found - expected).max()
  print(f'\n{kind} {fields}: max |logit difference| {difference:.2g}', end=' ')
  print(f'with logits up to {np.abs(expected).max():.3g}')
  assert difference <= 1e-4
  assert np.abs(expected).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize('name', ['gpt2', 'pythia-70m'])
def test_real_configurations_give_the_logits_of_transformers(tmp_path, name):
  *size, _ = (_SIZES | _PYTHIA)[name]
  if name == 'gpt2':
    kind, fields = 'GPT2', _gpt2_fields(*size)
  else:
    kind, fields = 'GPTNeoX', _neox_fields(*size)
  tokens = hf_reference.draw_tokens(50000, 1, 256)
  # As released models are initialised, but for biases and gains.
  scale = 0.02 * (size[1] / 24) ** 0.5
  _compare_with_transformers(tmp_path, kind, fields, tokens, scale)


@pytest.mark.slow
@pytest.mark.parametrize('parallel', [True, False])
@pytest.mark.parametrize('share', [0.25, 0.5, 1.0])
def test_switches_of_gpt_neox_give_the_logits_of_transformers(
  tmp_path, parallel, share
):
  *size, _ = _PYTHIA['pythia-70m']
  size[0], size[1], size[3], size[4] = 2, 128, 512, 300
  fields = _neox_fields(*size) | {
    'use_parallel_residual': parallel,
    'rotary_pct': share,
  }
  tokens = hf_reference.draw_tokens(300, 2, 200)
  _compare_with_transformers(tmp_path, 'GPTNeoX', fields, tokens)
