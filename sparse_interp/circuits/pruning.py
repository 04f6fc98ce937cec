"""Learned gates: one jitted optimisation that says which units matter.

The published method (arXiv 2511.13653, section A.5): a parameter tau per node,
clamped to [-1, 1]; the gate is on where tau > 0; task loss plus a price per
active node; AdamW with clipping, warm-up and linear decay. The same with a
parameter per nonzero weight prunes edges. The rank that the gates end up with,
not their number, is what `selection` builds a circuit from.
"""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from sparse_interp.circuits import attribution, selection
from sparse_interp.circuits.gated_model import (
  GatedModel,
  Units,
  outputs,
  unfold,
)
from sparse_interp.circuits.gates import heaviside
from sparse_interp.circuits.prune_config import PruneConfig

# Called with what there is to show: phase, step, steps, task_loss, nodes,
# seconds_left.
Progress = Callable[[Mapping[str, Any]], None]

# Steps between two calls of the progress function. One compilation covers all
# chunks: the steps of the last one that are beyond the end do nothing.
_CHUNK = 10

# Pairs or sequences that attribution looks at, where gates start from it.
_ATTRIBUTED = 64


class GateState(NamedTuple):
  """What a step of the optimisation carries on.

  Attributes:
    tau: {key: gate parameters in [-1, 1]}.
    calibration: log of the scale, and the shift, of answer logit differences.
    tau_sum: {key: sum of tau over the steps done}.
    optimizer: state of the optax chain.
    key: draws other prompts and subsets.
    step: steps done.
  """

  tau: Units
  calibration: Float[Array, '2']
  tau_sum: Units
  optimizer: Any
  key: Key[Array, '']
  step: Int[Array, '']


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


def hyperparameters(config: PruneConfig) -> dict[str, np.float32]:
  """The numbers of a step as arrays: changing one compiles nothing anew."""
  names = (
    'steps k_coef k_warmup_fraction weight_decay learning_rate kl_weight '
    'warmup_fraction beta1 inv_beta2 temperature clip init_noise_scale '
    'init_noise_bias init_attribution'
  ).split()
  hyper = {name: getattr(config, name) for name in names}
  hyper['calibrate'] = config.calibrate == 'during'
  return {name: np.float32(value) for name, value in hyper.items()}


def _learning_rate(hyper: Mapping, step: Int[Array, '']) -> Float[Array, '']:
  """Linear warm-up, then linear decay that would reach 0 after the end."""
  warmup = hyper['warmup_fraction'] * hyper['steps']
  rising = (step + 1) / jnp.maximum(warmup, 1)
  falling = (hyper['steps'] - step) / (hyper['steps'] - warmup)
  return hyper['learning_rate'] * jnp.minimum(1, jnp.minimum(rising, falling))


def _price(hyper: Mapping, step: Int[Array, '']) -> Float[Array, '']:
  """Price of a unit at a step, in nats."""
  rise = hyper['k_warmup_fraction'] * hyper['steps']
  return hyper['k_coef'] * jnp.minimum(1, (step + 1) / jnp.maximum(rise, 1))


def _optimizer(hyper: Mapping) -> optax.GradientTransformation:
  """AdamW with clipping; built from traced numbers, so made inside jit."""
  return optax.chain(
    optax.clip_by_global_norm(hyper['clip']),
    optax.scale_by_adam(b1=hyper['beta1'], b2=1 - hyper['inv_beta2']),
    optax.add_decayed_weights(hyper['weight_decay']),
    optax.scale_by_learning_rate(lambda step: _learning_rate(hyper, step)),
  )


