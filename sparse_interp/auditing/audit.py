"""Puts a circuit on trial: what is measured of it, as a verdict."""

from typing import Any

import numpy as np

from sparse_interp.auditing import criteria
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.circuit import Circuit, parts_of_circuit
from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.faithfulness import evaluate
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.prune_task import hash_pairs
from sparse_interp.circuits.units import Mask, Units
from sparse_interp.files.verdict import Verdict
from sparse_interp.models.model import Model
from sparse_interp.models.sites import constant_sites
from sparse_interp.tasks.pairs import Task
from sparse_interp.tasks.posing import LENGTH, pose


def audit(
  model: Model,
  circuit: Circuit,
  task: Task,
  seed: int = 0,
  *,
  train_pairs: int | None = None,
  test_pairs: int | None = None,
  length: int = LENGTH,
  progress: Progress | None = None,
) -> Verdict:
  """Measures a circuit on test pairs and judges it by what was asked of it.

  What is asked is in `criteria`. Removed parts take what the circuit says they
  take.

  Args:
    model: that the circuit was found in.
    circuit: the circuit.
    task: of the suite, or read from a file.
    seed: of pairs, random circuits and bootstrap.
    train_pairs: that random circuits are calibrated on; None for as many as
      the search saw.
    test_pairs: to measure on; None for 256, or for as many as there are.
    length: longest prompt in tokens; at most the model's context counts.
    progress: called now and then with a mapping of what there is to show.

  Returns:
    The verdict.

  Raises:
    ValueError: the circuit is of another model, or the task cannot be posed.
  """
  check_of(model, circuit)
  if train_pairs is None:
    train_pairs = circuit.prune_config.get('selection_pairs', 128)
  context = model.config.context_length
  tokenizer = model.tokenizer
  train = pose(task, tokenizer, 'train', train_pairs, length, seed, context)
  test = pose(task, tokenizer, 'test', test_pairs, length, seed, context)
  gated = gated_model.make(
    model.config,
    model.params,
    _values(model, circuit),
    circuit.ablation['kind'],
    circuit.prune_config.get('products', 'auto'),
    circuit.closed,
  )
  metrics = evaluate(
    *units_of_circuit(gated, circuit),
    (circuit.scale, circuit.shift),
    make_pairs(train),
    make_pairs(test),
    test.conditions,
    seed,
    progress=progress,
    bounded=circuit.prune_config.get('bounded', False),
  )
  # Circuits of others do not say how they were searched for.
  asked = {'ablation': circuit.ablation['kind'], **circuit.prune_config}
  return Verdict(
    task.name,
    criteria.numbers(metrics, asked),
    criteria.holds_under(metrics, asked),
    {},
    {
      'params_hash': model.hash,
      'pairs_hash': hash_pairs((train, test)),
      'circuit_task': circuit.task,
      'pairs': {'train': train_pairs, 'test': metrics['test_pairs']},
      'random_circuits': metrics['random_circuits'],
      'seed': seed,
      'code_version': model.provenance['code_version'],
    },
  )


def check_of(model: Model, circuit: Circuit) -> None:
  """Raises ValueError unless a circuit was found in a model."""
  there = circuit.provenance.get('params_hash')
  if there is not None and there != model.hash:
    raise ValueError(
      f'circuit must be of this model, got one of another (params_hash {there} '
      f'instead of {model.hash}); load the model it was found in.'
    )


def units_of_circuit(model: GatedModel, circuit: Circuit) -> tuple[Units, Mask]:
  """The units that a circuit is of, and which of them it keeps."""
  final = 'final_resid' in circuit.sites
  tied = circuit.gates == 'nodes' and circuit.prune_config.get('tie_qk', False)
  units = units_lib.make(model, circuit.gates, final, tied)
  chosen: dict[str, Any] = {}
  if circuit.gates == 'edges':
    edges = parts_of_circuit(circuit, model.edges).edges
    chosen = {name: np.flatnonzero(kept) for name, kept in edges.items()}
  for site, kept in circuit.nodes.items():
    key = units.key_of(site)
    if key is not None:  # queries and keys may share their units
      chosen.setdefault(key, kept)
  return units, units.mask_of(chosen)


def _values(model: Model, circuit: Circuit) -> dict[str, Any]:
  """What removed parts take; the model's means where a circuit has none."""
  widths = constant_sites(model.config)
  values: dict[str, Any] = {**circuit.means}
  for site in widths.keys() - values.keys():
    # Where the last stream has no gates, nothing of it is ever removed.
    unused = site == 'final_resid' and site not in circuit.sites
    values[site] = np.zeros(widths[site]) if unused else model.means[site]
  return {site: np.asarray(values[site], np.float32) for site in widths}
