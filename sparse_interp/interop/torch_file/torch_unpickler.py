"""A pickle machine for what torch.save writes about tensors, and no more.

It knows the opcodes that torch.save emits for tensors, numbers, strings, lists,
tuples and dicts; names are looked up in a table of the caller, and nothing is
ever imported. Memory is bounded by the length of the pickle: every declared
length is compared with what is there, and no index is the size of anything.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_OPCODES = {ord(op.code): op.name for op in pickletools.opcodes}
_STOP = ord('.')
# torch.save piles up at most a thousand entries of a container at a time.
_MOST_PILED = 100_000
_MOST_MARKS = 1000
# Larger numbers have hashes that collide, and so do tuples of a hostile choice:
# a dict of many such keys takes hours. Texts are hashed with a secret.
_LARGEST_KEY = 2**60
_MOST_TUPLES = 10_000


class RefusedError(ValueError):
  """Why a pickle is not taken; completes 'must'."""


class Maker(NamedTuple):
  """What a name in a pickle stands for if it may be called."""

  call: Callable


def unpickle(
  data: memoryview,
  names: Mapping[str, Any],
  load_storage: Callable[[Any], Any],
) -> Any:
  """Runs a pickle.

  Args:
    data: the pickle, as bytes.
    names: {'module.name': what it stands for}; all others are refused, and
      only Makers can be called.
    load_storage: from what stands for an object outside of the pickle (a
      persistent id) to the object.

  Returns:
    What it describes. It may still hold a Maker, or what load_storage gave, or
    itself.

  Raises:
    RefusedError: if it is damaged, or has anything that is not admitted.
  """
  machine = _Machine(data, names, load_storage)
  operations = machine.operations()
  try:
    while (code := machine.next_opcode()) != _STOP:
      if code not in operations:
        name = _OPCODES.get(code, f'{code:#04x}')
        raise RefusedError(
          f'hold tensors and plain values, not the opcode {name}'
        )
      operations[code]()
    return machine.pop()
  except (IndexError, struct.error):
    raise RefusedError('hold a whole pickle, not a damaged one') from None
  except UnicodeDecodeError:
    raise RefusedError('hold text in UTF-8') from None


def _is_key(value):
  # Hashes of nested tuples can take exponential time.
  flat = value if type(value) is tuple else (value,)
  return all(
    isinstance(part, str | float | None)
    or (isinstance(part, int) and abs(part) < _LARGEST_KEY)
    for part in flat
  )


def fill(target: dict, items: Sequence[Any]) -> dict:
  """Sets entries of a dict from its keys and values, one after the other.

  Raises:
    RefusedError: if a key is there twice, or is not plain.
  """
  for key, value in zip(items[::2], items[1::2], strict=True):
    # Released circuits have tensors of one number as keys.
    if isinstance(key, np.ndarray) and not key.ndim:
      key = key.item()
    if not _is_key(key):
      raise RefusedError(
        'have strings, numbers below 2**60 or tuples of them as keys'
      )
    if type(key) is tuple and len(target) >= _MOST_TUPLES:
      raise RefusedError(f'have at most {_MOST_TUPLES:,} tuples as keys')
    if key in target:
      raise RefusedError(f'have every key once, not {key!r:.100} twice')
    target[key] = value
  return target


class _Machine:
  """Stack, marks and memo of a pickle in progress."""

  def __init__(self, data, names, load_storage):
    self.data, self.position = data, 0
    self.names, self.load_storage = names, load_storage
    self.stack, self.below_mark, self.memo = [], [], {}

  def operations(self) -> dict[int, Callable[[], None]]:
    """What the admitted opcodes do."""
    push, number = self.push, self.number
    table = {
      'K': lambda: push(number('<B', 1)),
      'q': lambda: self.remember(number('<B', 1)),
      'h': lambda: self.recall(number('<B', 1)),
      'M': lambda: push(number('<H', 2)),
      'J': lambda: push(number('<i', 4)),
      'G': lambda: push(number('>d', 8)),
      'r': lambda: self.remember(number('<I', 4)),
      'j': lambda: self.recall(number('<I', 4)),
      '\x94': lambda: self.remember(len(self.memo)),
      'X': lambda: push(self.text(number('<I', 4))),
      '\x8c': lambda: push(self.text(number('<B', 1))),
      '\x8d': lambda: push(self.text(number('<Q', 8))),
      '\x8a': lambda: push(self.long(number('<B', 1))),
      'N': lambda: push(None),
      '\x88': lambda: push(True),
      '\x89': lambda: push(False),
      ']': lambda: push([]),
      '}': lambda: push({}),
      ')': lambda: push(()),
      '(': self.mark,
      'a': lambda: self.append(self.pop_some(1)),
      'e': lambda: self.append(self.pop_to_mark()),
      's': lambda: self.set_items(self.pop_some(2)),
      'u': lambda: self.set_items(self.pop_to_mark()),
      't': lambda: push(tuple(self.pop_to_mark())),
      '\x85': lambda: push(tuple(self.pop_some(1))),
      '\x86': lambda: push(tuple(self.pop_some(2))),
      '\x87': lambda: push(tuple(self.pop_some(3))),
      'c': lambda: self.find((self.line(), self.line())),
      '\x93': lambda: self.find(self.pop_some(2)),
      'Q': lambda: push(self.load_storage(self.pop())),
      'R': self.call,
      'b': self.ignore_state,
      '\x80': lambda: number('<B', 1),  # protocol
      '\x95': lambda: number('<Q', 8),  # length of a frame
    }
    return {ord(code): operation for code, operation in table.items()}

  def next_opcode(self):
    code = self.data[self.position]
    self.position += 1
    return code

  def number(self, form, size):
    self.position += size
    return struct.unpack_from(form, self.data, self.position - size)[0]

  def take(self, size):
    start, self.position = self.position, self.position + size
    if self.position > len(self.data):
      raise RefusedError(f'hold the {size:,} bytes of text that it declares')
    return bytes(self.data[start : self.position])

  def text(self, size):
    return self.take(size).decode()

  def long(self, size):
    return int.from_bytes(self.take(size), 'little', signed=True)

  def line(self):
    end = bytes(self.data[self.position : self.position + 200]).find(b'\n')
    if end < 0:
      raise RefusedError('hold names of less than 200 characters')
    return self.take(end + 1)[:-1].decode()

  def push(self, value):
    self.stack.append(value)
    if len(self.stack) > _MOST_PILED:
      raise RefusedError(f'pile up at most {_MOST_PILED:,} entries')

  def pop(self):
    return self.stack.pop()

  def pop_some(self, count):
    if len(self.stack) < count:
      raise IndexError
    items = self.stack[-count:]
    del self.stack[-count:]
    return items

  def mark(self):
    self.below_mark.append(self.stack)
    self.stack = []
    if len(self.below_mark) > _MOST_MARKS:
      raise RefusedError(f'be nested at most {_MOST_MARKS} deep')

  def pop_to_mark(self):
    items, self.stack = self.stack, self.below_mark.pop()
    return items

  def remember(self, index):
    self.memo[index] = self.stack[-1]

  def recall(self, index):
    if index not in self.memo:
      raise IndexError
    self.push(self.memo[index])

  def append(self, items):
    if not isinstance(self.stack[-1], list):
      raise RefusedError('append to lists only')
    self.stack[-1].extend(items)

  def set_items(self, items):
    target = self.stack[-1]
    if type(target) is not dict or len(items) % 2:
      raise RefusedError('set entries of dicts only, in pairs')
    fill(target, items)

  def find(self, words):
    if not all(isinstance(word, str) for word in words):
      raise RefusedError('have names that are text')
    name = '.'.join(words)
    if name not in self.names:
      raise RefusedError(
        f'hold tensors and plain values, not the name {name!r:.100}, which is '
        'neither'
      )
    self.push(self.names[name])

  def call(self):
    target, arguments = self.pop_some(2)
    if not isinstance(target, Maker):
      raise RefusedError('call what makes tensors and dicts, and nothing else')
    if type(arguments) is not tuple:
      raise RefusedError('call with a tuple of arguments')
    try:
      self.push(target.call(*arguments))
    except TypeError:
      raise RefusedError('describe tensors as torch.save does') from None

  def ignore_state(self):
    """State of dicts is bookkeeping of torch's modules (`_metadata`)."""
    target, _ = self.pop_some(2)
    if type(target) is not dict:
      raise RefusedError('set the state of dicts only')
    self.push(target)
