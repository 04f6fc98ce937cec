"""What the nodes of a gated model do while it answers."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, Int

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import (
  GatedModel,
  full_batches,
  run,
)
from sparse_interp.circuits.gating.gates import Gates


def watch(
  model: GatedModel,
  gates: Gates,
  batch: Batch,
  nodes: Mapping[str, Int[np.ndarray, '_']],
) -> tuple[
  Float[np.ndarray, 'size ...'], dict[str, Float[np.ndarray, 'prompts time _']]
]:
  """The answers of `gated_model.all_outputs`, and what gave them.

  Args:
    model: the model with its ablation.
    gates: by site and matrix; what is absent stays whole.
    batch: pairs or sequences.
    nodes: {site: channels}.

  Returns:
    Answers, and by site the values of these channels, after AbsTopK and
    ablation, float32, on all prompts.
  """
  answers, values = [], []
  for part, key in full_batches(batch):
    found = _run(model, dict(gates), part, key, dict(nodes))
    answers.append(np.asarray(found[0]))
    values.append({s: np.asarray(x, np.float32) for s, x in found[1].items()})
  prompts = batch.inputs()['tokens'].shape[0]
  seen = {
    site: np.concatenate([one[site] for one in values])[:prompts]
    for site in nodes
  }
  return np.concatenate(answers)[: batch.size], seen


@jax.jit
def _run(model, gates, batch, key, nodes):
  logits, seen = run(model, gates, batch, key)
  values = {site: seen[site][..., kept] for site, kept in nodes.items()}
  return batch.read(logits), values
