"""A circuit as an ordinary model: removal written into its parameters.

Where a constant is read by a matrix, the matrix can do without it: the kernel
becomes W * g, and its bias takes value @ (W * (1 - g)). So are removed edges
folded, and removed nodes of act_in, v and post_act. Removed queries, keys and
writes become columns of zeros with a constant bias, if no AbsTopK acts there.

What no parameter can say stays an edit of the model call: nodes at `q`, `k` and
`resid_delta` that are frozen after AbsTopK, `final_resid`, which only a norm
reads, and, with attention sinks and AbsTopK, nodes at `v`: the constant reaches
the next matrix through attention weights that do not sum to 1. In a closed
model it does not, but removed nodes are kept out of AbsTopK.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from sparse_interp.circuits.gating.ablation import CONSTANT
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.gates import Gates, blend
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import (
  EdgeMatrix,
  competing_sites,
  edge_matrices,
  read_site,
)

# Key of GPTConfig.activation_sites for what a matrix writes.
_SPARSE = {
  'attn.q': 'attn_q',
  'attn.k': 'attn_k',
  'attn.v': 'attn_v',
  'attn.resid_delta': 'attn_out',
  'mlp.resid_delta': 'mlp_out',
}


def edit_model(
  model: GatedModel, gates: Gates
) -> tuple[GPTConfig, dict, dict[str, Partial]]:
  """Folds the gates of a circuit into parameters, as far as they go.

  Args:
    model: the model, with a constant ablation.
    gates: of the circuit, 0 or 1, as from `units.unfold`.

  Returns:
    Configuration (with biases), parameters and the edits that remain, for
    `GPT(config).apply({'params': params}, tokens, edits=edits)`. The edits can
    be arguments of a jitted function.

  Raises:
    ValueError: if the ablation takes values from other prompts or at random.
  """
  if model.ablation not in CONSTANT:
    raise ValueError(
      f'ablation must be one of {", ".join(CONSTANT)} to become parameters, '
      f'got {model.ablation!r}; run the gated model instead.'
    )
  config = dataclasses.replace(model.config, use_bias=True)
  params = jax.tree.map(lambda x: np.array(x, np.float64), model.params)
  gates = {name: np.asarray(gate, np.float64) for name, gate in gates.items()}
  edited = {'final_resid'} & gates.keys()
  for matrix in edge_matrices(config):
    block = matrix.block(params)
    bias = _bias(params, matrix)
    kept, constant = _fold(model, matrix, block, gates)
    block[:] = kept
    bias += constant
    if matrix.target not in gates or matrix.target.endswith('post_act'):
      continue
    if _is_dense(config, matrix):
      value = np.asarray(model.values[matrix.target], np.float64)
      gate = gates[matrix.target]
      block *= gate
      bias *= gate
      bias += (1 - gate) * value
    elif not matrix.target.endswith('attn.v') or (
      config.sink and not model.closed
    ):
      edited.add(matrix.target)
  edits = {
    site: Partial(blend, _single(gates[site]), value=model.values[site])
    for site in edited
  }
  if model.closed:
    for site in gates.keys() & competing_sites(config).keys():
      edits[f'{site}.raw'] = Partial(jnp.multiply, _single(gates[site]))
  return config, jax.tree.map(_single, params), edits


def _fold(model, matrix, block, gates):
  """Kernel without what is removed, and the constant that stands for it."""
  source, values = matrix.source, model.values
  kept, constant = block, np.zeros(block.shape[1])
  if matrix.name in gates:
    rows, columns = np.asarray(model.edges[matrix.name])
    kept = np.zeros_like(block)
    kept[rows, columns] = block[rows, columns] * gates[matrix.name]
    value = np.asarray(values[read_site(model.config, source)], np.float64)
    constant = value @ (block - kept)
  read = read_site(model.config, source)
  if source in gates and (model.closed or read == source):
    left = kept * gates[source][:, None]
    constant = constant + np.asarray(values[read], np.float64) @ (kept - left)
    kept = left
  return kept, constant


def _is_dense(config: GPTConfig, matrix: EdgeMatrix) -> bool:
  """Whether no AbsTopK acts on what a matrix writes."""
  name = _SPARSE[matrix.target.split('.', 1)[1]]
  width = matrix.stop - matrix.start
  return config.kept_activations(name, width) is None


def _bias(params: dict, matrix: EdgeMatrix) -> Float[np.ndarray, '_']:
  """View of a matrix's part of its bias, which is made if there is none."""
  for key in matrix.path[:-1]:
    params = params[key]
  bias = params.setdefault('bias', np.zeros(params['kernel'].shape[1]))
  return bias[matrix.start : matrix.stop]


def _single(array: np.ndarray) -> Float[Array, '...']:
  return jnp.asarray(array, jnp.float32)
