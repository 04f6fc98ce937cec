"""Takes a circuit out of a model, as one call."""

from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.extracted.extract import extract_circuit
from sparse_interp.circuits.extracted.small_arrays import SmallModel
from sparse_interp.models.model import Model


def extract(model: Model, circuit: Circuit) -> SmallModel:
  """The small dense model of a circuit, with the circuit's own logits.

  Args:
    model: that the circuit was found in.
    circuit: the circuit.

  Returns:
    The small model; run it with `small_model.apply`. Scale and shift are not
    part of it: they act on differences of answer logits.

  Raises:
    ValueError: the circuit is of another model.
  """
  return extract_circuit(circuit, model.params)
