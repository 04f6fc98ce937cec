"""What is no GPT-2 or GPT-NeoX of ours is refused, in one line, by its name."""

import math
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from sparse_interp.interop.hugging_face import gpt2, gpt_neox
from tests.interop.hugging_face.hf_files import (
  ONE_FILE,
  edit_config,
  edit_tensors,
  module_of,
  shard,
  write_index,
)
from tests.interop.hugging_face.hf_reference import DIRECTORY


@pytest.mark.parametrize(
  ('hf_copy', 'change', 'expected'),
  [
    ('gpt2', {'norm': 'rms'}, r"model\.norm must be 'layer'.*got 'rms'"),
    ('gpt2', {'position': 'rotary'}, r"model\.position must be 'added'"),
    ('gpt2', {'activation_density': 0.5}, r'model\.activation_density'),
    ('gpt2', {'n_head': 2}, r'model\.d_head must be 12 .*got 8'),
    ('gpt_neox', {'sink': True}, r'model\.sink must be False'),
    ('gpt_neox', {'use_bias': False}, r'model\.use_bias must be True'),
  ],
  indirect=['hf_copy'],
)
def test_models_of_another_kind_are_not_written(hf_copy, change, expected):
  case, directory = hf_copy
  config, params = module_of(case).load(directory)
  before = {p.name: p.read_bytes() for p in directory.iterdir()}
  changed = type(config)(**{**vars(config), **change})
  with pytest.raises(ValueError, match=expected):
    module_of(case).save(directory, changed, params)
  assert {p.name: p.read_bytes() for p in directory.iterdir()} == before


def test_an_index_must_say_where_each_tensor_is(hf_copy):
  _, directory = hf_copy
  where = shard(directory)
  name = 'transformer.wpe.weight'
  right = where[name]
  for wrong in ('../other.safetensors', '/etc/passwd', 'x.bin', 3, None, ''):
    write_index(directory, where | {name: wrong})
    with pytest.raises(ValueError, match='must name files of its own') as info:
      gpt2.load(directory)
    assert '\n' not in str(info.value)
  write_index(directory, where | {name: 'model-00003-of-00002.safetensors'})
  with pytest.raises(ValueError, match=r'index\.json must .*got .*00003'):
    gpt2.load(directory)
  write_index(directory, where | {name: min(set(where.values()) - {right})})
  with pytest.raises(ValueError, match=rf'where each tensor is.*{name}'):
    gpt2.load(directory)
  write_index(directory, where | {'other': right})
  with pytest.raises(ValueError, match=r"where each tensor is.*'other'"):
    gpt2.load(directory)
  write_index(directory, {})
  with pytest.raises(ValueError, match='must have a weight_map'):
    gpt2.load(directory)


@pytest.mark.parametrize(
  ('hf_copy', 'fields', 'expected'),
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
  indirect=['hf_copy'],
)
def test_what_changes_the_computation_is_refused_by_name(
  hf_copy, fields, expected
):
  case, directory = hf_copy
  edit_config(directory, **fields)
  with pytest.raises(ValueError, match=expected) as info:
    module_of(case).load(directory)
  assert '\n' not in str(info.value)
  assert len(str(info.value)) < 500


def _set(name, value):
  return lambda arrays: arrays.update({name: value})


_BIAS = 'transformer.h.0.mlp.c_fc.bias'


@pytest.mark.parametrize(
  ('edit', 'expected'),
  [
    (lambda arrays: arrays.pop(_BIAS), r'hold h\.0\.mlp\.c_fc\.bias'),
    (_set('other', np.zeros(2, np.float32)), "before none, got 'other' and"),
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
def test_other_tensors_are_refused_by_name(hf_copy, edit, expected):
  _, directory = hf_copy
  edit_tensors(directory, edit)
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
    (ONE_FILE, None, f'must hold {ONE_FILE} or .*neither'),
    (ONE_FILE, b'', 'must be safetensors'),
    (ONE_FILE, (10**10).to_bytes(8, 'little') + b'{}', 'must be safetensors'),
  ],
)
def test_files_that_are_none_are_refused(hf_copy, name, content, expected):
  _, directory = hf_copy
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


@pytest.mark.slow
@hypothesis.given(
  st.sampled_from(['config.json', ONE_FILE]),
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
