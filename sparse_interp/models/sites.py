"""Where nodes live: the named places of the forward pass and their matrices.

A site keeps the hook name of the published code. A node is one channel of one
site, an edge one nonzero weight between two nodes (arXiv 2511.13653, sections
2.2 and 4; the pairs counted are those of the published viewer).
"""

import dataclasses

from sparse_interp.models.config import GPTConfig


@dataclasses.dataclass(frozen=True)
class EdgeMatrix:
  """A weight matrix whose entries are the edges between two sites.

  Attributes:
    source: site that is read, along the rows of the kernel.
    target: site that is written, along the columns.
    path: keys of the kernel in the parameter tree.
    start: first column of the kernel that belongs to the target.
    stop: end of these columns.
  """

  source: str
  target: str
  path: tuple[str, ...]
  start: int
  stop: int


def node_sites(config: GPTConfig, final_resid: bool = True) -> dict[str, int]:
  """Returns {site: width} in the order of the forward pass.

  Args:
    config: the model.
    final_resid: whether the residual stream before the last norm counts, as
      it does in the released circuits.
  """
  sites = {}
  for layer in range(config.n_layer):
    sites[f'{layer}.attn.act_in'] = config.block_input_width
    sites[f'{layer}.attn.q'] = config.d_attn
    sites[f'{layer}.attn.k'] = config.d_attn
    sites[f'{layer}.attn.v'] = config.d_attn
    sites[f'{layer}.attn.resid_delta'] = config.d_model
    sites[f'{layer}.mlp.act_in'] = config.block_input_width
    sites[f'{layer}.mlp.post_act'] = config.mlp_width
    sites[f'{layer}.mlp.resid_delta'] = config.d_model
  if final_resid:
    sites['final_resid'] = config.d_model
  return sites


def edge_matrices(config: GPTConfig) -> list[EdgeMatrix]:
  """Returns the matrices whose nonzero weights are edges, in forward order.

  The write-to-read identity along the residual stream, the q-k products,
  biases, embedding and unembedding are not edges.
  """
  matrices = []
  width = config.d_attn
  for layer in range(config.n_layer):
    block = f'h_{layer}'
    for i, name in enumerate('qkv'):
      matrices.append(
        EdgeMatrix(
          f'{layer}.attn.act_in',
          f'{layer}.attn.{name}',
          (block, 'attn', 'c_attn', 'kernel'),
          i * width,
          (i + 1) * width,
        )
      )
    for source, target, path, stop in (
      ('attn.v', 'attn.resid_delta', ('attn', 'c_proj'), config.d_model),
      ('mlp.act_in', 'mlp.post_act', ('mlp', 'c_fc'), config.mlp_width),
      ('mlp.post_act', 'mlp.resid_delta', ('mlp', 'c_proj'), config.d_model),
    ):
      matrices.append(
        EdgeMatrix(
          f'{layer}.{source}',
          f'{layer}.{target}',
          (block, *path, 'kernel'),
          0,
          stop,
        )
      )
  return matrices
