"""Where the nodes of a circuit stand on the page.

Left to right as the forward pass runs: one column per site that has nodes (q,
k and v share one), grouped in blocks. A channel of the residual stream keeps
its row from where it is first written to where it is last read, so that the
identity along the stream is a straight line; everything else is put near its
neighbours.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np

from sparse_interp.viewer.ordering import assign_rows

ROW = 27.0  # Pixels between rows: a node and the label above it.
MARGIN_X, MARGIN_TOP, MARGIN_BOTTOM = 14.0, 74.0, 22.0
BLOCK_GAP = 14.0  # Between blocks, where only the residual stream runs.
EDGE_GAP = (84.0, 170.0)  # Between the columns of a block, least and most.
WIDTH_WANTED = 1240.0
_SIDE = 27.0  # From the outermost column of a block to its border.
_LETTER = 7.2  # Width of a letter of a title.

_SITE = re.compile(r'(\d+)\.(attn|mlp)\.(act_in|q|k|v|resid_delta|post_act)')
_STAGES = {
  'act_in': ('reads', 'read'),
  'q': ('q, k, v', 'query'),
  'k': ('q, k, v', 'key'),
  'v': ('q, k, v', 'value'),
  'post_act': ('neurons', 'neuron'),
  'resid_delta': ('writes', 'write'),
}
_IN_STREAM = ('read', 'write', 'final')
_GROUPS = {'query': 0, 'key': 1, 'value': 2}  # From the top of their column.


@dataclasses.dataclass(frozen=True)
class Place:
  """What a site is in the drawing: its block, its column there, its kind."""

  block: str
  column: str
  kind: str


@dataclasses.dataclass(frozen=True)
class Span:
  """A titled stretch of the x axis, in pixels."""

  title: str
  left: float
  right: float


@dataclasses.dataclass(frozen=True)
class Layout:
  """Positions in pixels, origin at the top left.

  Attributes:
    width: of the drawing.
    height: of the drawing.
    x: (n,) float64 of the nodes.
    y: (n,) float64 of the nodes.
    kinds: what each node is: read, query, key, value, neuron, write, final
      or other.
    stream: (s, 2) int, pairs of nodes that follow each other on one channel
      of the residual stream, from its first kept write on. Not edges.
    columns: titles of the columns and where they stand.
    blocks: titles of the blocks and where they begin and end.
  """

  width: float
  height: float
  x: np.ndarray
  y: np.ndarray
  kinds: tuple[str, ...]
  stream: np.ndarray
  columns: tuple[Span, ...]
  blocks: tuple[Span, ...]


def place(site: str) -> Place:
  """Returns what a site is; one that is not of a GPT gets its own column."""
  match = _SITE.fullmatch(site)
  if match:
    layer, block, stage = match.groups()
    word = 'attention' if block == 'attn' else 'MLP'
    return Place(f'layer {layer} {word}', *_STAGES[stage])
  if site == 'final_resid':
    return Place('output', 'stream', 'final')
  return Place(site, '', 'other')


def lay_out(
  sites: Sequence[str],
  nodes: np.ndarray,
  edges: np.ndarray,
  parallel: bool = False,
) -> Layout:
  """Returns where the nodes of a circuit stand.

  Args:
    sites: names of the sites, in the order of the forward pass.
    nodes: (n, 2) int; index into `sites`, and channel.
    edges: (m, 2) int; numbers of the source and target node.
    parallel: whether the MLP of a block reads the stream before the attention
      of that block has written to it.
  """
  places = [place(sites[site]) for site, _ in nodes]
  kinds = tuple(p.kind for p in places)
  headings = list(dict.fromkeys((p.block, p.column) for p in places))
  column = np.array([headings.index((p.block, p.column)) for p in places], int)
  layers = [sites[site].split('.')[0] for site, _ in nodes]
  stream = _stream_links(nodes, kinds, layers if parallel else None)
  rows = _rows(nodes, edges, column, kinds, stream)
  centres, blocks = _columns(headings)
  height = (
    MARGIN_TOP + MARGIN_BOTTOM + ROW * max(1.0, float(rows.max(initial=0)) + 1)
  )
  return Layout(
    width=(blocks[-1].right if blocks else 0.0) + MARGIN_X,
    height=height,
    x=np.array(centres)[column] if centres else np.zeros(0),
    y=MARGIN_TOP + ROW * (rows + 0.5),
    kinds=kinds,
    stream=stream,
    columns=tuple(
      Span(title, x, x) for (_, title), x in zip(headings, centres, strict=True)
    ),
    blocks=blocks,
  )


def _stream_links(
  nodes: np.ndarray, kinds: tuple[str, ...], layers: list[str] | None
) -> np.ndarray:
  """Joins the nodes of each residual channel, from its first write on.

  Reads before the first kept write see the embedding alone, and are not
  joined to anything. With the layers of a parallel model, neither is a read
  after a write of its own block, which it does not see.
  """
  by_channel = collections.defaultdict(list)
  for node in np.argsort(nodes[:, 0], kind='stable'):
    if kinds[node] in _IN_STREAM:
      by_channel[nodes[node, 1]].append(int(node))
  links = []
  for members in by_channel.values():
    chain = []
    for node in members:
      unseen = layers is not None and any(
        kinds[one] == 'write' and layers[one] == layers[node] for one in chain
      )
      if kinds[node] == 'write' or (chain and not unseen):
        chain.append(node)
    links += itertools.pairwise(chain)
  return np.array(links, np.int64).reshape(-1, 2)


def _rows(
  nodes: np.ndarray,
  edges: np.ndarray,
  column: np.ndarray,
  kinds: tuple[str, ...],
  stream: np.ndarray,
) -> np.ndarray:
  """Returns (n,) float rows; joined nodes of the stream share theirs."""
  track = np.arange(len(nodes))
  for left, right in stream:  # In forward order, so a chain has one number.
    track[right] = track[left]
  return assign_rows(
    column=column,
    group=np.array([_GROUPS.get(kind, 0) for kind in kinds], int),
    track=np.unique(track, return_inverse=True)[1],
    in_stream=np.array([kind in _IN_STREAM for kind in kinds], bool),
    edges=edges,
  )


def _columns(
  headings: list[tuple[str, str]],
) -> tuple[list[float], tuple[Span, ...]]:
  """Returns the x of the columns, and the blocks around them."""
  groups = [
    (title, len(list(members)))
    for title, members in itertools.groupby(headings, key=lambda h: h[0])
  ]
  # A title must fit over its block, also where that is one column.
  sides = [
    max(_SIDE, _LETTER * len(title) / 2) if count == 1 else _SIDE
    for title, count in groups
  ]
  spare = WIDTH_WANTED - 2 * sum(sides) - BLOCK_GAP * (len(groups) - 1)
  inner = sum(count - 1 for _, count in groups)
  gap = float(np.clip(spare / max(1, inner), *EDGE_GAP))
  centres, blocks, left = [], [], MARGIN_X
  for (title, count), side in zip(groups, sides, strict=True):
    centres += [left + side + gap * i for i in range(count)]
    blocks.append(Span(title, left, centres[-1] + side))
    left = blocks[-1].right + BLOCK_GAP
  return centres, tuple(blocks)