def _chunk_of_steps(
  model: GatedModel,
  data: Any,
  hyper: Mapping[str, Float[Array, '']],
  state: GateState,
  batches: Int[Array, 'chunk batch'],
  wanted: Bool[Array, 'chunk'],
) -> tuple[GateState, tuple[Float[Array, 'chunk'], Float[Array, 'chunk']]]:
  """Scans over wanted steps; returns state, losses and units by step."""
  optimizer = _optimizer(hyper)

  def objective(learned, price, indices, key):
    tau, calibration = learned
    log_scale, shift = hyper['calibrate'] * calibration
    step = functools.partial(heaviside, temperature=hyper['temperature'])
    batch = data.take(indices)
    answers = outputs(model, unfold(model, tau, step), batch, key)
    losses = batch.losses(
      answers, jnp.exp(log_scale), shift, hyper['kl_weight']
    )
    active = sum(jnp.sum(step(unit)) for unit in tau.values())
    loss = jnp.mean(losses)
    return loss + price * active, (loss, active)

  def update(state, indices):
    learned = (state.tau, state.calibration)
    key, used = jax.random.split(state.key)
    gradient, shown = jax.grad(objective, has_aux=True)(
      learned, _price(hyper, state.step), indices, used
    )
    updates, inner = optimizer.update(gradient, state.optimizer, learned)
    tau, calibration = optax.apply_updates(learned, updates)
    tau = jax.tree.map(lambda t: jnp.clip(t, -1, 1), tau)
    total = jax.tree.map(jnp.add, state.tau_sum, tau)
    state = GateState(tau, calibration, total, inner, key, state.step + 1)
    return state, shown

  def step(state, inputs):
    indices, wanted = inputs
    return jax.lax.cond(
      wanted,
      lambda: update(state, indices),
      lambda: (state, (jnp.nan, jnp.nan)),
    )

  return jax.lax.scan(step, state, (batches, wanted))


_run_chunk = jax.jit(_chunk_of_steps, donate_argnames='state')


@functools.partial(
  jax.jit, static_argnames='data_axis', donate_argnames='state'
)
def _run_chunks(model, data, hyper, state, batches, wanted, data_axis):
  """The same for several jobs side by side, along a first axis.

  What they share has no such axis: with it, every product with a weight would
  be eight small ones.
  """
  axes = (None, data_axis, 0, 0, 0, None)
  run = jax.vmap(_chunk_of_steps, in_axes=axes)
  return run(model, data, hyper, state, batches, wanted)


def _start(
  hyper: Mapping[str, Float[Array, '']],
  lead: Units,
  seed: UInt32[Array, ''],
  names: tuple[str, ...],
) -> GateState:
  """Gates with noise, led by attribution; all else at zero."""
  keys = jax.random.split(jax.random.key(seed), len(names) + 1)
  tau = {}
  for key, name in zip(keys[1:], names, strict=True):
    noise = hyper['init_noise_scale'] * jax.random.normal(key, lead[name].shape)
    level = hyper['init_noise_bias'] + noise
    tau[name] = jnp.clip(level + hyper['init_attribution'] * lead[name], -1, 1)
  calibration = jnp.zeros(2)
  return GateState(
    tau,
    calibration,
    jax.tree.map(jnp.zeros_like, tau),
    _optimizer(hyper).init((tau, calibration)),
    keys[0],
    jnp.zeros((), jnp.int32),
  )


# Names in their order: inside of a compiled function, dicts are sorted.
_start_one = jax.jit(_start, static_argnames='names')


@functools.partial(jax.jit, static_argnames='names')
def _start_several(hyper, lead, seed, names):
  return jax.vmap(functools.partial(_start, names=names))(hyper, lead, seed)


def _lead(
  model: GatedModel, data: Any, sizes: Mapping[str, int]
) -> dict[str, Float[np.ndarray, '_']]:
  """1 for the unit that attribution ranks first, 0 for the last."""
  some = data.take(np.arange(min(_ATTRIBUTED, data.size)))
  # By size: a unit that makes the loss worse may still be part of the circuit.
  scores = np.abs(attribution.eap_ig(model, some, sizes))
  order = attribution.order(scores)
  rank = np.empty(order.size, np.float32)
  rank[order] = np.arange(order.size)
  lead = 1 - np.log1p(rank) / np.log1p(max(order.size - 1, 1))
  return selection.split(lead.astype(np.float32), sizes)


def _leads(model, jobs, sizes):
  """Where the gates of each job start from, once for all of equal data."""
  level = {key: np.zeros(size, np.float32) for key, size in sizes.items()}
  known = {}
  for data, config, _ in jobs:
    if config.init_attribution > 0 and id(data) not in known:
      known[id(data)] = _lead(model, data, sizes)
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
  model: GatedModel,
  data: Any,
  sizes: Mapping[str, int],
  prune_config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
) -> Optimized:
  """Learns a gate for every unit.

  Everything that differs between tasks is an argument of the compiled
  function, so that tasks of equal shapes share one compilation.

  Args:
    model: the model with its ablation.
    data: training Pairs or Recorded.
    sizes: {key: number of units}, from `gated_model.unit_sizes`.
    prune_config: hyper-parameters.
    seed: of the initial noise and of the batches.
    progress: called now and then with what there is to show.

  Returns:
    Gate parameters and history.
  """
  jobs = [(data, prune_config, seed)]
  return _optimize(
    functools.partial(_run_chunk, model, data),
    _start_one,
    jobs,
    _leads(model, jobs, sizes),
    progress,
    lambda parts: parts[0],
  )[0]


