"""Prunes a model to the circuit of a behaviour, as one call."""

import dataclasses
import pathlib
import time
from typing import Any

import jax.numpy as jnp

from sparse_interp.circuits import few_pairs
from sparse_interp.circuits.ablation_names import NEED_MEANS
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.find import find_circuit
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.pruning import Progress
from sparse_interp.files import versions
from sparse_interp.models import sites
from sparse_interp.models.model import Means, Model
from sparse_interp.models.params_hash import hash_params
from sparse_interp.tasks.encoding import EncodedTask
from sparse_interp.tasks.posing import LENGTH, pose

Posed = tuple[EncodedTask, EncodedTask]


def prune(
  model: Model,
  task: Any,
  config: PruneConfig | None = None,
  seed: int = 0,
  *,
  train_pairs: int | None = None,
  test_pairs: int | None = None,
  length: int = LENGTH,
  progress: Progress | None = None,
) -> Circuit:
  """Finds the smallest circuit it can that carries a behaviour.

  Everything is fitted and chosen on training pairs; test pairs only measure.

  Args:
    model: to prune, with a tokenizer.
    task: with a `name` and `pairs(split, count, seed)`; see `tasks.posing`.
    config: hyper-parameters; None for the defaults, of which a task with few
      pairs gets as many for the search and for holding out as it can give.
    seed: of pairs, gates, batches, random circuits and bootstrap.
    train_pairs: to fit and choose on; None for 768, or for fewer where the
      task has no more.
    test_pairs: to measure on; None for 256, or for fewer.
    length: longest prompt in tokens; at most the model's context counts.
    progress: called now and then with a mapping of what there is to show.

  Returns:
    The circuit, with its metrics on the test pairs.

  Raises:
    ValueError: the task cannot be posed to this model, or the model does not
      solve it, or a hyper-parameter cannot be met.
  """
  context = model.config.context_length
  posed = tuple(
    pose(task, model.tokenizer, split, count, length, seed, context)
    for split, count in (('train', train_pairs), ('test', test_pairs))
  )
  if config is None:
    config = few_pairs.for_pairs(PruneConfig(), len(posed[0].conditions))
  return prune_posed(model, task, posed, config, seed, progress)


def prune_posed(
  model: Model,
  task: Any,
  posed: Posed,
  config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
  directory: pathlib.Path | None = None,
) -> Circuit:
  """Same for pairs that are tokens already.

  Args:
    model: to prune.
    task: where the pairs are from; a `description` and a `hash` of it are
      recorded with the circuit.
    posed: training pairs and test pairs.
    config: hyper-parameters.
    seed: of gates, batches, random circuits and bootstrap.
    progress: called now and then with a mapping of what there is to show.
    directory: for what becomes known on the way; see `find.find_circuit`.

  Raises:
    ValueError: see `find.find_units`.
  """
  begun, pairs_hash = time.monotonic(), hash_pairs(posed)
  circuit = find_circuit(
    model.config,
    model.params,
    means_for(model, config.ablation),
    *posed,
    config,
    seed,
    progress=progress,
    provenance=model.provenance
    | {
      'task_hash': getattr(task, 'hash', None) or pairs_hash,
      'pairs_hash': pairs_hash,
      'recipe': dataclasses.asdict(config),
      'versions': versions.current(),
    },
    pieces=model.tokenizer and model.tokenizer.pieces,
    description=getattr(task, 'description', ''),
    mean_tokens=model.mean_tokens,
    directory=directory,
  )
  seconds = time.monotonic() - begun
  return dataclasses.replace(
    circuit, provenance=circuit.provenance | {'prune_seconds': seconds}
  )


def means_for(model: Model, ablation: str) -> Means:
  """Means of a model; zeros where it has no text and none are asked for.

  Raises:
    ValueError: the ablation needs means, and there is no text.
  """
  has_text = model.windows is not None or model.known_means is not None
  if has_text or ablation in NEED_MEANS:
    return model.means
  widths = sites.constant_sites(model.config)
  return {site: jnp.zeros(width) for site, width in widths.items()}


def hash_pairs(posed: Posed) -> str:
  """Hash of the pairs of a task, as tokens."""
  return hash_params(
    {
      split: {'tokens': one.tokens, 'last': one.last, 'answers': one.answers}
      for split, one in zip(('train', 'test'), posed, strict=True)
    }
  )
