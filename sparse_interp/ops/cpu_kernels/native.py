"""Kernels of our own for CPUs: compiled by Numba, called by XLA.

XLA offers no way to say what a CPU should keep in its caches or registers. A
kernel here is a Python function that Numba compiles to machine code and XLA
calls through its foreign function interface (https://docs.jax.dev, "Foreign
function interface"), on the threads of XLA itself: there is no second pool that
would compete for the cores.

A kernel is written as `work(state, part, parts)` and does its share of the
output, the `part`-th of `parts`; it finds its operands and results with
`floats`, `ints` and `size`, counted from the first operand. All shares of a
call run side by side; the last one to end tells XLA that the results are there.
"""

import ctypes
import functools
import inspect
import threading
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numba
import numpy as np
from jaxtyping import Array
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from sparse_interp.ops.cpu_kernels import native_code

# Places in XLA's C structures, in words of 8 bytes; from xla/ffi/api/c_api.h,
# where fields are only ever added at the end.
_FRAME_WORDS, _EXTENSION, _API, _CONTEXT, _STAGE = 22, 1, 2, 3, 4
_N_OPERANDS, _OPERANDS, _N_RESULTS, _RESULTS, _FUTURE = 7, 9, 12, 14, 21
_API_WORDS, _VERSION, _SCHEDULE, _N_THREADS = 21, 4, 17, 18
_MAKE_FUTURE, _END_FUTURE = 19, 20
_BUFFER_WORDS, _DATA, _RANK, _SIZES = 6, 3, 4, 5
_ASKS_FOR_VERSION, _EXECUTES = 1, 3

# The state of a call: an extra result, which lives until the call has ended.
# Its first word tells it from a frame, which begins with its size.
_MARK, _NEXT, _LEFT, _PARTS, _END, _PROMISE = range(6)
_IS_STATE = -1
_ARGUMENTS = 8
_BUFFERS = 16
_WORDS_OF_BUFFER = 3
_STATE_WORDS = 64


def machine_code(function: Callable) -> Any:
  """Has Numba compile a function when it is first called by a kernel.

  What is compiled is what was written: a check of types around it, as the tests
  put there, is an object of Python's.
  """
  return numba.njit(inspect.unwrap(function))


_REGISTERING = threading.Lock()


@intrinsic
def _pointer(typing_context, address):
  del typing_context, address

  def generate(context, builder, signature, arguments):
    del context, signature
    return builder.inttoptr(arguments[0], cgutils.voidptr_t)

  return types.voidptr(types.int64), generate


@intrinsic
def _call(typing_context, function, argument):
  """Calls a C function by its address; it takes and returns one address."""
  del typing_context, function, argument

  def generate(context, builder, signature, arguments):
    del context, signature
    word = ir.IntType(64)
    function = ir.FunctionType(word, [word]).as_pointer()
    return builder.call(builder.inttoptr(arguments[0], function), arguments[1:])

  return types.int64(types.int64, types.int64), generate


@intrinsic
def _own_address(typing_context):
  """Where C finds the function that this is called in."""
  del typing_context

  def generate(context, builder, signature, arguments):
    del context, signature, arguments
    word = ir.IntType(64)
    function = cgutils.get_or_insert_function(
      builder.module,
      ir.FunctionType(word, [word]),
      native_code.name_in_c(builder.function.name),
    )
    return builder.ptrtoint(function, word)

  return types.int64(), generate


@intrinsic
def _fetch_and_add(typing_context, address, amount):
  """Adds in one step that other threads see whole; returns what was there."""
  del typing_context, address, amount

  def generate(context, builder, signature, arguments):
    del context, signature
    place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
    return builder.atomic_rmw('add', place, arguments[1], 'seq_cst')

  return types.int64(types.int64, types.int64), generate


@machine_code
def _words(address, count):
  return numba.carray(_pointer(address), count, np.int64)


@machine_code
def size(state, buffer, axis):
  """Length of an axis, 0 or 1; axes after the first count as one."""
  return _words(state, _STATE_WORDS)[
    _BUFFERS + _WORDS_OF_BUFFER * buffer + 1 + axis
  ]


@machine_code
def _address(state, buffer):
  return _words(state, _STATE_WORDS)[_BUFFERS + _WORDS_OF_BUFFER * buffer]


@machine_code
def floats(state, buffer):
  """An operand or result of float32, flat."""
  count = size(state, buffer, 0) * size(state, buffer, 1)
  return numba.carray(_pointer(_address(state, buffer)), count, np.float32)


@machine_code
def ints(state, buffer):
  """An operand or result of int32, or the bits of float32, flat."""
  count = size(state, buffer, 0) * size(state, buffer, 1)
  return numba.carray(_pointer(_address(state, buffer)), count, np.int32)


