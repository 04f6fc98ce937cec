"""Makes a circuit complete: the model must not do without it.

A circuit that suffices may still leave a second way to the answer in the rest
of the model. Units of that second way are added, the ones whose removal is
estimated to hurt the rest most first, until the rest no longer knows.
"""

import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import all_outputs, gate_slopes
from sparse_interp.circuits.unfinished import Unfinished, question
from sparse_interp.circuits.units import Mask, Units

# A batch of pairs gives the estimates; this many rounds of them are made, and
# each adds at most so many units before the next.
_GRADIENT_PAIRS = 16
_ROUNDS = 16
_ADDED_PER_ROUND = 8


def add_until_necessary(
  units: Units,
  keep: Mask,
  batch: Batch,
  floor: float,
  unfinished: Unfinished | None = None,
  bounded: bool = False,
) -> Mask:
  """Adds units until ablating the circuit raises the loss to `floor`.

  Args:
    units: of the model.
    keep: the circuit.
    batch: training pairs.
    floor: loss that the model without the circuit must reach; at most ln 2
      can be asked of a model that is left with no preference.
    unfinished: keeps what was measured for a search that is interrupted.
    bounded: whether the rest must lose under a scale within bounds and a shift
      of its own, instead of raw: a mere bias raises a raw loss.

  Returns:
    The circuit with what was added; the floor may be missed when rounds run
    out.
  """
  unfinished = unfinished or Unfinished()
  few = batch.take(np.arange(min(_GRADIENT_PAIRS, batch.size)))

  # Of several ablations, the first says what the model can do without a part.
  units = units.by_kind()[0]

  def rest(keep):
    return unfinished.recall(
      question('rest', keep), lambda: rest_loss(units, keep, batch, bounded)
    )

  def best_to_add(keep):
    def compute():
      gates = units.gates_of_rest(keep)
      slopes = gate_slopes(units.model, gates, few, *rest(keep)[1:])
      gain = np.where(keep, -np.inf, -units.slopes(slopes))
      return np.argsort(-gain, kind='stable')[:_ADDED_PER_ROUND].tolist()

    return unfinished.recall(question('add', keep), compute)

  for _ in range(_ROUNDS):
    if rest(keep)[0] >= floor:
      break
    best = best_to_add(keep)
    added = 1
    while True:
      trial = keep.copy()
      trial[best[:added]] = True
      if added >= _ADDED_PER_ROUND or rest(trial)[0] >= floor:
        break
      added *= 2
    keep = trial
  return keep


def rest_loss(
  units: Units, keep: Mask, batch: Batch, bounded: bool
) -> list[float]:
  """[loss, scale, shift] of the model without a circuit.

  Args:
    units: of the model; of several ablations the first counts.
    keep: the circuit.
    batch: training pairs.
    bounded: as in `add_until_necessary`; else scale 1 and shift 0.
  """
  units = units.by_kind()[0]
  answers = all_outputs(units.model, units.gates_of_rest(keep), batch)
  fitted = batch.calibrate(answers, np.inf) if bounded else (1.0, 0.0)
  return [float(jnp.mean(batch.losses(answers, *fitted))), *map(float, fitted)]
