"""The model with a known circuit, made to read text, and its behaviour.

Somewhere in a prompt stands an a or a b; after an a comes x, after a b, y.
"""

import json
import pathlib
import random

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.data.tokenizer import train_tokenizer
from sparse_interp.models import GPTConfig
from sparse_interp.models.model import Model
from sparse_interp.tasks.pairs import Pair, Task
from tests.circuits import known_model

# A handful of steps, few pairs.
CONFIG = PruneConfig(
  steps=60,
  batch_pairs=8,
  k_coef=1e-3,
  selection_pairs=16,
  holdout_pairs=16,
  attempts=1,
  calibrate='after',
  eliminate=False,
  init_attribution=0.0,
  min_necessity=None,
  products='dense',
)
PAIRS = {'train_pairs': 48, 'test_pairs': 32}

_FILLERS = 'cdefgh'


def _generate(rng: random.Random, condition: str) -> Pair:
  header = ''.join(rng.choices(_FILLERS, k=6)) + '):\n'
  before, after = (1, 3) if condition == 'early' else (3, 1)
  body = [''.join(rng.choices(_FILLERS, k=n)) for n in (before, after)]
  prompts = [header + evidence.join(body) for evidence in 'ab']
  return Pair(prompts[0], 'x', prompts[1], 'y', condition)


TASK = Task(
  name='evidence',
  description='x after an a, y after a b',
  conditions=('early', 'late'),
  generate=_generate,
)


def write_pairs(path: pathlib.Path, train: int, test: int) -> pathlib.Path:
  """A file with so many pairs of the task, for `read_task`."""
  lines = [
    {'prompts': pair.prompts, 'answers': pair.answers, 'split': split}
    for split, count in (('train', train), ('test', test))
    for pair in TASK.pairs(split, count, 0)
  ]
  path.write_text('\n'.join(map(json.dumps, lines)))
  return path


def make_model(**fields) -> Model:
  """The model in memory; `fields` replace those of `Model`."""
  tokenizer = train_tokenizer(['ab'], 257)
  config = GPTConfig(
    vocab_size=257,
    n_layer=1,
    d_model=8,
    d_head=4,
    d_mlp=8,
    context_length=16,
    norm='none',
    use_bias=False,
    activation_density=None,
    bigram_table=False,
  )
  params = known_model._params(config)
  rows = np.arange(257)
  names = known_model.EVIDENCE + known_model.ANSWERS
  for letter, row in zip('abxy', names, strict=True):
    (token,) = tokenizer.encode(letter)
    rows[[token, row]] = rows[[row, token]]
  embedding, unembed = params['wte'], params['lm_head']
  embedding['embedding'] = embedding['embedding'][rows]
  unembed['kernel'] = unembed['kernel'][:, rows]
  windows = np.random.default_rng(0).integers(0, 257, (64, 16), np.int32)
  given = {'tokenizer': tokenizer, 'windows': windows}
  params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
  return Model(config, params, **(given | fields))
