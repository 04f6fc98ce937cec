"""Models of other people: programs compiled with Tracr, and their truth."""

from sparse_interp.interop.edges import component_edges, edge_groups
from sparse_interp.interop.paths import path_weights
from sparse_interp.interop.program import CompiledProgram
from sparse_interp.interop.storage import load, save
from sparse_interp.interop.tracr import compile_program, convert

__all__ = [
  'CompiledProgram',
  'compile_program',
  'component_edges',
  'convert',
  'edge_groups',
  'load',
  'path_weights',
  'save',
]
