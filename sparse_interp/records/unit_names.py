"""Units by name: 'site:channel' is one channel, 'site' all channels of it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sparse_interp.models import GPTConfig, sites


class Unit(NamedTuple):
  """One channel of one site."""

  site: str
  channel: int

  @property
  def name(self) -> str:
    """As it is written."""
    return f'{self.site}:{self.channel}'


def parse(config: GPTConfig, units: Sequence[str]) -> list[Unit]:
  """The channels that names stand for, in their order, each once.

  Args:
    config: of the model, whose sites are those of `models.sites.node_sites`.
    units: 'site:channel', or 'site' for all its channels in ascending order.

  Raises:
    ValueError: there is no name, or one that names nothing in this model.
  """
  if isinstance(units, str) or not units:
    raise ValueError(
      f'units must be a list of names with at least one, got {units!r}; give '
      "e.g. ['0.mlp.post_act:5'], or ['0.mlp.post_act'] for a whole site."
    )
  widths = sites.node_sites(config)
  found = []
  for name in units:
    site, colon, channel = name.partition(':')
    if site not in widths:
      raise ValueError(
        f'units must name sites of the model, got {name!r}; its sites are '
        f'{", ".join(widths)}.'
      )
    if not colon:
      found += [Unit(site, i) for i in range(widths[site])]
      continue
    if not re.fullmatch('[0-9]{1,9}', channel) or int(channel) >= widths[site]:
      raise ValueError(
        f'units must name channels from 0 to {widths[site] - 1} of {site}, got '
        f'{name!r}; choose one of these, or {site!r} for all.'
      )
    found.append(Unit(site, int(channel)))
  return list(dict.fromkeys(found))
