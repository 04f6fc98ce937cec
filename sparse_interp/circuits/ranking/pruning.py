"""Learned gates: one jitted optimisation that says which units matter.

The published method (arXiv 2511.13653, section A.5) learns a parameter for each
node; the same with one for each nonzero weight prunes edges. The rank that the
gates end up with, not their number, is what `selecting` makes a circuit of.
"""

import functools
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import attribution, gate_steps
from sparse_interp.circuits.unfinished import Unfinished
from sparse_interp.circuits.units import Units
from sparse_interp.files import pace

# Steps between two calls of the progress function. One compilation covers all
# chunks: the steps of the last one that are beyond the end do nothing.
_CHUNK = 10

# Numbers in the residual stream of a job's batch from which on it keeps a CPU
# busy alone: side by side, jobs then only lose their places in the caches.
_LARGE = 2**15

# Pairs or sequences that attribution looks at, where gates start from it.
_ATTRIBUTED = 64


class Optimized(NamedTuple):
  """Result of the optimisation.

  Attributes:
    tau: {key: final gate parameters}.
    tau_mean: {key: their means over all steps}: it separates units that were
      clamped to the same bound, in the order in which they got there.
    history: {'step', 'task_loss', 'active'}, equally long lists.
  """

  tau: dict[str, Float[np.ndarray, '_']]
  tau_mean: dict[str, Float[np.ndarray, '_']]
  history: dict[str, list]


def _lead(units: Units, data: Batch) -> dict[str, Float[np.ndarray, '_']]:
  """1 for the unit that attribution ranks first, 0 for the last."""
  some = data.take(np.arange(min(_ATTRIBUTED, data.size)))
  # By size: a unit that makes the loss worse may still be part of the circuit.
  scores = np.abs(attribution.eap_ig(units.by_kind()[0], some))
  order = attribution.order(scores)
  rank = np.empty(order.size, np.float32)
  rank[order] = np.arange(order.size)
  lead = 1 - np.log1p(rank) / np.log1p(max(order.size - 1, 1))
  return units.split(lead.astype(np.float32))


def _leads(units, jobs):
  """Where the gates of each job start from, once for all of equal data."""
  level, known = units.filled(0.0), {}
  for data, config, _ in jobs:
    if config.init_attribution > 0 and id(data) not in known:
      known[id(data)] = _lead(units, data)
  return [
    known[id(data)] if config.init_attribution > 0 else level
    for data, config, _ in jobs
  ]


