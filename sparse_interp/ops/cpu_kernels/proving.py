"""Kernels of our own prove themselves before they compute.

When a kernel is first used on a machine, it is compared with the same in plain
jax on a few operands made to break it, and timed beside it. Where it cannot be
compiled or called, differs, or is clearly slower, plain jax takes its place,
and one line on the logger 'sparse_interp.ops' says so.

The outcome is kept beside the machine code. Later processes pay nothing, and
compute as the first one did: the two may round otherwise, and a run that is
resumed must go on as it began. Where nothing can be kept, or several processes
compute together and must agree, no clock decides, and only errors count.
"""

import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.ops.cpu_kernels import outcomes, xla_interface
from sparse_interp.ops.cpu_kernels.outcomes import Outcome

# How much longer than plain jax a kernel may take: machines are shared, and the
# outcome stays.
_CLEARLY = 1.5
_REPETITIONS = 5

_LOG = logging.getLogger('sparse_interp.ops')
_PROVING = threading.RLock()
_clock = time.perf_counter


class NativeKernel(NamedTuple):
  """A kernel for CPUs, and what it must be equal to.

  Attributes:
    name: of the function that Numba compiles.
    load: imports that function and another, which calls it through XLA: from
      operands, some of them Python ints, to results.
    plain: the same in plain jax; it calls no other kernel.
    cases: operands to compare both on, best of one shape, which is compiled
      once; on the last ones both are timed, too.
    tolerance: share of the largest result by which they may differ; 0 for not
      in a single bit.
    defined: sets to 0 what results hold and nobody reads.
  """

  name: str
  load: Callable[[], tuple[Any, Callable[..., Any]]]
  plain: Callable[..., Any]
  cases: Callable[[], list[tuple[Any, ...]]]
  tolerance: float = 0.0
  defined: Callable[[Any], Any] = lambda results: results


def either(kernel: NativeKernel) -> Callable[..., Any]:
  """The kernel where it stands, and else plain jax; inside or outside of jit.

  Which of both is asked when the function is called or traced.
  """

  def run(*operands):
    if stands(kernel):
      return kernel.load()[1](*operands)
    return kernel.plain(*operands)

  return run


def stands(kernel: NativeKernel) -> bool:
  """Whether the kernel is used; tries it if that is not known yet."""
  with _PROVING:
    return _outcome(kernel).kind == 'passed'


@functools.cache
def _outcome(kernel: NativeKernel) -> Outcome:
  """The outcome for this process; says in one line what did not pass."""
  try:
    key = _prepare(kernel)
    outcome = _kept_or_new(kernel, key)
  except (xla_interface.UnknownVersionError, _NoCompilerError) as error:
    outcome = Outcome('failed', str(error))
    _say(f'kernels for CPUs step aside for plain jax: {error}')
    return outcome
  except Exception as error:  # noqa: BLE001 (plain jax needs none of it)
    reason = f'{type(error).__name__}: {error}'.strip().splitlines()[0][:200]
    outcome = Outcome('failed', f'it cannot be compiled or called ({reason})')
  if outcome.kind == 'slower' and jax.process_count() > 1:
    outcome = Outcome('passed', '')
  if outcome.kind != 'passed':
    _say(f'kernel {kernel.name} steps aside for plain jax: {outcome.detail}')
  return outcome


class _NoCompilerError(Exception):
  """Numba or what it stands on is missing or broken."""


def _prepare(kernel: NativeKernel) -> str:
  """Compiles the kernel and makes it known to XLA; returns its key."""
  xla_interface.check()
  try:
    from sparse_interp.ops.cpu_kernels import native
  except Exception as error:
    reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200]
    raise _NoCompilerError(f'Numba cannot be imported ({reason})') from error
  return native.prepare(kernel.load()[0])


def _kept_or_new(kernel: NativeKernel, key: str) -> Outcome:
  path = outcomes.path(kernel.name, key)
  outcome = outcomes.read(path)
  if outcome is None:
    timed = jax.process_count() == 1 and outcomes.can_keep(path)
    # A thread of its own: this one may be tracing, where jax computes nothing.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
      outcome = thread.submit(_try, kernel, timed).result()
    kept = outcomes.keep(path, outcome)
    if kept is None and outcome.kind == 'slower':
      outcome = Outcome('passed', '')
    outcome = kept or outcome
  if outcome.kind == 'slower':
    again = f'{outcome.detail}; delete {path} to have it timed again'
    return Outcome('slower', again)
  return outcome


@functools.cache
def _say(line: str) -> None:
  """One line, once a process."""
  _LOG.warning('%s', line)


def _try(kernel: NativeKernel, timed: bool) -> Outcome:
  """Compares a kernel with plain jax, and times it beside it."""
  device = jax.local_devices(backend='cpu')[0]
  # What users set to find errors in their programs is not for this one.
  with (
    jax.default_device(device),
    jax.debug_nans(False),
    jax.debug_infs(False),
    jax.transfer_guard('allow'),
    jax.numpy_dtype_promotion('standard'),
    jax.numpy_rank_promotion('allow'),
  ):
    cases = kernel.cases()
    static = [i for i, x in enumerate(cases[0]) if isinstance(x, int)]
    ours, plain = (
      jax.jit(function, static_argnums=static)
      for function in (kernel.load()[1], kernel.plain)
    )
    for operands in cases:
      found, wanted = (
        jax.tree.map(np.asarray, kernel.defined(run(*operands)))
        for run in (ours, plain)
      )
      off = _difference(found, wanted, kernel.tolerance)
      if off:
        return Outcome('differs', f'it {off} on this machine')
    times = _times(ours, plain, operands) if timed else 0
  if times > _CLEARLY:
    return Outcome('slower', f'it takes {times:.1f} times as long')
  return Outcome('passed', '')


def _difference(found: Any, wanted: Any, tolerance: float) -> str:
  """In what results differ, or nothing."""
  pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
  for one, other in pairs:
    if one.shape != other.shape or one.dtype != other.dtype:
      return f'returns {one.dtype}{one.shape}, not {other.dtype}{other.shape}'
    if one.dtype == np.float32 and not tolerance:
      one, other = one.view(np.int32), other.view(np.int32)
    if one.dtype != np.float32:
      share = np.mean(one != other) if one.size else 0
      if share:
        return f'differs from it in {share:.2%} of the results'
      continue
    usual = np.isfinite(other)
    if not np.array_equal(one[~usual], other[~usual], equal_nan=True):
      return 'differs from it in what is not finite'
    off = np.abs(one[usual] - other[usual]).max(initial=0)
    scale = max(1, np.abs(other[usual]).max(initial=0))
    if not off <= tolerance * scale:
      return f'differs from it by {off / scale:.2g} of the largest result'
  return ''


def _times(ours: Any, plain: Any, operands: tuple[Any, ...]) -> float:
  """How many times as long the kernel takes; both are compiled and warm."""
  operands = [jnp.asarray(x) if np.ndim(x) else x for x in operands]

  def seconds(run):
    start = _clock()
    jax.block_until_ready(run(*operands))
    return _clock() - start

  pairs = [(seconds(ours), seconds(plain)) for _ in range(_REPETITIONS)]
  own, other = (min(one) for one in zip(*pairs, strict=True))
  return own / max(other, 1e-9)
