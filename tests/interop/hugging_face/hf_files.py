"""Directories of Hugging Face models, and what tests change in them."""

import json

import safetensors.numpy

from sparse_interp.interop.hugging_face import gpt2, gpt_neox
from tests.interop.hugging_face.hf_reference import CASES

MODULES = {'GPT2': gpt2, 'GPTNeoX': gpt_neox}
ONE_FILE = 'model.safetensors'


def module_of(case):
  """What reads and writes models like the recorded one."""
  return MODULES[CASES[case][0]]


def edit_config(directory, **fields):
  path = directory / 'config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_tensors(directory, edit):
  path = directory / ONE_FILE
  arrays = safetensors.numpy.load_file(path)
  edit(arrays)
  safetensors.numpy.save_file(arrays, path)


def shard(directory):
  """Splits the model into two files and an index."""
  arrays = safetensors.numpy.load_file(directory / ONE_FILE)
  names, where = sorted(arrays), {}
  for i in (1, 2):
    part = f'model-0000{i}-of-00002.safetensors'
    mine = {name: arrays[name] for name in names[i - 1 :: 2]}
    safetensors.numpy.save_file(mine, directory / part)
    where |= dict.fromkeys(mine, part)
  (directory / ONE_FILE).unlink()
  return where


def write_index(directory, where):
  index = {'metadata': {'total_size': 1}, 'weight_map': where}
  (directory / f'{ONE_FILE}.index.json').write_text(json.dumps(index))