def optimize_together(
  model: GatedModel,
  jobs: Sequence[tuple[Any, PruneConfig, int]],
  sizes: Mapping[str, int],
  progress: Progress | None = None,
) -> list[Optimized]:
  """Several optimisations as one vmapped call, shared out over all devices.

  Args:
    model: the model with its ablation.
    jobs: data of equal shapes, hyper-parameters with equal `steps` and
      `batch_pairs`, and seed of each.
    sizes: {key: number of units}.
    progress: called now and then with what the first job has to show.

  Returns:
    What `optimize` returns, for each job, to rounding.
  """
  if len(jobs) == 1:
    return [optimize(model, jobs[0][0], sizes, *jobs[0][1:], progress)]
  # Jobs know nothing of each other: devices share them out.
  count = math.gcd(len(jobs), jax.device_count())
  mesh = Mesh(np.array(jax.devices()[:count]), ('jobs',))
  everywhere = NamedSharding(mesh, PartitionSpec())
  shared_out = NamedSharding(mesh, PartitionSpec('jobs'))

  def stack(parts):
    join = lambda *parts: jax.device_put(np.stack(parts), shared_out)  # noqa: E731
    return jax.tree.map(join, *parts)

  data, data_axis = jax.device_put(jobs[0][0], everywhere), None
  if any(own is not jobs[0][0] for own, *_ in jobs):
    data, data_axis = stack([own for own, *_ in jobs]), 0
  shared_model = jax.device_put(model, everywhere)

  def run(hyper, state, indices, wanted):
    # A state that comes back says otherwise where it lies, though it lies
    # there, and would have the program compiled again.
    state = jax.device_put(state, shared_out)
    return _run_chunks(
      shared_model, data, hyper, state, indices, wanted, data_axis=data_axis
    )

  leads = _leads(model, jobs, sizes)
  return _optimize(run, _start_several, jobs, leads, progress, stack)


def _optimize(run, start, jobs, leads, progress, stack):
  """`stack` joins the arrays of all jobs into those that the others take."""
  configs = [config for _, config, _ in jobs]
  steps = configs[0].steps
  chunks = -(-steps // _CHUNK)
  hyper = stack([hyperparameters(config) for config in configs])
  seeds = stack([np.uint32(seed % 2**32) for *_, seed in jobs])
  state = start(hyper, stack(leads), seeds, tuple(leads[0]))
  batches = [
    draw_batches(data.size, config.batch_pairs, chunks * _CHUNK, seed)
    for data, config, seed in jobs
  ]
  shown = []
  began = time.monotonic()
  for i in range(chunks):
    part = slice(i * _CHUNK, (i + 1) * _CHUNK)
    indices = stack([own[part] for own in batches])
    wanted = np.arange(chunks * _CHUNK)[part] < steps
    state, numbers = run(hyper, state, indices, wanted)
    # (2, jobs, chunk): losses and active units.
    shown.append(np.asarray(numbers).reshape(2, len(jobs), -1))
    done = min((i + 1) * _CHUNK, steps)
    if progress is not None:
      last = shown[-1][:, 0, (done - 1) % _CHUNK]
      progress(
        {
          'phase': 'optimise',
          'step': done,
          'steps': steps,
          'task_loss': float(last[0]),
          'active': int(last[1]),
          'seconds_left': (time.monotonic() - began) / done * (steps - done),
        }
      )
  numbers = np.concatenate(shown, axis=2)[:, :, :steps]
  results = []
  for job in range(len(jobs)):
    own = lambda arrays: {  # noqa: E731
      key: np.asarray(arrays[key]).reshape(len(jobs), -1)[job]  # noqa: B023
      for key in leads[0]
    }
    history = {
      'step': list(range(1, steps + 1)),
      'task_loss': numbers[0, job].tolist(),
      'active': [int(n) for n in numbers[1, job]],
    }
    tau_mean = {k: total / steps for k, total in own(state.tau_sum).items()}
    results.append(Optimized(own(state.tau), tau_mean, history))
  return results
