"""A program of single threads as code of Mosaic GPU.

What a kernel of Pallas cannot say, since its smallest value is a vector over
128 threads: each warp reads other rows of shared memory, and loops as often as
its own rows want. Code of Mosaic GPU can, and Pallas takes it in as it is. See
`emulated` for what the operations do; both have the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax.experimental.mosaic.gpu import utils
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, gpu, llvm, nvvm, scf

from sparse_interp.ops.gpu_threads.emitted_values import (
  Memory,
  Value,
  constant,
  i32,
)

_WARP = 32
_EVERY_LANE = 0xFFFFFFFF

Body = Callable[..., Any]


class Threads:
  """The operations of one thread; see `emulated.Threads`."""

  def __init__(self, block: ir.Value):
    self.block = Value(block)
    self.thread = Value(utils.thread_idx())
    self.lane = self.thread & (_WARP - 1)
    self.warp = Value(utils.warp_idx(sync=True))

  def whole(self, value: int) -> Value:
    """A whole number."""
    return Value(constant(value, i32()))

  def real(self, value: float) -> Value:
    """A float32."""
    return Value(constant(float(value), ir.F32Type.get()))

  def words(
    self,
    memory: Memory,
    index: Value,
    count: int,
    offset: int = 0,
    constant: bool = False,
    again: bool = False,
  ) -> list[Value]:
    """Reads words of 32 bits that lie one after the other."""
    kind = i32() if count == 1 else ir.VectorType.get((count,), i32())
    pointer = memory.at(index, offset)
    vector = llvm.load(
      kind,
      pointer,
      alignment=4 * count,
      volatile_=again or None,
      invariant=constant or None,
    )
    if count == 1:
      return [Value(vector)]
    places = [utils.c(i, i32()) for i in range(count)]
    return [Value(llvm.extractelement(vector, place)) for place in places]

  def put_words(
    self, memory: Memory, index: Value, offset: int, words: Sequence[Value]
  ) -> None:
    """Writes words of 32 bits one after the other; see `words`."""
    value = words[0].value
    if len(words) > 1:
      value = llvm.mlir_undef(ir.VectorType.get((len(words),), i32()))
      for i, word in enumerate(words):
        value = llvm.insertelement(value, word.value, utils.c(i, i32()))
    llvm.store(value, memory.at(index, offset), alignment=4 * len(words))

  def put_half(
    self, memory: Memory, index: Value, offset: int, half: Value
  ) -> None:
    """Writes the lower 16 bits."""
    short = arith.trunci(ir.IntegerType.get_signless(16), half.value)
    llvm.store(short, memory.at(index, offset), alignment=2)

  def copy_async(
    self,
    source: Memory,
    source_index: Value,
    target: Memory,
    target_index: Value,
    offset: int = 0,
  ) -> None:
    """Starts to copy 16 bytes from global memory to shared."""
    target_pointer = target.at(target_index, offset)
    self._assembly(
      'cp.async.cg.shared.global [$0], [$1], 16;',
      'r,l,~{memory}',
      llvm.ptrtoint(i32(), target_pointer),
      source.at(source_index, 0),
    )

  def end_of_copies(self) -> None:
    """No more copies belong to those that are waited for."""
    self._assembly('cp.async.commit_group;', '~{memory}')

  def wait_for_copies(self) -> None:
    """The copies of this thread have arrived; a warp needs a barrier too."""
    self._assembly('cp.async.wait_group 0;', '~{memory}')

  def _assembly(self, text, constraints, *operands):
    llvm.inline_asm(
      ir.Type.parse('!llvm.void'),
      list(operands),
      text,
      constraints,
      has_side_effects=True,
    )

  def shift_right(self, word: Value, places: int) -> Value:
    """Shifts zeros in from the left."""
    return word.apply(arith.shrui, places)

  def quotient(self, number: Value, by: int) -> Value:
    """number // by of numbers that are not negative; slow."""
    return number.apply(arith.divui, by)

  def as_float(self, word: Value) -> Value:
    """The float32 of these bits."""
    return Value(arith.bitcast(ir.F32Type.get(), word.value))

  def as_word(self, number: Value) -> Value:
    """The bits of a float32."""
    return Value(arith.bitcast(i32(), number.value))

  def narrow(self, number: Value) -> Value:
    """The bits of a float32 rounded to bfloat16."""
    half = arith.truncf(ir.BF16Type.get(), number.value)
    half = arith.bitcast(ir.IntegerType.get_signless(16), half)
    return Value(arith.extui(i32(), half))

  def fma(self, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once."""
    return Value(llvm.intr_fma(a.value, b.value, c.value))

  def select(self, condition: Value, a: Value, b: Value) -> Value:
    """a where the condition holds, else b."""
    return Value(arith.select(condition.value, a.value, b.value))

  def count_up(self, count: Value, word: Value, negated: Value) -> Value:
    """count + 1 where the word, without a sign, is at least -negated."""
    # Two instructions, where a comparison, its number and a sum are three.
    return Value(
      llvm.inline_asm(
        i32(),
        [count.value, word.value, negated.value],
        '{.reg .u32 t; add.cc.u32 t, $2, $3; addc.u32 $0, $1, 0;}',
        '=r,r,r,r',
      )
    )

  def to_float(self, number: Value) -> Value:
    """The float32 nearest to a whole number."""
    return Value(arith.sitofp(ir.F32Type.get(), number.value))

  def to_int(self, number: Value) -> Value:
    """A float32 without what follows the point."""
    return Value(arith.fptosi(i32(), number.value))

  def times(self, a: Value, b: Value) -> Value:
    """a * b of float32."""
    return Value(arith.mulf(a.value, b.value))

  def divided(self, a: Value, b: Value) -> Value:
    """a / b of float32, to a unit of the last place or two."""
    return Value(arith.divf(a.value, b.value))

  def minimum(self, a: Value, b: Value) -> Value:
    """The smaller of two whole numbers."""
    return Value(arith.minsi(a.value, b.value))

  def maximum(self, a: Value, b: Value) -> Value:
    """The larger of two whole numbers."""
    return Value(arith.maxsi(a.value, b.value))

  def as_count(self, condition: Value) -> Value:
    """1 where the condition holds, else 0."""
    return Value(arith.extui(i32(), condition.value))

  def warp_sum(self, value: Value) -> Value:
    """Sum over the warp, in each of its lanes."""
    return self._over_warp(value, nvvm.ReductionKind.ADD)

  def warp_max(self, value: Value) -> Value:
    """Largest of the warp, in each of its lanes."""
    return self._over_warp(value, nvvm.ReductionKind.MAX)

  def _over_warp(self, value, kind):
    mask = utils.c(_EVERY_LANE - 2**32, i32())
    return Value(utils.redux(value.value, mask, kind))

  def warp_barrier(self) -> None:
    """All lanes of a warp see what the others wrote."""
    utils.warp_barrier()

  def block_barrier(self) -> None:
    """All threads of a block see what the others wrote."""
    gpu.barrier()

  def when(self, condition: Value, body: Body) -> None:
    """Runs the body in the threads where the condition holds."""
    with utils.when(condition.value):
      body()

  def loop(
    self,
    begin: Value,
    end: Value,
    body: Body,
    carry: Sequence[Value] = (),
    step: int = 1,
  ) -> list[Value]:
    """`carry = body(i, *carry)` for i from begin to before end."""
    loop = scf.ForOp(
      begin.value, end.value, utils.c(step, i32()), [c.value for c in carry]
    )
    with ir.InsertionPoint(loop.body):
      inner = [Value(v) for v in loop.inner_iter_args]
      following = body(Value(loop.induction_variable), *inner) or ()
      scf.YieldOp([v.value for v in following])
    return [Value(v) for v in loop.results]

  def repeat(
    self, condition: Body, body: Body, carry: Sequence[Value]
  ) -> list[Value]:
    """`carry = body(*carry)` while a condition holds."""
    types = [c.value.type for c in carry]
    loop = scf.WhileOp(types, [c.value for c in carry])
    before = loop.before.blocks.append(*types)
    with ir.InsertionPoint(before):
      arguments = list(before.arguments)
      more = condition(*map(Value, arguments))
      scf.ConditionOp(more.value, arguments)
    after = loop.after.blocks.append(*types)
    with ir.InsertionPoint(after):
      following = body(*map(Value, after.arguments))
      scf.YieldOp([v.value for v in following])
    return [Value(v) for v in loop.results]