def draw_batches(
  pair_count: int, batch_pairs: int, steps: int, seed: int
) -> Int[np.ndarray, 'steps batch']:
  """Indices of the pairs of each step: shuffled epochs, one after another."""
  rng = np.random.default_rng(seed)
  needed = steps * batch_pairs
  epochs = [
    rng.permutation(pair_count) for _ in range(-(-needed // pair_count))
  ]
  return np.concatenate(epochs)[:needed].reshape(steps, batch_pairs)


def optimize(
  units: Units,
  data: Batch,
  prune_config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
  unfinished: Unfinished | None = None,
) -> Optimized:
  """Learns a gate for every unit.

  Everything that differs between tasks is an argument of the compiled
  function, so that tasks of equal shapes share one compilation.

  Args:
    units: of the model with its ablation.
    data: training pairs or sequences.
    prune_config: hyper-parameters.
    seed: of the initial noise and of the batches.
    progress: called now and then with what there is to show.
    unfinished: keeps the gates now and then, and goes on with those it has.

  Returns:
    Gate parameters and history.
  """
  jobs = [(data, prune_config, seed)]
  return _optimize(
    functools.partial(gate_steps.run_chunk, units.model, data),
    gate_steps.start_one,
    jobs,
    units,
    lambda: _leads(units, jobs),
    progress,
    lambda parts: parts[0],
    unfinished or Unfinished(),
  )[0]


def optimize_together(
  units: Units,
  jobs: Sequence[tuple[Batch, PruneConfig, int]],
  progress: Progress | None = None,
) -> list[Optimized]:
  """Several optimisations as one call, vmapped, shared out over all devices.

  Large ones on a single CPU take turns within the call.

  Args:
    units: of the model with its ablation.
    jobs: data of equal shapes, hyper-parameters with equal `steps` and
      `batch_pairs`, and seed of each.
    progress: called now and then with what the first job has to show.

  Returns:
    What `optimize` returns, for each job, to rounding.
  """
  if len(jobs) == 1:
    return [optimize(units, *jobs[0], progress)]
  # Jobs know nothing of each other: devices share them out.
  count = math.gcd(len(jobs), jax.device_count())
  mesh = Mesh(np.array(jax.devices()[:count]), ('jobs',))
  everywhere = NamedSharding(mesh, PartitionSpec())
  shared_out = NamedSharding(mesh, PartitionSpec('jobs'))

  batch = jax.eval_shape(jobs[0][0].take, np.arange(jobs[0][1].batch_pairs))
  numbers = batch.tokens.size * units.model.config.d_model
  in_turn = jax.default_backend() == 'cpu' and count == 1 and numbers > _LARGE

  def stack(parts):
    join = lambda *parts: jax.device_put(np.stack(parts), shared_out)  # noqa: E731
    return jax.tree.map(join, *parts)

  data, data_axis = jax.device_put(jobs[0][0], everywhere), None
  if any(own is not jobs[0][0] for own, *_ in jobs):
    data, data_axis = stack([own for own, *_ in jobs]), 0
  shared_model = jax.device_put(units.model, everywhere)

  def run(hyper, state, indices, wanted):
    # A state that comes back says otherwise where it lies, though it lies
    # there, and would have the program compiled again.
    state = jax.device_put(state, shared_out)
    return gate_steps.run_chunks(
      *(shared_model, data, hyper, state, indices, wanted),
      data_axis=data_axis,
      in_turn=in_turn,
    )

  leads = lambda: _leads(units, jobs)  # noqa: E731
  start = gate_steps.start_several
  return _optimize(
    run, start, jobs, units, leads, progress, stack, Unfinished()
  )


def _optimize(run, start, jobs, units, leads, progress, stack, unfinished):
  """`stack` joins the arrays of all jobs into those that the others take."""
  configs = [config for _, config, _ in jobs]
  steps = configs[0].steps
  chunks = -(-steps // _CHUNK)
  hyper = stack([gate_steps.hyperparameters(config) for config in configs])
  seeds = stack([np.uint32(seed % 2**32) for *_, seed in jobs])
  fixed = tuple(units.sizes), len(units.model.kinds)
  begin = lambda leads: start(hyper, stack(leads), seeds, *fixed)  # noqa: E731
  # (2, jobs, steps): losses and active units.
  numbers = np.zeros((2, len(jobs), chunks * _CHUNK), np.float32)
  known = _restore(
    unfinished, lambda: begin([units.filled(0.0)] * len(jobs)), numbers
  )
  state, numbers = known or (begin(leads()), numbers)
  first = int(np.max(state.step))
  batches = [
    draw_batches(data.size, config.batch_pairs, chunks * _CHUNK, seed)
    for data, config, seed in jobs
  ]
  began = time.monotonic()
  for i in range(-(-first // _CHUNK), chunks):
    part = slice(i * _CHUNK, (i + 1) * _CHUNK)
    indices = stack([own[part] for own in batches])
    wanted = np.arange(chunks * _CHUNK)[part] < steps
    state, shown = run(hyper, state, indices, wanted)
    numbers[:, :, part] = np.asarray(shown).reshape(2, len(jobs), -1)
    done = min((i + 1) * _CHUNK, steps)
    _keep(unfinished, state, numbers, done == steps)
    if progress is not None:
      last = numbers[:, 0, done - 1]
      progress(
        {
          'phase': 'optimise',
          'step': done,
          'steps': steps,
          'task_loss': float(last[0]),
          'active': int(last[1]),
          'seconds_left': pace.seconds_left(began, done - first, steps - first),
        }
      )
  numbers = numbers[:, :, :steps]
  return [_result(state, numbers, units, i) for i in range(len(jobs))]


def _result(state, numbers, units, job):
  """What one job has learned."""
  jobs, steps = numbers.shape[1:]
  own = lambda arrays: {  # noqa: E731
    key: np.asarray(arrays[key]).reshape(jobs, -1)[job] for key in units.sizes
  }
  history = {
    'step': list(range(1, steps + 1)),
    'task_loss': numbers[0, job].tolist(),
    'active': [int(n) for n in numbers[1, job]],
  }
  tau_mean = {k: total / steps for k, total in own(state.tau_sum).items()}
  return Optimized(own(state.tau), tau_mean, history)


def _arrays(state, numbers):
  """A state as plain arrays, and what was shown of its steps."""
  plain = state._replace(key=jax.random.key_data(state.key))
  return [*jax.tree.leaves(plain), numbers]


def _keep(unfinished, state, numbers, last):
  unfinished.keep_gates(
    lambda: [np.asarray(array) for array in _arrays(state, numbers)], last
  )


def _restore(unfinished, begin, numbers):
  """State and numbers as they were kept; None if they were not."""
  shapes = jax.eval_shape(lambda: _arrays(begin(), numbers))
  arrays = unfinished.gates(shapes)
  if arrays is None:
    return None
  *leaves, numbers = arrays
  state = jax.tree.unflatten(
    jax.tree.structure(jax.eval_shape(begin)), [jnp.asarray(x) for x in leaves]
  )
  return state._replace(key=jax.random.wrap_key_data(state.key)), numbers
