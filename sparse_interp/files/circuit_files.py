"""The two files of a circuit: circuit.json, which is sealed, and circuit.npz.

A circuit that somebody made by hand may do without the hashes of either; what
it says is checked all the same by `circuits.circuit_check`.
"""

import functools

from sparse_interp.files import artifact

SCHEMA_VERSION = 1
JSON, NPZ = 'circuit.json', 'circuit.npz'
REMEDY = 'prune again, or restore it'

_FORMAT = artifact.Format(
  'circuit', JSON, NPZ, SCHEMA_VERSION, REMEDY, by_hand=True
)

# As those of `artifact`, without the format.
write = functools.partial(artifact.write, _FORMAT)
read = functools.partial(artifact.read, _FORMAT)
wrong = _FORMAT.wrong
