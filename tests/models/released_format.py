"""Reads the recorded models of tests/data/released_format, without torch."""

import collections
import io
import json
import pathlib
import pickle
import zipfile

import numpy as np

from sparse_interp.models import GPTConfig

DIRECTORY = pathlib.Path(__file__).parent.parent / 'data' / 'released_format'

_STORAGES = {
  'FloatStorage': np.float32,
  'LongStorage': np.int64,
  'BoolStorage': np.bool_,
}


class _Unpickler(pickle.Unpickler):
  """Admits tensors and ordered dicts, nothing else."""

  def __init__(self, archive: zipfile.ZipFile, root: str):
    super().__init__(io.BytesIO(archive.read(f'{root}/data.pkl')))
    self._archive, self._root = archive, root

  def find_class(self, module, name):
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
      return _rebuild
    if module == 'torch' and name in _STORAGES:
      return _STORAGES[name]
    raise pickle.UnpicklingError(f'{module}.{name} is not admitted')

  def persistent_load(self, pid):
    _, dtype, key, _, _ = pid
    data = self._archive.read(f'{self._root}/data/{key}')
    return np.frombuffer(data, dtype)


def _rebuild(storage, offset, shape, strides, *_):
  strides = [stride * storage.itemsize for stride in strides]
  view = np.lib.stride_tricks.as_strided(storage[offset:], shape, strides)
  return view.copy()


def load_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a torch zip archive by name."""
  with zipfile.ZipFile(path) as archive:
    root = archive.namelist()[0].split('/')[0]
    return dict(_Unpickler(archive, root).load())


def load_config(path: pathlib.Path) -> GPTConfig:
  """The architecture of a released beeg_config.json."""
  released = json.loads(path.read_text())
  norm = 'rms' if released['rms_norm'] else 'layer'
  return GPTConfig(
    vocab_size=released['vocab_size'],
    n_layer=released['n_layer'],
    d_model=released['d_model'],
    d_head=released['d_head'],
    n_head=released['n_head'],
    d_mlp=released.get('d_mlp', released.get('n_mlp')),
    context_length=released['block_size'],
    norm=norm,
    activation=released['activation_type'],
    residual_activation=released['residual_activation_type'],
    tied_unembed=released['tied_unembed'],
    activation_density=released['afrac'],
    activation_sites=tuple(released['afrac_loctypes'].split(',')),
    sink=released.get('sink', False),
    bigram_table=released['enable_bigram_table'],
    position='concat' if released['d_pos_emb'] else 'added',
    d_position=released['d_pos_emb'],
    final_logits_bias='final_logits_bias' in released,
  )


def to_params(state_dict: dict[str, np.ndarray]) -> dict:
  """Our parameter tree: kernels are transposed, buffers are left out."""
  params = {}
  for name, tensor in state_dict.items():
    keys = name.removeprefix('transformer.').replace('h.', 'h_', 1).split('.')
    keys = [key for key in keys if key != 'attn_imp']
    if keys[-2:] == ['attn', 'bias']:  # the causal mask
      continue
    if keys[-1] == 'weight':
      if keys[0] in ('wte', 'wpe'):
        keys[-1] = 'embedding'
      elif tensor.ndim == 2:
        keys[-1], tensor = 'kernel', tensor.T
      else:
        keys[-1] = 'scale'
    branch = params
    for key in keys[:-1]:
      branch = branch.setdefault(key, {})
    branch[keys[-1]] = tensor
  return params