@machine_code
def _note_buffers(frame, state):
  """Copies addresses and sizes: what XLA passes ends before the threads do."""
  f, s = _words(frame, _FRAME_WORDS), _words(state, _STATE_WORDS)
  place = _BUFFERS
  for count, list_of in ((_N_OPERANDS, _OPERANDS), (_N_RESULTS, _RESULTS)):
    buffers = _words(f[list_of], f[count])
    for i in range(f[count]):
      buffer = _words(buffers[i], _BUFFER_WORDS)
      sizes = _words(buffer[_SIZES], buffer[_RANK])
      s[place] = buffer[_DATA]
      s[place + 1] = s[place + 2] = 1
      for axis in range(buffer[_RANK]):
        s[place + 1 + min(axis, 1)] *= sizes[axis]
      place += _WORDS_OF_BUFFER


@machine_code
def _begin(frame, task):
  """Shares a call out to the threads of XLA and returns the state."""
  f = _words(frame, _FRAME_WORDS)
  api = _words(f[_API], _API_WORDS)
  results = _words(f[_RESULTS], f[_N_RESULTS])
  state = _words(results[f[_N_RESULTS] - 1], _BUFFER_WORDS)[_DATA]
  s = _words(state, _STATE_WORDS)
  arguments = state + 8 * _ARGUMENTS
  a = _words(arguments, _BUFFERS - _ARGUMENTS)
  _note_buffers(frame, state)

  parts_at = 7  # in a; the answer, behind the arguments
  a[0], a[1], a[2], a[3] = 32, 0, f[_CONTEXT], arguments + 8 * parts_at
  a[parts_at] = 1
  _call(api[_N_THREADS], arguments)
  parts = max(1, a[parts_at])
  a[0], a[1], a[2] = 24, 0, 0
  _call(api[_MAKE_FUTURE], arguments)
  f[_FUTURE] = a[2]
  s[_MARK] = _IS_STATE
  s[_NEXT], s[_LEFT], s[_PARTS] = 0, parts, parts
  s[_END], s[_PROMISE] = api[_END_FUTURE], a[2]
  a[0], a[1], a[2], a[3], a[4] = 40, 0, f[_CONTEXT], task, state
  for _ in range(parts - 1):
    _call(api[_SCHEDULE], arguments)
  return state


@machine_code
def _is_run(frame):
  """Whether to compute; XLA first asks for the version that we speak."""
  f = _words(frame, _FRAME_WORDS)
  if f[_EXTENSION] != 0:
    extension = _words(f[_EXTENSION], 4)
    if extension[1] & 0xFFFFFFFF == _ASKS_FOR_VERSION:
      # Major and minor number in one word: that of the XLA at hand.
      _words(extension[3], 6)[3] = _words(f[_API], _API_WORDS)[_VERSION]
      return False
  return f[_STAGE] & 0xFFFFFFFF == _EXECUTES


@machine_code
def _end(state):
  s = _words(state, _STATE_WORDS)
  end, promise = s[_END], s[_PROMISE]
  if _fetch_and_add(state + 8 * _LEFT, -1) == 1:
    # None is left, so that the place of the arguments is free.
    arguments = state + 8 * _ARGUMENTS
    a = _words(arguments, 3)
    a[0], a[1], a[2] = 24, 0, promise
    _call(end, arguments)


@functools.cache
def _register(work: Any) -> tuple[str, native_code.Loaded]:
  """Makes a kernel known to XLA; compiled if no other process has done so."""
  code = native_code.load(
    work.__name__, inspect.unwrap(work.py_func), _entry(work)
  )
  name = f'sparse_interp.{work.__name__}'
  jax.ffi.register_ffi_target(
    name, jax.ffi.pycapsule(ctypes.c_void_p(code.address)), platform='cpu'
  )
  return name, code  # which must outlive every program that calls it


@typing.no_type_check
def _entry(work):
  """What XLA calls with a frame, and its threads with the state of a call.

  One function, since machine code that is kept from run to run can hold no
  address but its own.
  """

  def entry(argument):
    if _words(argument, 1)[0] == _IS_STATE:
      part = _fetch_and_add(argument + 8 * _NEXT, 1)
      work(argument, part, _words(argument, _STATE_WORDS)[_PARTS])
      _end(argument)
    elif _is_run(argument):
      address = _own_address()
      _call(address, _begin(argument, address))
    return 0

  return entry


def prepare(work: Callable[..., None]) -> str:
  """Compiles a kernel and makes it known to XLA; returns its key.

  The key is that of `native_code.Loaded`.
  """
  with _REGISTERING:
    _, code = _register(work)
  return code.key


def call(
  work: Callable[..., None],
  results: Sequence[jax.ShapeDtypeStruct],
  *operands: Array,
) -> list[Array]:
  """Runs a kernel on the CPU, inside or outside of jit; batches one by one.

  Args:
    work: a function (state, part, parts) made by `machine_code`.
    results: shapes of what it writes, float32 or int32.
    operands: float32 or int32, contiguous in the order of their axes.
  """
  with _REGISTERING:
    name, *_ = _register(work)
  state = jax.ShapeDtypeStruct((2 * _STATE_WORDS,), jnp.int32)
  run = jax.ffi.ffi_call(name, (*results, state), vmap_method='sequential')
  *outputs, _ = run(*operands)
  return outputs
