"""Circuits that an earlier run found in a workdir: which of them stand."""

import pathlib
from collections.abc import Iterable

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.files import versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models.model import Model
from sparse_interp.models.params_hash import hash_params
from sparse_interp.training import metrics

_PHASE = 'prune'


def say_versions(circuits: Iterable[Circuit | None]) -> None:
  """Says it where circuits found earlier were found by other versions."""
  for circuit in filter(None, circuits):
    then = [
      {'versions': circuit.provenance.get('versions', versions.current())}
    ]
    if changed := versions.difference(then, versions.current()):
      metrics.say(
        _PHASE, f'other versions from the circuits still missing on: {changed}'
      )
      return


def load_own(
  directory: pathlib.Path, model: Model, name: str
) -> Circuit | None:
  """Reads a circuit found earlier; None if it is missing or damaged.

  Raises:
    ValueError: it was found in another model, or by another version.
  """
  if not (directory / 'circuit.json').exists():
    return None
  try:
    circuit = _load_of_task(directory, name)
  except ValueError as error:
    if 'schema_version' in str(error):  # whole, but of another version
      raise
    metrics.say(_PHASE, f'{name:<28} is found anew: {error}')
    return None
  found = circuit.provenance['params_hash']
  asked = hash_params(model.params)
  if found != asked:
    raise ValueError(
      f'workdir must hold circuits of this model, got {directory} of another '
      f'(params_hash {found[:12]} instead of {asked[:12]}); choose another '
      'workdir or delete its circuits.'
    )
  return circuit


def _load_of_task(directory: pathlib.Path, name: str) -> Circuit:
  """Reads a circuit; raises ValueError unless it is whole and of this task."""
  circuit = circuit_lib.load(directory)
  if circuit.task != name:
    raise ValueError(
      f'{directory} must hold the circuit of {name}, got one of '
      f'{circuit.task}; prune again.'
    )
  return circuit


def is_complete(workdir: str | pathlib.Path) -> bool:
  """Whether pruning has finished here, and all that it found is there."""
  summary = workdir_lib.read_summary(workdir)
  if 'learned_tasks' not in summary:
    return False
  for name, entry in summary['tasks'].items():
    if entry['circuit'] is None and 'failed_circuit' not in entry:
      continue
    try:
      circuit = _load_of_task(pathlib.Path(workdir) / 'circuits' / name, name)
    except ValueError:
      return False
    if circuit.provenance['params_hash'] != summary['params_hash']:
      return False
  return True
