"""Models in the released format of openai/circuit_sparsity, both ways.

A model is a directory with `beeg_config.json` and `final_model.pt` (or
`model.safetensors`, as on Hugging Face). Torch is not needed.
"""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sparse_interp.interop.openai import openai_config, openai_files
from sparse_interp.interop.openai.openai_files import wrong
from sparse_interp.interop.openai.openai_tensors import Slot, slots
from sparse_interp.interop.torch_file import copying, torch_file
from sparse_interp.models import GPTConfig
from sparse_interp.models.gpt import sinusoidal_positions

_log = logging.getLogger(__name__)

_WTE, _WPE = 'transformer.wte.weight', 'transformer.wpe.weight'
_HEAD = openai_files.HEAD
_DTYPES = ('float32', 'bfloat16', 'float16')


def load(directory: str | os.PathLike) -> tuple[GPTConfig, dict]:
  """Reads a released model.

  Fields and tensors of released models that do not matter here (training
  switches, buffers with the causal mask) are left out and logged. Frozen
  sinusoids become a table unless they are exactly ours; position tables of
  negative zeros, which change nothing, become no positions.

  Args:
    directory: with the configuration and the tensors.

  Returns:
    The configuration and the parameters of `GPT`, float32 arrays of jax. On the
    CPU they are the mapped file, in its own layout, and no copy; the file may
    be replaced or removed, but must not be written to while they are in use.

  Raises:
    OSError: if a file is missing or cannot be read.
    ValueError: if one is damaged, or something in it is missing, unknown, or
      not what the configuration says.
  """
  directory = pathlib.Path(directory)
  config_path, fields = openai_config.read_config(directory)
  path, tensors, size = openai_files.open_tensors(directory)
  config = openai_config.from_released(config_path, fields, tensors)
  _check_size(path, config, tensors)
  tensors = _without_buffers(path, config, tensors)
  table = slots(config)
  _check(path, table, tensors, size)
  config = _with_positions(path, config, fields, tensors)
  table = slots(config)
  params = {}
  for name, slot in table.items():
    branch = params
    for key in slot.path[:-1]:
      branch = branch.setdefault(key, {})
    array = tensors[name].get()
    branch[slot.path[-1]] = copying.to_jax(
      array.T if slot.transposed else array
    )
  return config, params


def save(
  directory: str | os.PathLike,
  config: GPTConfig,
  params: Mapping[str, Any],
  tokenizer_name: str = 'tinypython_2k',
) -> None:
  """Writes a model in the released format; `load` gives the same back.

  A model without positions gets a table of negative zeros, because the
  published code always adds one.

  Args:
    directory: made if missing.
    config: the model.
    params: its parameters.
    tokenizer_name: what the configuration calls the tokenizer.

  Raises:
    OSError: if the files cannot be written.
    ValueError: if the format has no room for such a model, or the parameters
      are not its own.
  """
  directory = pathlib.Path(directory)
  fields = openai_config.to_released(config, tokenizer_name)
  state = {}
  for name, slot in slots(config).items():
    state[name] = _stored(params, slot)
  count = len(jax.tree.leaves(params))
  if count != len(state):
    raise ValueError(
      f'params must have the {len(state)} arrays of the model, got {count}; '
      'pass the configuration that belongs to them.'
    )
  length, width = config.context_length, config.d_model
  if config.position == 'none':
    state[_WPE] = np.full((length, width), -0.0, np.float32)
  elif config.position == 'concat_sinusoidal':
    assert config.d_position is not None  # checked by GPTConfig
    state[_WPE] = sinusoidal_positions(length, config.d_position)
  if config.tied_unembed:
    state[_HEAD] = state[_WTE]
  directory.mkdir(parents=True, exist_ok=True)
  # Without its configuration, no directory is a model.
  (directory / openai_config.NAMES[0]).unlink(missing_ok=True)
  torch_file.write(directory / openai_files.TORCH, state)
  openai_config.write_config(directory, fields)


