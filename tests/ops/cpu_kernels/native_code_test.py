"""Machine code that is kept: taken again only where it would be the same."""

import ctypes
import json
import os
import pathlib
import subprocess
import sys

import pytest

from sparse_interp.ops.cpu_kernels import native, native_code, outcomes


@native.machine_code
def _twice(word):
  return 2 * word


def work(word):
  return _twice(word) + 1


def entry_of(added):
  """A function with a constant of its own, like that of another kernel."""

  def entry(word):
    return _twice(word) + added

  return entry


def run(loaded, word):
  function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
  return function(loaded.address)(word)


@pytest.fixture
def directory(tmp_path, monkeypatch):
  """Where code is kept, empty at first."""
  monkeypatch.setattr(outcomes, 'directory', lambda: tmp_path / 'kept')
  return tmp_path / 'kept'


@pytest.fixture
def compiled(monkeypatch):
  """Names of what had to be compiled."""
  compile_, names = native_code._compile, []

  def noting(entry):
    names.append(entry.__name__)
    return compile_(entry)

  monkeypatch.setattr(native_code, '_compile', noting)
  return names


def test_it_is_compiled_once(directory, compiled):
  for _ in range(2):
    loaded = native_code.load('k', work, entry_of(1))
    assert run(loaded, 20) == 41
  assert len(compiled) == 1
  assert [p.name[:2] for p in directory.iterdir()] == ['k-']


def test_kernels_of_one_process_are_kept_apart(directory):
  loaded = [native_code.load(f'k{i}', work, entry_of(i)) for i in range(3)]
  again = [native_code.load(f'k{i}', work, entry_of(99)) for i in range(3)]
  for one in (loaded, again):  # those of the kept files, not of 99
    assert [run(function, 5) for function in one] == [10, 11, 12]


@pytest.mark.parametrize(
  'damage',
  [
    lambda content: content[:-1],
    lambda content: b'',
    lambda content: content[:100] + bytes([content[100] ^ 1]) + content[101:],
  ],
)
def test_what_is_damaged_is_compiled_anew(directory, compiled, damage):
  native_code.load('k', work, entry_of(1))
  (path,) = directory.iterdir()
  whole = path.read_bytes()
  path.write_bytes(damage(whole))
  assert run(native_code.load('k', work, entry_of(1)), 3) == 7
  assert len(compiled) == 2
  native_code.load('k', work, entry_of(1))
  assert len(compiled) == 2


def test_another_source_machine_or_compiler_is_another_key(
  tmp_path, monkeypatch
):
  keys = {native_code._key('k', work, ('x86', 'zen'))}
  keys.add(native_code._key('k', work, ('x86', 'skylake')))
  keys.add(native_code._key('l', work, ('x86', 'zen')))
  monkeypatch.setattr(native_code.numba, '__version__', '0.0')
  keys.add(native_code._key('k', work, ('x86', 'zen')))
  monkeypatch.setenv('NUMBA_OPT', '1')
  keys.add(native_code._key('k', work, ('x86', 'zen')))
  here = tmp_path / 'ops' / 'cpu_kernels'
  here.mkdir(parents=True)
  monkeypatch.setattr(native_code, '__file__', str(here / 'native_code.py'))
  for text in ('LANES = 8', 'LANES = 4'):
    (here.parent / 'native_vectors.py').write_text(text)
    keys.add(native_code._key('k', work, ('x86', 'zen')))
  assert len(keys) == 7


def test_what_was_not_written_for_a_month_makes_room(directory):
  native_code.load('k', work, entry_of(1))
  (path,) = directory.iterdir()
  for name in ('k-old', 'l-old'):
    (directory / name).touch()
    os.utime(directory / name, (0, 0))
  path.unlink()
  native_code.load('k', work, entry_of(1))
  assert {p.name for p in directory.iterdir()} == {path.name, 'l-old'}


def test_a_place_that_cannot_be_written_costs_only_time(
  tmp_path, monkeypatch, compiled
):
  (tmp_path / 'file').touch()
  monkeypatch.setattr(outcomes, 'directory', lambda: tmp_path / 'file' / 'kept')
  for _ in range(2):
    assert run(native_code.load('k', work, entry_of(1)), 0) == 1
  assert len(compiled) == 2


_SCRIPT = """
import hashlib, json
import jax, jax.numpy as jnp, numpy as np
from sparse_interp.ops.attention import attention_cpu
from sparse_interp.ops.cpu_kernels import native_code
from sparse_interp.ops.row_sparse import row_sparse_cpu, row_sparse_lists
from sparse_interp.ops.topk import topk_cpu
compile_, names = native_code._compile, []
def noting(entry):
  names.append(entry.__name__)
  return compile_(entry)
native_code._compile = noting

def everything(x):
  q, k, v, dy = x.reshape(4, 2, 10, 2, 16)
  logs = jnp.ones((2, 2, 10))
  seen = jnp.tile(jnp.arange(1, 11, dtype=jnp.int32), (2, 1))
  heads = q, k, v, seen, jnp.zeros((2, 2))
  matrix = topk_cpu.abs_topk_rows(x.reshape(-1, 64), 7)
  found = [matrix, *attention_cpu.forward(*heads)]
  found += attention_cpu.backward(*heads, logs, logs, dy)
  tokens = x[: 5 * matrix.shape[0]].reshape(5, -1)
  dy = x[:320].reshape(5, 64)
  value, *rows, count = row_sparse_lists.by_input(matrix, 7 * 40)
  found += [value, *rows, count]
  found.append(row_sparse_cpu.kept_gradient(*rows, tokens, dy))
  value, *rows, count = row_sparse_lists.by_output(matrix, 7 * 40)
  found += [value, *rows, count]
  found.append(row_sparse_cpu.product(value, *rows, tokens))
  found.append(row_sparse_cpu.sampled(*rows, tokens, dy))
  return found

x = np.random.default_rng(0).standard_normal(2560, np.float32)
found = jax.jit(everything)(x)
bits = b''.join(np.asarray(part).tobytes() for part in found)
print(json.dumps([hashlib.sha256(bits).hexdigest(), len(names)]))
"""


@pytest.mark.slow
def test_another_process_takes_the_kernels_and_xla_the_program(tmp_path):
  """What was compiled elsewhere has all that it needs, and the same results."""
  root = pathlib.Path(__file__).parents[3]
  environment = os.environ | {
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'jax'),
    'XDG_CACHE_HOME': str(tmp_path),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'PYTHONPATH': str(root),
  }
  results = []
  for expected in (8, 0):
    process = subprocess.run(
      [sys.executable, '-c', _SCRIPT],
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )
    assert process.returncode == 0, process.stderr
    result, compiled = json.loads(process.stdout)
    assert compiled == expected
    results.append(result)
  assert results[0] == results[1]
