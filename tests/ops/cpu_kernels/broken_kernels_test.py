"""Kernels broken on purpose: the package says so, and is right all the same."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.ops.attention import attention, attention_kernels
from sparse_interp.ops.cpu_kernels import proving
from sparse_interp.ops.row_sparse import row_sparse, row_sparse_kernels
from sparse_interp.ops.row_sparse.row_pattern import RowPattern
from sparse_interp.ops.sparse_linear import sparse_linear
from sparse_interp.ops.topk import topk, topk_kernels
from tests.ops.row_sparse.sparse_matrices import make

ROOT = pathlib.Path(__file__).parents[3]

# Kernel, file, function, and a sign in it.
FLIPS = (
  ('attention_forward', 'attention_cpu', '_ONE, values', '-_ONE, values'),
  ('attention_backward', 'attention_cpu', '_ONE, pulls', '-_ONE, pulls'),
  ('abs_topk_of_rows', 'topk_cpu', 'k - _count', 'k + _count'),
  ('row_sparse_sampled', 'row_sparse_cpu', '+= dot', '-= dot'),
  ('row_sparse_kept_gradient', 'row_sparse_cpu', '+= term', '-= term'),
  ('rows_by_input', 'row_sparse_lists', '= row[j]', '= -row[j]'),
  ('rows_by_output', 'row_sparse_lists', '= row[j]', '= -row[j]'),
  # In the product's only sum.
  (
    'weigh',
    'native_vectors',
    'total = builder.fadd(builder.load(one)',
    'total = builder.fsub(builder.load(one)',
  ),
)
KERNELS = sorted(
  {flip[0] for flip in FLIPS} - {'weigh'} | {'row_sparse_product'}
)


def largest_differences():
  """Of every operation with kernels, from plain jax: {operation: number}."""
  rng = np.random.default_rng(0)
  q, k, v = jnp.asarray(rng.normal(size=(3, 2, 20, 2, 5)), jnp.float32)
  seen, sink = 1 + np.arange(20)[None], jnp.array([0.5, -1])
  rows = jnp.asarray(np.round(rng.normal(size=(30, 40)) * 2), jnp.float32)
  x = jnp.asarray(rng.normal(size=(3, 9, 64)), jnp.float32)
  matrix = jnp.asarray(make('skewed', 64, 50) + make('last weight', 64, 50))
  matrix = matrix.at[:, :4].set(0)
  w = row_sparse.from_dense(matrix)
  weight = jnp.cos(jnp.arange(50))

  def multiply(x, value, implementation):
    held = row_sparse.RowSparse(value, w.layout, w.shape)
    return row_sparse.row_sparse_matmul(x, held, implementation) ** 2 * weight

  def linear(x, matrix, implementation):
    pattern = RowPattern(implementation=implementation)
    y, _ = sparse_linear(x, matrix, pattern, 'kept')
    return y**2 * weight

  def attend(q, k, v, sink, implementation):
    y = attention.attention(q, k, v, seen, sink, implementation)
    return y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)

  def keep(x, implementation):
    y = topk.abs_topk(x, 7, implementation)
    return y * jnp.arange(40)

  operations = {
    'attention': (attend, (q, k, v, sink)),
    'topk': (keep, (rows,)),
    'matmul': (multiply, (x, w.value)),
    'linear': (linear, (x, matrix)),
  }
  found = {}
  for name, (function, operands) in operations.items():
    results = []
    for implementation in ('auto', 'reference'):

      def run(*operands, f=function, i=implementation):
        y, pull = jax.vjp(lambda *x: f(*x, i), *operands)
        return y, *pull(jnp.ones_like(y))

      results.append(jax.jit(run)(*operands))
    off = jax.tree.map(lambda a, b: np.abs(a - b).max(), *results)
    found[name] = max(float(one) for one in off)
  return found


def in_a_process(root, tmp_path, before='pass'):
  """What `largest_differences` finds there, and the lines on stderr."""
  script = f"""
import json
from sparse_interp.files import quiet
quiet.everywhere()
{before}
from tests.ops.cpu_kernels.broken_kernels_test import largest_differences
print(json.dumps(largest_differences()))
"""
  process = subprocess.run(
    [sys.executable, '-c', script],
    env=os.environ
    | {
      'PYTHONPATH': str(root),
      'XDG_CACHE_HOME': str(tmp_path / 'cache'),
      'XLA_FLAGS': '',
    },
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert process.returncode == 0, process.stderr
  lines = process.stderr.strip().splitlines()
  return json.loads(process.stdout), lines


def flip(root):
  for function, name, old, new in FLIPS:
    (path,) = (root / 'sparse_interp/ops').rglob(f'{name}.py')
    head, mark, rest = path.read_text().partition(f'def {function}(')
    assert old in rest
    path.write_text(head + mark + rest.replace(old, new, 1))


@pytest.mark.parametrize('name', KERNELS)
def test_no_kernel_steps_aside_here_but_for_its_time(name):
  # What takes its place is right, too, so that no other test would show it.
  (kernel,) = (
    one
    for module in (attention_kernels, row_sparse_kernels, topk_kernels)
    for one in vars(module).values()
    if isinstance(one, proving.NativeKernel) and one.name == name
  )
  outcome = proving._outcome(kernel)
  assert outcome.kind in ('passed', 'slower'), outcome.detail


@pytest.mark.slow
def test_every_kernel_with_a_flipped_sign_steps_aside(tmp_path):
  for name in ('sparse_interp', 'tests/ops'):
    shutil.copytree(ROOT / name, tmp_path / 'copy' / name)
  shutil.copy(ROOT / 'tests/conftest.py', tmp_path / 'copy/tests')
  flip(tmp_path / 'copy')
  for before in ('pass', _NOT_TRIED):
    found, lines = in_a_process(tmp_path / 'copy', tmp_path, before)
    assert max(found.values()) < 1e-3, found
    named = sorted(line.split('kernel ')[1].split()[0] for line in lines)
    assert named == KERNELS
    assert all('steps aside for plain jax: it differs' in x for x in lines)


# A second process knows from the first, and compares nothing.
_NOT_TRIED = """
from sparse_interp.ops.cpu_kernels import proving
proving._try = None
"""


@pytest.mark.slow
def test_without_numba_all_is_right_in_one_line(tmp_path):
  fake = tmp_path / 'fake/numba'
  fake.mkdir(parents=True)
  (fake / '__init__.py').write_text("raise ImportError('needs numpy 1')")
  before = f'import sys; sys.path.insert(0, {str(fake.parent)!r})'
  found, (line,) = in_a_process(ROOT, tmp_path, before)
  assert max(found.values()) < 1e-3, found
  assert 'Numba cannot be imported (ImportError: needs numpy 1)' in line


@pytest.mark.slow
@pytest.mark.parametrize('broken', [*KERNELS, 'all', 'none'])
def test_plain_jax_takes_the_place_of_any(broken, monkeypatch):
  stands = proving.stands
  monkeypatch.setattr(
    proving,
    'stands',
    lambda kernel: broken not in (kernel.name, 'all') and stands(kernel),
  )
  jax.clear_caches()
  found = largest_differences()
  jax.clear_caches()
  assert max(found.values()) < 1e-3, found
