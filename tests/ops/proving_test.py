"""Kernels step aside where they should, in one line, with right results."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sparse_interp.ops import (
  attention_kernels,
  native,
  outcomes,
  proving,
  topk,
  topk_kernels,
  xla_interface,
)
from sparse_interp.ops.proving import Kernel, either

X = np.array([-3.0, 0, 1, np.nan, np.inf, 1e-3], np.float32)


def doubled(x):
  return 2 * x


def halved(x):
  return x / 2


def kernel(ours=doubled, plain=doubled, name='fake', **fields):
  """A kernel whose calls are plain jax, and which nothing compiles."""
  cases = fields.pop('cases', lambda: [(X,)])
  return Kernel(name, lambda: (None, ours), plain, cases, **fields)


def forget():
  """What another process knows of what was tried in this one."""
  proving._outcome.cache_clear()
  proving._say.cache_clear()


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
  """A place for outcomes, empty at first."""
  monkeypatch.setattr(outcomes, 'directory', lambda: tmp_path / 'kept')
  forget()
  yield tmp_path / 'kept'
  forget()


@pytest.fixture
def prepared(monkeypatch):
  """Kernels need no compilation, and take no longer than plain jax."""
  monkeypatch.setattr(proving, '_prepare', lambda kernel: 'key')
  monkeypatch.setattr(proving, '_times', lambda *_: 1.0)


def clock_of(monkeypatch, *seconds):
  """A clock by which ours and plain jax take these, in turn."""
  now, turn = [0.0], [0]

  def clock():
    if turn[0] % 2:
      now[0] += seconds[turn[0] // 2 % len(seconds)]
    turn[0] += 1
    return now[0]

  monkeypatch.setattr(proving, '_prepare', lambda kernel: 'key')
  monkeypatch.setattr(proving, '_clock', clock)


def not_tried(*_):
  raise AssertionError('tried again')


def lines(caplog):
  return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
  'way',
  [
    lambda f: f,
    jax.jit,
    lambda f: jax.jit(jax.vmap(jax.vmap(f))),
    jax.grad(lambda f, x: f(x).sum(), argnums=1),
    lambda f: jax.jit(
      jax.shard_map(
        f, mesh=jax.make_mesh((2,), ('d',)), in_specs=P('d'), out_specs=P('d')
      )
    ),
    lambda f: lambda x: jax.lax.map(f, x),
  ],
  ids=['eager', 'jit', 'vmap', 'grad', 'shard_map', 'loop'],
)
def test_a_flipped_sign_is_noticed_wherever_it_is_first_used(
  prepared, caplog, way
):
  wrong = kernel(lambda x: -2 * x)
  x = jnp.arange(12.0).reshape(2, 3, 2)
  if isinstance(way, type(jax.grad(doubled))) and way.__name__ == '<lambda>':
    pass
  y = functools.partial(way, either(wrong))() if False else None
  del y
  for _ in range(2):
    run = way(either(wrong)) if way is not WAY_GRAD else None
    if run is not None:
      np.testing.assert_array_equal(run(x), 2 * x)
  assert len(lines(caplog)) == 1
