"""Results against the roofline, as a plain SVG.

Every point is the median of one competitor in one case: useful operations per
byte that must be moved, and useful operations per second. Work that skips
nothing spends its operations on zeros, and lies low.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT, _MARGIN = 760, 440, 60
_COLOURS = (
  '#1b6ca8',
  '#c8553d',
  '#588157',
  '#8e6c8a',
  '#b08900',
  '#3d8c8c',
  '#a23b72',
  '#606c76',
  '#111111',
  '#e39ab8',
)


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


def _decades(values: Sequence[float]) -> tuple[int, int]:
  low = math.floor(math.log10(min(values)))
  high = math.ceil(math.log10(max(values)))
  return low, max(high, low + 1)


def svg(found: Sequence[Mapping[str, Any]], title: str) -> str | None:
  """The plot; None where no case of a product was measured, or no ceiling."""
  marks, roof = points(found), roofs(found)
  if not marks or roof is None:
    return None
  flops, bandwidth = roof
  ridge = flops / bandwidth
  x_range = _decades([m[2] for m in marks] + [ridge])
  y_range = _decades([m[3] for m in marks] + [flops])

  def at(x, y):
    across = (math.log10(x) - x_range[0]) / (x_range[1] - x_range[0])
    up = (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0])
    return (
      _MARGIN + across * (_WIDTH - 4 * _MARGIN),
      _HEIGHT - _MARGIN - min(max(up, 0), 1) * (_HEIGHT - 2 * _MARGIN),
    )

  parts = [
    (
      '<svg xmlns="http://www.w3.org/2000/svg" '
      f'viewBox="0 0 {_WIDTH} {_HEIGHT}" '
      'font-family="sans-serif" font-size="11">'
    ),
    f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    f'<text x="{_MARGIN}" y="20">{html.escape(title)}</text>',
    *_axes(at, x_range, y_range),
  ]
  left, right = 10.0 ** x_range[0], 10.0 ** x_range[1]
  corners = [(left, left * bandwidth), (ridge, flops), (right, flops)]
  path = ' '.join('{:.1f},{:.1f}'.format(*at(x, y)) for x, y in corners)
  parts.append(
    f'<polyline points="{path}" fill="none" stroke="black" stroke-width="1.5"/>'
  )
  for i, name in enumerate(dict.fromkeys(m[0] for m in marks)):
    parts += _series(name, i, [m for m in marks if m[0] == name], at)
  return '\n'.join([*parts, '</svg>', ''])


def _axes(at, x_range, y_range):
  """Grid, ticks and what they count."""
  bottom, left = 10.0 ** y_range[0], 10.0 ** x_range[0]
  for power in range(x_range[0], x_range[1] + 1):
    x, y = at(10.0**power, bottom)
    yield (
      f'<path d="M{x:.1f} {y}V{_MARGIN}" stroke="#ddd"/>'
      f'<text x="{x:.1f}" y="{y + 15}" text-anchor="middle">1e{power}</text>'
    )
  for power in range(y_range[0], y_range[1] + 1):
    x, y = at(left, 10.0**power)
    right = at(10.0 ** x_range[1], bottom)[0]
    yield (
      f'<path d="M{x} {y:.1f}H{right}" stroke="#ddd"/>'
      f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>'
    )
  yield (
    f'<text x="{_MARGIN}" y="{_HEIGHT - 18}">useful operations per byte</text>'
    f'<text x="{_MARGIN}" y="{_MARGIN - 14}">useful operations per second; '
    'line: ceilings measured beside them (memory, not caches)</text>'
  )


def _series(name, i, marks, at):
  colour = _COLOURS[i % len(_COLOURS)]
  for _, case, intensity, rate in marks:
    x, y = at(intensity, rate)
    yield (
      f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
      f'<title>{html.escape(f"{name}, {case}: {rate:.3g}/s")}</title></circle>'
    )
  x, y = _WIDTH - 2.7 * _MARGIN, _MARGIN + 18 * i
  yield (
    f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>'
    f'<text x="{x + 10}" y="{y}">{html.escape(name)}</text>'
  )
