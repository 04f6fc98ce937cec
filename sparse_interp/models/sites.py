"""Where nodes live: the named places of the forward pass and their matrices.

A site keeps the hook name of the published code. A node is one channel of one
site, an edge one nonzero weight between two nodes (arXiv 2511.13653, sections
2.2 and 4; the pairs counted are those of the published viewer).
"""

import dataclasses
from typing import Any

from sparse_interp.models.config import GPTConfig

_ARROW = '->'

# {site: its name among GPTConfig.activation_sites}.
_ACTIVATION_SITE = {
  'attn.act_in': 'attn_in',
  'attn.q': 'attn_q',
  'attn.k': 'attn_k',
  'attn.v': 'attn_v',
  'attn.resid_delta': 'attn_out',
  'mlp.act_in': 'mlp_in',
  'mlp.post_act': 'mlp_neuron',
  'mlp.resid_delta': 'mlp_out',
}


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

  @property
  def name(self) -> str:
    """Key under which gates on its nonzero weights are kept."""
    return edge_name(self.source, self.target)

  def block(self, params: dict) -> Any:
    """Its (source width, target width) part of a kernel."""
    for key in self.path:
      params = params[key]
    return params[:, self.start : self.stop]

  def replace_block(self, params: dict, block: Any) -> dict:
    """Parameters with another part of the kernel; `params` stays as it is."""

    def replaced(node, path):
      if not path:
        if (self.start, self.stop) == (0, node.shape[1]):
          return block
        return node.at[:, self.start : self.stop].set(block)
      return {**node, path[0]: replaced(node[path[0]], path[1:])}

    return replaced(params, self.path)


def edge_name(source: str, target: str) -> str:
  """Name of the matrix between two sites; see `edge_ends`."""
  return f'{source}{_ARROW}{target}'


def is_matrix(key: str) -> bool:
  """Whether a key is the name of a matrix, as opposed to that of a site."""
  return _ARROW in key


def edge_ends(name: str) -> tuple[str, str]:
  """(source, target) of the matrix of this name.

    >>> edge_ends('0.mlp.act_in->0.mlp.post_act')
    ('0.mlp.act_in', '0.mlp.post_act')

  Raises:
    ValueError: if it is not the name of a matrix.
  """
  source, target = name.split(_ARROW)
  return source, target


def tied_key(site: str) -> str:
  """Key of what queries and keys share; other sites keep their names.

  >>> tied_key('0.attn.q'), tied_key('0.attn.k'), tied_key('0.attn.v')
  ('0.attn.qk', '0.attn.qk', '0.attn.v')
  """
  return f'{site[:-1]}qk' if site.endswith(('attn.q', 'attn.k')) else site


def tied_sites(key: str) -> tuple[str, ...]:
  """The sites that a key of nodes stands for; see `tied_key`.

  >>> tied_sites('0.attn.qk'), tied_sites('0.attn.v')
  (('0.attn.q', '0.attn.k'), ('0.attn.v',))
  """
  if key.endswith('attn.qk'):
    return key[:-1], f'{key[:-2]}k'
  return (key,)


def has_heads(site: str) -> bool:
  """Whether the channels of a site are dealt out to heads."""
  return site.endswith(('attn.q', 'attn.k', 'attn.v'))


def node_sites(config: GPTConfig, final_resid: bool = True) -> dict[str, int]:
  """Returns {site: width} in the order of the forward pass.

    >>> config = GPTConfig(n_layer=1, d_model=32, d_head=8, vocab_size=64)
    >>> node_sites(config)['0.mlp.post_act']
    128
    >>> list(node_sites(config))[:4]
    ['0.attn.act_in', '0.attn.q', '0.attn.k', '0.attn.v']

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


def mixed_site(source: str) -> str:
  """Where attention has mixed the values of a site; others are as they are."""
  return source.replace('attn.v', 'attn.y')


def read_site(config: GPTConfig, source: str) -> str:
  """Where a matrix reads the nodes of a site.

  Values are read after attention has mixed them, at `{layer}.attn.y`. Without a
  sink its weights sum to 1, and a constant value is the same constant there.
  """
  return mixed_site(source) if config.sink else source


def competing_sites(config: GPTConfig) -> dict[str, int]:
  """{site: how many of its nodes AbsTopK keeps} where it acts."""
  found = {}
  for site, width in node_sites(config, final_resid=False).items():
    k = config.kept_activations(_ACTIVATION_SITE[site.split('.', 1)[1]], width)
    if k is not None:
      found[site] = k
  return found


def constant_sites(config: GPTConfig) -> dict[str, int]:
  """{site: width} wherever something removed may need a value."""
  widths = node_sites(config)
  read = {read_site(config, site): width for site, width in widths.items()}
  return widths | read


def edge_matrices(config: GPTConfig) -> list[EdgeMatrix]:
  """Returns the matrices whose nonzero weights are edges, in forward order.

  The write-to-read identity along the residual stream, the q-k products,
  biases, embedding and unembedding are not edges.

    >>> config = GPTConfig(n_layer=1, d_model=32, d_head=8, vocab_size=64)
    >>> [matrix.name for matrix in edge_matrices(config)][-2:]
    ['0.mlp.act_in->0.mlp.post_act', '0.mlp.post_act->0.mlp.resid_delta']
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
