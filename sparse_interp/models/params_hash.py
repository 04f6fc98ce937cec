"""Which parameters these are: one short hash of all that they hold."""

import hashlib
import weakref

import jax
import numpy as np

# {names and identities of arrays: (their hash, references to them)}.
_hashes: dict[tuple, tuple[str, list[weakref.ref]]] = {}
_REMEMBERED = 64


def hash_params(params: dict) -> str:
  """Hash of names, shapes, dtypes and values of all parameters.

  That of arrays that cannot change is remembered while they live.
  """
  digest = hashlib.sha256()
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  key = tuple((jax.tree_util.keystr(path), id(leaf)) for path, leaf in leaves)
  if (known := _hashes.get(key)) and all(ref() is not None for ref in known[1]):
    return known[0]
  for path, leaf in leaves:
    array = np.ascontiguousarray(leaf)
    name = jax.tree_util.keystr(path)
    digest.update(f'{name} {array.shape} {array.dtype}'.encode())
    digest.update(array.tobytes())
  found = digest.hexdigest()[:16]
  if all(isinstance(leaf, jax.Array) for _, leaf in leaves):
    _hashes[key] = found, [weakref.ref(leaf) for _, leaf in leaves]
    while len(_hashes) > _REMEMBERED:
      del _hashes[next(iter(_hashes))]
  return found