def _stored(params: Mapping[str, Any], slot: Slot) -> np.ndarray:
  value: Any = params
  for key in slot.path:
    value = value.get(key) if isinstance(value, Mapping) else None
  name = '/'.join(slot.path)
  shape = slot.shape[::-1] if slot.transposed else slot.shape
  if not hasattr(value, 'shape') or value.shape != shape:
    found = getattr(value, 'shape', 'nothing')
    raise ValueError(
      f'params must have {name} of shape {shape}, got {found}; pass the '
      'configuration that belongs to them.'
    )
  if str(value.dtype) != 'float32':
    raise ValueError(
      f'params must have {name} in float32, got {value.dtype}; convert it.'
    )
  # Without a copy, whatever its layout, and none that jax would keep.
  device = getattr(value, 'device', None)
  on_cpu = getattr(device, 'platform', None) == 'cpu'
  value = np.from_dlpack(value) if on_cpu else np.asarray(value)
  return value.T if slot.transposed else value


def _check_size(path, config, tensors):
  """Before anything is made by the numbers of the configuration alone."""
  if config.n_layer > len(tensors):
    found = f'{len(tensors)} tensors'
    raise wrong(path, f'hold {config.n_layer} layers', found)


def _without_buffers(path, config, tensors):
  """Tensors less causal masks, and less the second name of a tied matrix."""
  masks = {f'transformer.h.{i}.attn.bias' for i in range(config.n_layer)}
  masks &= tensors.keys()
  if masks:
    _log.warning('%s: %d causal masks (attn.bias) not used.', path, len(masks))
  tensors = {n: t for n, t in tensors.items() if n not in masks}
  if config.tied_unembed and _HEAD in tensors:
    head = tensors.pop(_HEAD)
    wte = tensors.setdefault(_WTE, head)
    if wte is not head and not _equal(wte, head):
      raise wrong(path, f'have {_HEAD} equal {_WTE}, being tied', 'others')
  return tensors


def _equal(first, second):
  if (first.shape, first.dtype) != (second.shape, second.dtype):
    return False
  return np.array_equal(first.get(), second.get(), equal_nan=True)


def _check(path, table, tensors, size):
  for names, constraint in (
    (table.keys() - tensors.keys(), 'hold every tensor of its configuration'),
    (tensors.keys() - table.keys(), 'hold no tensors but those of its config'),
  ):
    if names:
      missing = 'no ' if names <= table.keys() else ''
      listed = ', '.join(f'{name:.80}' for name in sorted(names)[:3])
      more = f' and {len(names) - 3} more' if len(names) > 3 else ''
      raise wrong(path, constraint, f'{missing}{listed!r}{more}')
  for name, slot in table.items():
    tensor = tensors[name]
    if tensor.shape != slot.shape:
      constraint = f'have {name} of shape {slot.shape}'
      raise wrong(path, constraint, tensor.shape)
    if tensor.dtype not in _DTYPES:
      constraint = f'have {name} in {", ".join(_DTYPES)}'
      raise wrong(path, constraint, tensor.dtype)
  numbers = sum(np.prod(slot.shape) for slot in table.values())
  # Two bytes at least for each, unless tensors share their bytes.
  if 2 * numbers > size:
    found = f'{size:,} bytes'
    raise wrong(path, f'hold {numbers:,} numbers, each its own', found)


def _with_positions(path, config, fields, tensors):
  """The kind of positions, by what their table says."""
  table = np.asarray(tensors[_WPE].get(), np.float32)
  if config.position == 'added':
    if np.all((table == 0) & np.signbit(table)):
      return dataclasses.replace(config, position='none')
    return config
  if not fields['sinusoidal_cat_pos_emb']:
    return config
  if config.d_position % 2 == 0 and np.array_equal(
    table, sinusoidal_positions(*table.shape)
  ):
    return dataclasses.replace(config, position='concat_sinusoidal')
  _log.warning('%s: frozen sinusoids are read as a table.', path)
  return config
