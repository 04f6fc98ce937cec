"""Numbers of single threads and the memory they read, in Mosaic GPU."""

from jax.experimental.mosaic.gpu import utils
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm


def i32() -> ir.Type:
  """The type of whole numbers."""
  return ir.IntegerType.get_signless(32)


def constant(value: int | float, like: ir.Type) -> ir.Value:
  """A number of a type; a word may be written without its sign."""
  if like == i32() and value >= 2**31:
    value -= 2**32
  return utils.c(value, like)


class Value:
  """A number of each thread, with Python's operators."""

  def __init__(self, value: ir.Value):
    self.value = value

  def apply(self, operation, other):
    """The result of an operation of MLIR; numbers become constants."""
    if not isinstance(other, Value):
      other = Value(constant(other, self.value.type))
    return Value(operation(self.value, other.value))

  def _compare(self, predicate, other):
    return self.apply(lambda a, b: arith.cmpi(predicate, a, b), other)

  def __add__(self, other):
    return self.apply(arith.addi, other)

  __radd__ = __add__

  def __sub__(self, other):
    return self.apply(arith.subi, other)

  def __rsub__(self, other):
    return Value(constant(other, self.value.type)) - self

  def __mul__(self, other):
    return self.apply(arith.muli, other)

  __rmul__ = __mul__

  def __and__(self, other):
    return self.apply(arith.andi, other)

  def __or__(self, other):
    return self.apply(arith.ori, other)

  def __xor__(self, other):
    return self.apply(arith.xori, other)

  def __lshift__(self, other):
    return self.apply(arith.shli, other)

  def __ge__(self, other):
    return self._compare(arith.CmpIPredicate.sge, other)

  def __gt__(self, other):
    return self._compare(arith.CmpIPredicate.sgt, other)

  def __lt__(self, other):
    return self._compare(arith.CmpIPredicate.slt, other)

  def __eq__(self, other):
    return self._compare(arith.CmpIPredicate.eq, other)

  __hash__ = None


class Memory:
  """An array in global or shared memory."""

  def __init__(self, ref: ir.Value):
    space = 3 if utils.is_smem_ref(ref) else 1
    pointer = utils.memref_ptr(ref)
    wanted = llvm.PointerType.get(space)
    if pointer.type != wanted:
      pointer = llvm.addrspacecast(wanted, pointer)
    self._pointer = pointer
    self._type = ir.MemRefType(ref.type).element_type

  def at(self, index: Value, offset: int) -> ir.Value:
    """Pointer to an entry; what is constant becomes part of an instruction."""
    pointer = utils.getelementptr(self._pointer, [index.value], self._type)
    return utils.getelementptr(pointer, [offset], self._type)
