"""Three ways to run a circuit: their logits agree, whatever was removed.

gated      the whole model with gates
edited     the whole model with removal written into its parameters
extracted  the small dense model that is left of it
"""

import jax
import numpy as np

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.extracted import small_model
from sparse_interp.circuits.extracted.extract import shrink
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.ablation import CONSTANT, constants
from sparse_interp.circuits.gating.edited_model import edit_model
from sparse_interp.circuits.gating.gates import apply_gates
from sparse_interp.circuits.gating.task_loss import Pairs
from sparse_interp.circuits.units import Mask, Units
from sparse_interp.models import GPT
from sparse_interp.models.model import Model

# Prompts that are run, and the share of the units that a circuit keeps.
_PAIRS = 8
_SHARE = {'nodes': 0.2, 'edges': 0.2}


def largest_differences(
  model: Model, pairs: Pairs, seed: int
) -> dict[str, dict[str, float]]:
  """Largest |logit difference| between the three, at all positions.

  The circuits are random: they use every site and matrix.

  Args:
    model: the model.
    pairs: prompts; training pairs, for the means over a task.
    seed: of the circuits.

  Returns:
    {'nodes' or 'edges': {ablation: largest difference}}.
  """
  result = {}
  for gates in ('nodes', 'edges'):
    result[gates] = {}
    for ablation in CONSTANT:
      values = constants(
        model.config, model.params, model.means, ablation, pairs
      )
      gated = gated_model.make(model.config, model.params, values, ablation)
      units = units_lib.make(gated, gates)
      rng = np.random.default_rng(seed)
      keep = units.settle(rng.random(units.count) < _SHARE[gates])
      result[gates][ablation] = _difference(
        units, keep, pairs.take(np.arange(_PAIRS))
      )
  return result


def _difference(units: Units, keep: Mask, pairs: Pairs) -> float:
  model, gates = units.model, units.unfold(keep)
  config, tokens = model.config, pairs.inputs()['tokens']
  params, edits = apply_gates(
    config, model.params, model.edges, gates, model.values
  )
  run = lambda config, params, edits: jax.jit(  # noqa: E731
    lambda params: GPT(config).apply({'params': params}, tokens, edits)[0]
  )(params)
  gated = run(config, params, edits)
  edited = run(*edit_model(model, gates))
  parts = units.parts(keep)
  kept = parts.edges if units.on_edges else None
  small = shrink(
    config, model.params, parts.nodes, model.values, model.edges, kept
  )
  extracted = jax.jit(small_model.apply)(small, tokens)
  logits = [np.asarray(one) for one in (gated, edited, extracted)]
  return max(
    float(np.abs(one - other).max()) for one in logits for other in logits
  )
