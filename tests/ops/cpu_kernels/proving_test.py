"""Kernels step aside where they should, in one line, with right results."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sparse_interp.ops import cpu_kernels
from sparse_interp.ops.attention import attention_kernels
from sparse_interp.ops.cpu_kernels import (
  native,
  outcomes,
  proving,
  xla_interface,
)
from sparse_interp.ops.cpu_kernels.proving import NativeKernel, either
from sparse_interp.ops.topk import topk_kernels

X = np.array([-3.0, 0, 1, np.nan, np.inf, 1e-3], np.float32)


def doubled(x):
  return 2 * x


def kernel(ours=doubled, plain=doubled, **fields):
  """A kernel that is plain jax, too, and that nothing compiles."""
  cases = fields.pop('cases', lambda: [(X,)])
  return NativeKernel('fake', lambda: (None, ours), plain, cases, **fields)


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
  """Kernels need no compilation, and take as long as plain jax."""
  monkeypatch.setattr(proving, '_prepare', lambda kernel: 'key')
  monkeypatch.setattr(proving, '_times', lambda *_: 1.0)


@pytest.fixture
def slow(monkeypatch):
  """Sets how many times as long as plain jax every kernel takes."""
  monkeypatch.setattr(proving, '_prepare', lambda kernel: 'key')

  def takes(times):
    readings = iter(np.cumsum([0, times, 0, 1] * 100).tolist())
    monkeypatch.setattr(proving, '_clock', lambda: next(readings))

  return takes


def not_now(*_):
  raise AssertionError('not to be called')


@pytest.fixture
def lines(caplog):
  def said():
    return [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']

  return said


def shard_map(f):
  mesh = jax.make_mesh((8,), ('d',), axis_types=(jax.sharding.AxisType.Auto,))
  return jax.shard_map(f, mesh=mesh, in_specs=P('d'), out_specs=P('d'))


WAYS = {
  'eager': lambda f: f,
  'jit': jax.jit,
  'vmap': lambda f: jax.jit(jax.vmap(jax.vmap(f))),
  'grad': lambda f: jax.jit(jax.grad(lambda x: jnp.sum(f(x) * x) / 2)),
  'loop': lambda f: lambda x: jax.lax.map(f, x),
  'devices': lambda f: jax.jit(shard_map(f)),
}


@pytest.mark.parametrize('way', WAYS)
def test_a_flipped_sign_shows_wherever_a_kernel_is_first_used(
  prepared, lines, way
):
  wrong, x = kernel(lambda x: -2 * x), jnp.arange(16.0).reshape(8, 2)
  for _ in range(2):
    np.testing.assert_array_equal(WAYS[way](either(wrong))(x), 2 * x)
  (line,) = lines()
  assert line.startswith('kernel fake steps aside for plain jax: it differs')
  forget()  # and another process says so again, of what was kept
  np.testing.assert_array_equal(WAYS[way](either(wrong))(x), 2 * x)
  assert lines() == [line, line]


@pytest.mark.parametrize('way', WAYS)
def test_a_kernel_that_is_right_computes(prepared, lines, way, monkeypatch):
  x, marked = jnp.arange(16.0).reshape(8, 2), []

  def ours(x):
    marked.append(isinstance(x, jax.core.Tracer))
    return 2 * x

  right = kernel(ours)
  for _ in range(2):
    np.testing.assert_array_equal(WAYS[way](either(right))(x), 2 * x)
    assert proving.stands(right)
    forget()
    monkeypatch.setattr(proving, '_try', not_now)
  assert len(marked) == 3  # tried once, used twice
  assert not lines()


@pytest.mark.parametrize(
  ('ours', 'tolerance', 'passes'),
  [
    (lambda x: 2 * x * (1 + 1e-6), 1e-5, True),
    (lambda x: 2 * x * (1 + 1e-4), 1e-5, False),
    (lambda x: 2 * x * (1 + 1e-6), 0.0, False),
    (lambda x: jnp.where(x == 0, -0.0, 2 * x), 0.0, False),
    (lambda x: jnp.where(x == 0, -0.0, 2 * x), 1e-5, True),
    (lambda x: jnp.where(jnp.isnan(x), 0, 2 * x), 1e-5, False),
    (lambda x: jnp.where(jnp.isinf(x), -jnp.inf, 2 * x), 1e-5, False),
    (lambda x: jnp.where(x == 1, jnp.nan, 2 * x), 1e-5, False),
    (lambda x: 2 * x[:3], 1e-5, False),
    (lambda x: (2 * x).astype(jnp.bfloat16), 1e-1, False),
  ],
)
def test_what_counts_as_a_difference(prepared, ours, tolerance, passes):
  assert proving.stands(kernel(ours, tolerance=tolerance)) == passes


def test_every_case_counts(prepared):
  wrong = kernel(
    lambda x: jnp.where(x == X + 1, 0, 2 * x), cases=lambda: [(X + 1,), (X,)]
  )
  assert not proving.stands(wrong)


def test_what_nobody_reads_may_differ(prepared):
  other = lambda x: 2 * x.at[1:].set(7)  # noqa: E731
  assert proving.stands(kernel(other, defined=lambda y: y[:1]))


@pytest.mark.parametrize(('times', 'passes'), [(1.4, True), (1.6, False)])
def test_one_that_is_clearly_slower_steps_aside_for_good(
  slow, lines, directory, monkeypatch, times, passes
):
  slow(times)
  assert proving.stands(kernel()) == passes
  # Another process has another clock and must not compute otherwise.
  forget()
  slow(3 - times)
  assert proving.stands(kernel()) == passes
  assert len(lines()) == (0 if passes else 2)
  (path,) = directory.iterdir()
  if not passes:
    assert f'takes 1.6 times as long; delete {path} to' in lines()[0]
    forget()
    path.unlink()
    assert proving.stands(kernel())


def test_other_flags_of_xla_are_timed_anew(slow, monkeypatch):
  slow(2)
  assert not proving.stands(kernel())
  forget()
  monkeypatch.setenv('XLA_FLAGS', '--some')
  slow(1)
  assert proving.stands(kernel())


def test_where_nothing_can_be_kept_no_clock_decides(
  tmp_path, monkeypatch, lines
):
  (tmp_path / 'file').touch()
  monkeypatch.setattr(outcomes, 'directory', lambda: tmp_path / 'file' / 'kept')
  monkeypatch.setattr(proving, '_prepare', lambda kernel: 'key')
  monkeypatch.setattr(proving, '_clock', not_now)
  assert proving.stands(kernel())
  assert not proving.stands(kernel(lambda x: -x))
  assert len(lines()) == 1


def test_processes_that_compute_together_are_not_timed(slow, monkeypatch):
  slow(2)
  assert not proving.stands(kernel())
  forget()
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  assert proving.stands(kernel())


@pytest.mark.parametrize(
  ('name', 'value', 'usual'),
  [
    ('jax_debug_nans', True, False),
    ('jax_debug_infs', True, False),
    ('jax_transfer_guard', 'disallow', 'allow'),
    ('jax_numpy_dtype_promotion', 'strict', 'standard'),
    ('jax_numpy_rank_promotion', 'raise', 'allow'),
  ],
)
def test_what_finds_errors_of_users_finds_none_here(
  prepared, name, value, usual
):
  mixed = kernel(
    lambda x: x + x[None] * jnp.arange(1, 2), lambda x: 2 * x[None]
  )
  jax.config.update(name, value)
  try:
    assert proving.stands(mixed)
  finally:
    jax.config.update(name, usual)


def test_another_version_of_the_interface_is_not_called(monkeypatch, lines):
  monkeypatch.setattr(xla_interface, 'version', lambda: (1, 4))
  monkeypatch.setattr(native, 'prepare', not_now)
  for one in (attention_kernels.FORWARD, topk_kernels.ROWS):
    assert not proving.stands(one)
  (line,) = lines()
  assert line.startswith('kernels for CPUs step aside for plain jax: XLA')
  assert 'version 1.4' in line


def test_without_numba_plain_jax_computes(monkeypatch, lines):
  monkeypatch.setitem(sys.modules, 'sparse_interp.ops.cpu_kernels.native', None)
  monkeypatch.delattr(cpu_kernels, 'native')
  for one in (attention_kernels.FORWARD, topk_kernels.ROWS):
    assert not proving.stands(one)
  (line,) = lines()
  assert 'Numba cannot be imported (ModuleNotFoundError' in line


@pytest.mark.slow
def test_what_cannot_be_compiled_steps_aside(lines, directory):
  @native.machine_code
  def work(state, part, parts):
    native.floats(state, 0)[part] = 'no number'

  one = NativeKernel('work', lambda: (work, not_now), doubled, lambda: [(X,)])
  np.testing.assert_array_equal(either(one)(X), 2 * X)
  (line,) = lines()
  assert line.startswith('kernel work steps aside for plain jax: it cannot be')
  assert '\n' not in line
  assert not directory.exists()  # the next process may have what is missing
