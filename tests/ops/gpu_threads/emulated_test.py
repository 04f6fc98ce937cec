"""What the emulation refuses, and that what is compiled has the same names."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops.gpu_threads import emitted, emulated, launch


def run(program, inputs=(), size=32, dtype=jnp.int32, shared=()):
  (result,) = launch.run(
    program,
    inputs,
    [jax.ShapeDtypeStruct((size,), dtype)],
    blocks=1,
    shared=shared,
    interpret=True,
  )
  return np.asarray(result)


def in_one_warp(t, body):
  t.when(t.warp == 0, body)


def test_operations_are_the_same_in_both_forms():
  def operations(kind):
    return {
      name: list(inspect.signature(method).parameters)
      for name, method in vars(kind).items()
      if inspect.isfunction(method) and not name.startswith('_')
    }

  assert operations(emulated.Threads) == operations(emitted.Threads)


def test_threads_that_stop_early_keep_what_they_have():
  def program(t, y):
    def body():
      (total,) = t.loop(
        t.whole(0), t.lane, lambda i, total: (total + i,), [t.whole(0)]
      )
      t.put_words(y, t.lane, 0, [total])

    in_one_warp(t, body)

  found = run(program)
  np.testing.assert_array_equal(found, [n * (n - 1) // 2 for n in range(32)])


def test_what_is_not_written_is_poisoned():
  def program(t, y):
    t.when(t.thread == 0, lambda: t.put_words(y, t.thread, 0, [t.whole(7)]))

  found = run(program, dtype=jnp.float32)
  assert np.isnan(found[1:]).all()
  assert not np.isnan(found[0])


@pytest.mark.parametrize(('first', 'count'), [(32, 1), (-1, 1), (30, 2)])
def test_reading_outside_of_an_array_is_an_error(first, count):
  def program(t, x, y):
    t.words(x, t.lane + first, count)

  with pytest.raises(Exception, match='of an array of 128'):
    run(program, [jnp.zeros(32, jnp.int32)])


def test_reading_what_is_not_aligned_is_an_error():
  def program(t, x, y):
    t.words(x, t.whole(1), 2)

  with pytest.raises(Exception, match='not aligned to 8 bytes'):
    run(program, [jnp.zeros(32, jnp.int32)])


def test_a_warp_or_block_that_meets_in_part_is_an_error():
  def sum_of_some(t, y):
    t.when(t.lane < 3, lambda: t.warp_sum(t.lane))

  def some_wait(t, y):
    in_one_warp(t, t.block_barrier)

  with pytest.raises(Exception, match='without some of its lanes'):
    run(sum_of_some)
  with pytest.raises(Exception, match='without some of its threads'):
    run(some_wait)


def test_copies_are_there_only_once_they_are_waited_for():
  def program(t, x, y, z, held):
    def body():
      t.copy_async(x, t.lane * 4, held, t.lane * 4)
      t.end_of_copies()
      (before,) = t.words(held, t.lane, 1)
      t.wait_for_copies()
      t.warp_barrier()
      (after,) = t.words(held, t.lane, 1)
      t.put_words(y, t.lane, 0, [before])
      t.put_words(z, t.lane, 0, [after])

    in_one_warp(t, body)

  before, after = launch.run(
    program,
    [jnp.arange(128, dtype=jnp.int32)],
    [jax.ShapeDtypeStruct((32,), jnp.int32)] * 2,
    blocks=1,
    shared=[(128, jnp.int32)],
    interpret=True,
  )
  assert not np.isin(before, np.arange(128)).any()
  np.testing.assert_array_equal(after, np.arange(32))


def test_numbers_are_those_of_the_device():
  words = np.array([0, 1, 2**31 - 1, -(2**31), -1, 5, -7, 0x3FC00001], np.int32)

  def program(t, x, y):
    def body():
      (word,) = t.words(x, t.lane & 7, 1)
      found = [
        t.count_up(t.whole(10), word, t.whole(-5)),
        t.shift_right(word, 4),
        t.narrow(t.as_float(word & 0x3FFFFFFF)),
        t.to_int(t.times(t.real(1.5), t.to_float(word & 255))),
      ]
      for i, value in enumerate(found):
        t.put_words(y, t.lane * 4, i, [value])

    in_one_warp(t, body)

  found = run(program, [jnp.asarray(words)], size=128).reshape(32, 4)[:8]
  unsigned = words.view(np.uint32)
  np.testing.assert_array_equal(found[:, 0], 10 + (unsigned >= 5))
  np.testing.assert_array_equal(found[:, 1], unsigned >> 4)
  floats = (words & 0x3FFFFFFF).view(np.float32)
  narrow = np.asarray(jnp.asarray(floats, jnp.bfloat16)).view(np.uint16)
  np.testing.assert_array_equal(found[:, 2], narrow)
  np.testing.assert_array_equal(found[:, 3], (words & 255) * 3 // 2)
