"""Steps of a small optimizer in a process of its own; prints what is off.

The tests run without the compiler's optimisations, under which a sum that is
computed twice is rounded twice alike. Users run with them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparse_interp.sparsity import projection, rules

SHAPES = {'a': (384, 16), 'b': (384, 16), 'c': (32, 96), 'd': (64, 64)}
COUNTS = {'a': 1000, 'b': 3000, 'c': 700, 'd': 1024}
STEPS = 300


def targets() -> dict[str, rules.Target]:
  """Two tensors searched as one, one with protected columns, one by blocks."""
  return {
    'a': rules.Target(COUNTS['a']),
    'b': rules.Target(COUNTS['b']),
    'c': rules.Target(COUNTS['c'], 0, 4),
    'd': rules.Target(COUNTS['d'], None, 0, 16),
  }


def main() -> None:
  """Prints a line for each count that is not what was asked for."""
  tx = optax.chain(
    optax.scale_by_adam(0.9, 0.95, 0.1),
    optax.scale_by_schedule(lambda step: -0.01 / (1 + step)),
    projection.keep_largest_weights(targets()),
  )
  rng = np.random.default_rng(0)
  params = {
    name: jnp.asarray(rng.normal(0, 0.02, shape).astype(np.float32))
    for name, shape in SHAPES.items()
  }

  @jax.jit
  def step(params, state, key):
    grads = {
      name: jax.random.normal(jax.random.fold_in(key, i), shape)
      for i, (name, shape) in enumerate(SHAPES.items())
    }
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    return params, state, {n: jnp.count_nonzero(p) for n, p in params.items()}

  state, off = tx.init(params), 0
  for i in range(STEPS):
    params, state, found = step(params, state, jax.random.key(i))
    for name, count in COUNTS.items():
      if int(found[name]) != count:
        off += 1
        print(f'step {i}: {name} has {int(found[name])}, asked {count}')
  print(f'{off} off')


if __name__ == '__main__':
  main()
