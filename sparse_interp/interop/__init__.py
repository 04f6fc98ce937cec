"""Files of other people.

Where to look:
- `openai`: released weight-sparse models and their circuits;
- `hugging_face`: GPT-2 and GPT-NeoX, safetensors, tokenizers;
- `torch_file`: `.pt` files without torch;
- `mib`, `neuronpedia`, `graphml`: circuits for benchmarks and viewers;
- `source`: any of these models by its path; `remote`: from a distance;
- `own_tokenizer`: the tokenizer that belongs to a model.

Scripts that were written before these had rooms of their own, and programs with
known circuits were here, still find all of it by `sparse_interp.interop.gpt2`,
`.openai_release`, `.tracr` and so on.
"""

import importlib
import pathlib
from typing import Any

_HERE = pathlib.Path(__file__).parent
_COMPILED = 'sparse_interp.ground_truth.compiled'
__path__ += [
  str(_HERE / 'openai'),
  str(_HERE / 'hugging_face'),
  *(str(_HERE.parent / 'ground_truth' / x) for x in ('compiled', 'planted')),
]
# What this room exported itself, and the module that has it.
_MOVED = {
  'CompiledProgram': 'program',
  'compile_program': 'tracr',
  'component_edges': 'edges',
  'convert': 'tracr',
  'edge_groups': 'edges',
  'load': 'storage',
  'path_weights': 'paths',
  'save': 'storage',
}


def __getattr__(name: str) -> Any:
  if name not in _MOVED:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module(f'{_COMPILED}.{_MOVED[name]}'), name)
