"""Files of other people.

Where to look:
- `openai`: released weight-sparse models and their circuits;
- `hugging_face`: GPT-2 and GPT-NeoX, safetensors, tokenizers;
- `torch_file`: `.pt` files without torch;
- `mib`, `neuronpedia`, `graphml`: circuits for benchmarks and viewers;
- `source`: any of these models by its path; `remote`: from a distance;
- `own_tokenizer`: the tokenizer that belongs to a model.
- `moved`: where all this was before it had rooms, for scripts of that time.
"""

from typing import Any

from sparse_interp.interop import moved

moved.install()


def __getattr__(name: str) -> Any:
  return moved.exported(name)
