"""Files of other people, and models whose circuits are known.

Where to look:
- released weight-sparse models: `openai_release` (with `openai_config` and
  `openai_tensors`), their circuits `released_circuit` and `released_viewer`;
- `.pt` files without torch: `torch_file`, over `torch_archive` and
  `torch_unpickler`, and `torch_writer`;
- Hugging Face: `gpt2` and `gpt_neox`, over `hf_config` and `hf_tensors`;
- tokenizers: `bpe_files`;
- benchmarks and viewers: `mib`, `neuronpedia`, `graphml`;
- any of these by its path: `source`, from a distance `remote`;
- Tracr: `programs`, compiled by `compile`, converted by `tracr` and compared
  by `agreement`, kept by `storage`, which `program_checks` reads over; the
  truth is in `craft_graph`, `edges` and `paths`;
- `planted`: programs written into unused channels of a trained model.
"""

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
