"""Prunes a model to the circuit of a behaviour, as one call."""

import dataclasses
import pathlib
import time

import jax.numpy as jnp

from sparse_interp.circuits import few_pairs
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.find import find_circuit
from sparse_interp.circuits.gating.ablation_names import needs_means
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.files import versions
from sparse_interp.models import sites
from sparse_interp.models.model import Means, Model
from sparse_interp.models.params_hash import hash_params
from sparse_interp.tasks.encoding import EncodedTask
from sparse_interp.tasks.pairs import Task
from sparse_interp.tasks.posing import LENGTH, pose

Posed = tuple[EncodedTask, EncodedTask]


def prune(
  model: Model,
  task: Task,
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
    task: of the suite, or read from a file.
    config: hyper-parameters; None for the defaults.
    seed: of pairs, gates, batches, random circuits and bootstrap.
    train_pairs: to fit and choose on; None for 768, or for as many as a file
      has.
    test_pairs: to measure on; None for 256, or for as many as a file has.
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
  return prune_posed(
    model, task, posed, config or PruneConfig(), seed, progress
  )


def prune_posed(
  model: Model,
  task: Task,
  posed: Posed,
  config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
  directory: pathlib.Path | None = None,
) -> Circuit:
  """Same for pairs that are tokens already.

  Args:
    model: to prune.
    task: where the pairs are from.
    posed: training pairs and test pairs.
    config: hyper-parameters; of a task whose pairs are listed, shares of few
      pairs take the place of numbers: see `few_pairs`.
    seed: of gates, batches, random circuits and bootstrap.
    progress: called now and then with a mapping of what there is to show.
    directory: for what becomes known on the way; see `find.find_circuit`.

  Raises:
    ValueError: see `find.find_units`.
  """
  begun = time.monotonic()
  if task.listed is not None:
    config = few_pairs.for_pairs(config, len(posed[0].conditions))
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
      'task_hash': task.hash,
      'pairs_hash': hash_pairs(posed),
      'recipe': dataclasses.asdict(config),
      'versions': versions.current(),
    },
    pieces=model.tokenizer and model.tokenizer.pieces,
    description=task.description,
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
  if has_text or needs_means(ablation):
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
