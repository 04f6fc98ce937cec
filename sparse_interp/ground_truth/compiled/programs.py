"""Programs that others have measured circuit finders on, ready to compile.

All are of Tracr's library. `frac_prevs` is the `proportion` of ACDC, `reverse`
its `reverse`, with that vocabulary and those lengths (arXiv 2304.14997).
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from sparse_interp.ground_truth.compiled.program import CompiledProgram, Value
from sparse_interp.ground_truth.compiled.tracr import (
  compile_program,
  require_tracr,
)

# All of them, compiled: <name>.npz.
SHIPPED = pathlib.Path(__file__).parent / 'shipped'


@dataclasses.dataclass(frozen=True)
class Published:
  """A program before it is compiled.

  Attributes:
    build: its expression, given the modules rasp and lib of Tracr.
    vocab: tokens that it reads.
    max_length: longest sequence, without BOS.
    unique_tokens: whether it is defined only without repeated tokens.
  """

  build: Callable[[Any, Any], Any]
  vocab: tuple[Value, ...]
  max_length: int = 5
  unique_tokens: bool = False


PROGRAMS = {
  'frac_prevs': Published(
    lambda rasp, lib: lib.make_frac_prevs(rasp.tokens == 'x'), tuple('wxyz')
  ),
  'hist': Published(lambda rasp, lib: lib.make_hist(), tuple('abc')),
  'length': Published(lambda rasp, lib: lib.make_length(), tuple('abc')),
  'reverse': Published(
    lambda rasp, lib: lib.make_reverse(rasp.tokens), (1, 2, 3)
  ),
  'sort_unique': Published(
    lambda rasp, lib: lib.make_sort_unique(rasp.tokens, rasp.tokens),
    (1, 2, 3, 4),
    unique_tokens=True,
  ),
  'pair_balance': Published(
    lambda rasp, lib: lib.make_pair_balance(rasp.tokens, '(', ')'),
    tuple('()'),
    max_length=8,
  ),
  'count_less_freq': Published(
    lambda rasp, lib: lib.make_count_less_freq(2), tuple('abc')
  ),
}


def compile_published(name: str, causal: bool = False) -> CompiledProgram:
  """Compiles one of PROGRAMS; see `compile_program`.

  Raises:
    ValueError: if there is no such program.
    ImportError: if Tracr is not installed.
  """
  if name not in PROGRAMS:
    raise ValueError(
      f'program must be one of {", ".join(PROGRAMS)}, got {name!r}; choose one '
      'of these, or use compile_program.'
    )
  require_tracr()
  from tracr.compiler import lib
  from tracr.rasp import rasp

  program = PROGRAMS[name]
  return compile_program(
    program.build(rasp, lib),
    program.vocab,
    program.max_length,
    causal,
    name,
    program.unique_tokens,
  )
