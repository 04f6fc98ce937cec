"""Circuits in the format of the MIB circuit track."""

from sparse_interp.interop.mib.mib import read, write
from sparse_interp.interop.mib.mib_graph import Importances, of_circuit

__all__ = ['Importances', 'of_circuit', 'read', 'write']
