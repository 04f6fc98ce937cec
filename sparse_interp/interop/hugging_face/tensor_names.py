"""Names of tensors without what was put around a model when it was saved.

Compiled and distributed modules write `_orig_mod.` and `module.` before the
names of their tensors, or among their parts, and a model that is saved with its
head has the name of its body before all others.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Iterable

from sparse_interp.interop.hugging_face.hf_config import refusal, short

_log = logging.getLogger(__name__)

# Parts of names that only wrappers put there: torch.compile, DataParallel and
# its distributed kind, FSDP, checkpointing, DeepSpeed, Lightning, and the
# published code of circuit_sparsity.
_WRAPPERS = frozenset(
  """_orig_mod module _fsdp_wrapped_module _checkpoint_wrapped_module
  _forward_module model circuit_model""".split()
)


def bare(
  where: str | os.PathLike,
  names: Iterable[str],
  body: str,
  outside: Collection[str],
) -> dict[str, str]:
  """Finds the names that a model itself gives to its tensors.

  Args:
    where: the file or directory, for messages.
    names: as they are stored.
    body: what the names in the body of a model begin with, e.g. 'transformer.'.
    outside: names that never do, e.g. of the unembedding.

  Returns:
    {name without wrappers and without body: stored name}.

  Raises:
    ValueError: if some names have such a beginning and others do not, or one
      tensor is there under two names.
  """
  found, wrapped, bodies = {}, defaultdict(list), defaultdict(list)
  for name in names:
    front, own = _unwrap(name)
    wrapped[front].append(name)
    inner = own
    while inner.startswith(body):
      inner = inner.removeprefix(body)
    if inner not in outside:
      bodies[own.removesuffix(inner)].append(name)
    if inner in found:
      raise refusal(
        where,
        f'name each tensor once, whatever is before it, and not {short(inner)}',
        f'one tensor under two names, {short(found[inner])} and {short(name)}',
        'remove those that are not of this model, or copy the files again',
      )
    found[inner] = name
  for kinds in (wrapped, bodies):
    if len(kinds) > 1:
      (first, some), (second, others) = list(kinds.items())[:2]
      raise refusal(
        where,
        f'have {short(first or second)} before all names or before none',
        f'{short(some[0])} and {short(others[0])}',
        'remove those that are not of this model, or copy the files again',
      )
  for front in filter(None, wrapped):
    _log.warning('%s: names of tensors begin with %s.', where, front)
  return found


def _unwrap(name: str) -> tuple[str, str]:
  """What wrappers put before a name, and the name without their parts."""
  parts = name.split('.')
  first = next(
    (i for i, part in enumerate(parts) if part not in _WRAPPERS), len(parts)
  )
  front = ''.join(f'{part}.' for part in parts[:first])
  return front, '.'.join(p for p in parts[first:] if p not in _WRAPPERS)
