"""Circuits as GraphML, which Gephi, Cytoscape, yEd and networkx read.

Nodes are named `site:channel` and carry `site`, `channel`, `layer` (number of
the site in the order of the forward pass) and `mean` (what the node is when it
is removed); edges carry `weight`, and the graph `task`, `description` and
`gates`.
"""

import os
from typing import Any
from xml.etree import ElementTree

from sparse_interp.circuits.circuit import Circuit
from sparse_interp.files import regular, whole_file

_MOST_BYTES = 256 * 2**20


def to_networkx(circuit: Circuit) -> Any:
  """The circuit as a `networkx.DiGraph`, with the attributes above.

  Raises:
    ValueError: networkx is not installed.
  """
  graph = _networkx().DiGraph(
    task=_plain(circuit.task),
    description=_plain(circuit.description),
    gates=circuit.gates,
  )
  sites = list(circuit.sites)
  for layer, site in enumerate(sites):
    for channel in map(int, circuit.nodes.get(site, ())):
      graph.add_node(
        f'{site}:{channel}',
        site=site,
        channel=channel,
        layer=layer,
        mean=float(circuit.means[site][channel]),
      )
  for source_site, source, target_site, target, weight in zip(
    *(column.tolist() for column in circuit.edges), strict=True
  ):
    graph.add_edge(
      f'{sites[source_site]}:{source}',
      f'{sites[target_site]}:{target}',
      weight=weight,
    )
  return graph


def write(path: str | os.PathLike, circuit: Circuit) -> None:
  """Writes a circuit as GraphML.

  Args:
    path: of the file.
    circuit: the circuit.

  Raises:
    ValueError: networkx is not installed.
  """
  graph = to_networkx(circuit)
  with whole_file.writing(path) as part:
    _networkx().write_graphml_xml(graph, part)


def read(path: str | os.PathLike) -> Any:
  """Reads what `write` wrote, possibly changed by another program.

  Args:
    path: of the file.

  Returns:
    A `networkx.DiGraph` whose nodes have `site` and `channel` and whose edges
    have `weight`.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is not GraphML, or lacks these; or networkx is missing.
  """
  text = regular.read_bytes(path, _MOST_BYTES)
  networkx = _networkx()
  # GraphML needs no entities, and those of a hostile file can be endless.
  if b'<!DOCTYPE' in text or b'<!ENTITY' in text:
    raise _wrong(path, 'have no document type or entities')
  try:
    graph = networkx.parse_graphml(text.decode('utf-8'))
  except (
    ElementTree.ParseError,
    networkx.NetworkXException,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
  ) as error:
    raise _wrong(path, f'be GraphML ({error})') from None
  if not graph.is_directed() or graph.is_multigraph():
    raise _wrong(path, 'be directed, with one edge at most between two nodes')
  for name, fields in graph.nodes.items():
    if not isinstance(fields.get('site'), str) or (
      type(fields.get('channel')) is not int
    ):
      raise _wrong(path, f'give node {name} a site and a channel')
  for (source, target), fields in graph.edges.items():
    if type(fields.get('weight')) is not float:
      raise _wrong(path, f'give the edge {source} to {target} a weight')
  return graph


def _wrong(path, constraint):
  constraint = ' '.join(constraint.split())[:150]
  return ValueError(
    f'GraphML file {os.fspath(path)} must {constraint}; write it again with '
    'sparse_interp.interop.graphml.write.'
  )


def _plain(text):
  """Text without the characters that XML cannot hold."""
  return ''.join(
    letter
    for letter in text
    if letter in '\t\n' or ' ' <= letter <= '\ud7ff' or '\ue000' <= letter
    if letter not in '\ufffe\uffff'
  )


def _networkx() -> Any:
  try:
    import networkx
  except ImportError:
    raise ValueError(
      'GraphML needs networkx, got none installed; install it with pip install '
      "'sparse_interp[graphml]'."
    ) from None
  return networkx
