"""Results against the roofline, as an SVG drawn by matplotlib.

Every point is the median of one competitor in one case: useful operations per
byte that must be moved, and useful operations per second. Work that skips
nothing spends its operations on zeros, and lies low.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

# Inches; text stays text, and the same results give the same bytes.
_SIZE = (10, 5.5)
_STYLE: dict[Any, Any] = {
  'svg.fonttype': 'none',
  'svg.hashsalt': 'roofline',
  'font.size': 9,
}


def roofs(found: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
  """(operations per second, bytes per second) of the ceilings, if measured.

  A case has one dtype, so the fastest product is the roof of its machine only
  for that dtype.
  """
  ceilings = [
    result
    for case in found
    if case['group'] == 'ceilings'
    for result in case['results'].values()
    if 'median_ms' in result
  ]
  flops = max((r['flops_per_second'] for r in ceilings), default=0)
  bandwidth = max(
    (r['bytes_per_second'] for r in ceilings if not r['flops_per_second']),
    default=0,
  )
  return (flops, bandwidth) if flops and bandwidth else None


def points(
  found: Sequence[Mapping[str, Any]],
) -> list[tuple[str, str, float, float]]:
  """(competitor, case, operations per byte, operations per second)."""
  return [
    (
      name,
      case['name'],
      case['flops'] / case['bytes'],
      result['flops_per_second'],
    )
    for case in found
    if case['flops'] and case['group'] != 'ceilings'
    for name, result in case['results'].items()
    if 'median_ms' in result
  ]


def svg(found: Sequence[Mapping[str, Any]], title: str) -> str | None:
  """The plot; None where no case of a product was measured, or no ceiling.

  Raises:
    ImportError: there is something to draw, and no matplotlib.
  """
  marks, roof = points(found), roofs(found)
  if not marks or roof is None:
    return None
  import matplotlib
  from matplotlib.figure import Figure

  with matplotlib.rc_context(_STYLE):
    figure = Figure(_SIZE, layout='constrained')
    axes = figure.subplots()
    _draw(axes, marks, *roof)
    # The name of a device may hold dollar signs, which would begin a formula.
    axes.set_title(title, parse_math=False)
    text = io.StringIO()
    figure.savefig(text, format='svg', metadata={'Date': None})
  return text.getvalue()


def _draw(axes, marks, flops, bandwidth):
  """A colour for each competitor, and above them the roof."""
  for name in dict.fromkeys(mark[0] for mark in marks):
    mine = [mark[2:] for mark in marks if mark[0] == name]
    axes.plot(*zip(*mine, strict=True), 'o', label=name, gid=name)
  ridge = flops / bandwidth
  left = min(ridge, *(mark[2] for mark in marks)) / 2
  right = max(ridge, *(mark[2] for mark in marks)) * 2
  roof = 'ceilings measured beside them\n(memory, not caches)'
  corners = [left * bandwidth, flops, flops]
  axes.plot([left, ridge, right], corners, 'k-', label=roof, gid='roof')
  axes.set(
    xscale='log',
    yscale='log',
    xlabel='useful operations per byte',
    ylabel='useful operations per second',
  )
  axes.grid(color='#ddd')
  axes.legend(loc='center left', bbox_to_anchor=(1, 0.5))
