"""What a state is, in a few bytes a tensor: numbers that any change changes.

The bits of every entry are mixed with its place by a function that has an
inverse, and the results are added up modulo 2**32, twice over with other
constants. Integers add up alike in any order, so that the sums are the same for
every sharding and number of devices; one entry that differs always differs in
both of them. Nothing leaves the devices but the sums.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt32

# Odd constants of the two sums: the golden ratio, and one of MurmurHash3.
_SEEDS = (0x9E3779B9, 0xCC9E2D51)

# {name of a tensor: [dtype, shape, sums in hexadecimal]}.
Fingerprints = dict[str, list]


def named(tree: Any) -> dict[str, Any]:
  """Flattens a tree to {'params/h_0/attn/c_attn/kernel': tensor, ...}."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def look(tree: Any) -> tuple[Fingerprints, list[str]]:
  """Looks at every tensor once, where it lives.

  Args:
    tree: of arrays of numbers or truth values.

  Returns:
    Fingerprints by name, JSON values only, and the names of the tensors that
    hold an entry that is infinite or not a number.
  """
  tensors = named(tree)
  sums, finite = jax.device_get(_look(tensors))
  prints = {
    name: [
      jnp.dtype(tensor.dtype).name,
      list(tensor.shape),
      ''.join(f'{int(lane):08x}' for lane in sums[name]),
    ]
    for name, tensor in tensors.items()
  }
  return prints, [name for name in tensors if not finite[name]]


def differing(
  found: Mapping[str, Any], expected: Mapping[str, Any]
) -> list[str]:
  """Names whose fingerprints are not the same, or only in one of the two."""
  names = dict.fromkeys([*expected, *found])
  return [name for name in names if found.get(name) != expected.get(name)]


@jax.jit
def _look(tensors):
  return (
    {name: _sums(tensor) for name, tensor in tensors.items()},
    {name: _is_finite(tensor) for name, tensor in tensors.items()},
  )


def _sums(tensor: Array) -> UInt32[Array, '2']:
  bits = _bits(tensor)
  index = _index(bits.shape)
  return jnp.stack(
    [
      jnp.sum(_mix(bits ^ (index * seed)), dtype=jnp.uint32)
      for seed in map(jnp.uint32, _SEEDS)
    ]
  )


def _is_finite(tensor: Array) -> Bool[Array, '']:
  if not jnp.issubdtype(tensor.dtype, jnp.inexact):
    return jnp.array(True)
  return jnp.all(jnp.isfinite(tensor))


def _bits(tensor: Array) -> UInt32[Array, '...']:
  """The bits of each entry; a last axis of two where they are 64."""
  if tensor.dtype == bool:
    return tensor.astype(jnp.uint32)
  width = min(jnp.dtype(tensor.dtype).itemsize, 4)
  kind = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[width]
  return jax.lax.bitcast_convert_type(tensor, kind).astype(jnp.uint32)


def _index(shape: tuple[int, ...]) -> UInt32[Array, '...']:
  """The place of each entry in row-major order, modulo 2**32."""
  strides = np.cumprod([1, *shape[:0:-1]], dtype=object)[::-1]
  places = [
    jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    * jnp.uint32(int(stride) % 2**32)
    for axis, stride in enumerate(strides[: len(shape)])
  ]
  return functools.reduce(jnp.add, places, jnp.zeros(shape, jnp.uint32))


def _mix(x: UInt32[Array, '...']) -> UInt32[Array, '...']:
  """The finaliser of MurmurHash3 (A. Appleby, public domain): invertible."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
