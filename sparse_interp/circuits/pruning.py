"""Learned gates: one jitted optimisation that says which nodes matter.

The published method (arXiv 2511.13653, section A.5): a parameter tau per node,
clamped to [-1, 1]; the gate is on where tau > 0; task loss plus a price per
active node; AdamW with clipping, warm-up and linear decay. The rank that the
gates end up with, not their number, is what `selection` builds a circuit from.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.gates import Gates, heaviside
from sparse_interp.circuits.task_loss import (
  Pairs,
  answer_differences,
  pair_losses,
)
from sparse_interp.models import GPTConfig

# Called with what there is to show: phase, step, steps, task_loss, nodes,
# seconds_left.
Progress = Callable[[Mapping[str, Any]], None]

# Steps between two calls of the progress function. One compilation covers all
# chunks: the steps of the last one that are beyond the end do nothing.
_CHUNK = 10


@dataclasses.dataclass(frozen=True)
class PruneConfig:
  """Hyper-parameters of pruning, with the published names where they exist.

  Attributes:
    steps: optimisation steps.
    batch_pairs: pairs of prompts per step.
    k_coef: price of one active node, in nats.
    k_warmup_fraction: share of the steps over which that price rises from 0.
      Where the full model is sure, the task gives no gradient at first, and a
      full price would switch off important nodes with all others. 0 is the
      published constant price.
    init_noise_scale: standard deviation of the initial tau.
    init_noise_bias: mean of the initial tau; positive, so all nodes start on.
    weight_decay: decoupled, times the learning rate.
    learning_rate: peak of the schedule.
    warmup_fraction: share of the steps with a linear warm-up.
    beta1: decay of Adam's first moment.
    inv_beta2: 1 - decay of Adam's second moment.
    temperature: of the surrogate gradient.
    clip: largest global norm of a gradient.
    final_resid: whether the residual stream before the last norm has nodes.
    target_loss: task loss that a circuit must reach, in nats.
    margin: how far below the target the search stays on the pairs it sees, so
      that unseen pairs reach the target, too.
    selection_pairs: training pairs on which the search measures the loss.
    holdout_pairs: further training pairs, seen by neither optimisation nor
      search: where they miss the target, the search starts over with a wider
      margin.
    attempts: how often it may do so.
    calibrate: 'after': gates are learned and the search measures its loss on
      the raw logits, scale and shift are fitted at the end (published);
      'during': gates are learned together with a scale and a shift, and the
      search measures its loss under the best ones.
    eliminate: after the bisection, also try every kept node alone.
    min_necessity: task loss that the full model must rise to on the selection
      pairs when the circuit is ablated from it; nodes are added until it
      does. None asks for nothing.
  """

  steps: int = 160
  batch_pairs: int = 16
  k_coef: float = 5e-3
  k_warmup_fraction: float = 0.5
  init_noise_scale: float = 1e-2
  init_noise_bias: float = 1e-1
  weight_decay: float = 1e-3
  learning_rate: float = 3e-2
  warmup_fraction: float = 5e-2
  beta1: float = 0.9
  inv_beta2: float = 5e-2
  temperature: float = 1.0
  clip: float = 1.0
  final_resid: bool = True
  target_loss: float = 0.15
  margin: float = 0.03
  selection_pairs: int = 64
  holdout_pairs: int = 128
  attempts: int = 3
  calibrate: str = 'during'
  eliminate: bool = True
  min_necessity: float | None = None

  def __post_init__(self):
    for field in ('steps', 'batch_pairs', 'selection_pairs', 'attempts'):
      _require(field, getattr(self, field) >= 1, self, 'at least 1')
    for field in ('learning_rate', 'temperature', 'clip', 'target_loss'):
      _require(field, getattr(self, field) > 0, self, 'positive')
    for field in ('k_coef', 'weight_decay', 'init_noise_scale', 'margin'):
      _require(field, getattr(self, field) >= 0, self, 'at least 0')
    for field in ('beta1', 'warmup_fraction', 'k_warmup_fraction'):
      _require(field, 0 <= getattr(self, field) < 1, self, 'in [0, 1)')
    _require('holdout_pairs', self.holdout_pairs >= 0, self, 'at least 0')
    _require('inv_beta2', 0 < self.inv_beta2 <= 1, self, 'in (0, 1]')
    _require('margin', self.margin < self.target_loss, self, 'below the target')
    choices = ('after', 'during')
    _require('calibrate', self.calibrate in choices, self, 'after or during')


def _require(field: str, holds: bool, config: PruneConfig, constraint: str):
  if not holds:
    default = PruneConfig.__dataclass_fields__[field].default
    raise ValueError(
      f'prune.{field} must be {constraint}, got {getattr(config, field)!r}; '
      f'choose e.g. {default!r}.'
    )


class GateState(NamedTuple):
  """What a step of the optimisation carries on.

  Attributes:
    tau: {site: gate parameters in [-1, 1]}.
    calibration: log of the scale, and the shift, of answer logit differences.
    tau_sum: {site: sum of tau over the steps done}.
    optimizer: state of the optax chain.
    step: steps done.
  """

  tau: Gates
  calibration: Float[Array, '2']
  tau_sum: Gates
  optimizer: Any
  step: Int[Array, '']


class Optimized(NamedTuple):
  """Result of the optimisation.

  Attributes:
    tau: {site: final gate parameters}.
    tau_mean: {site: their means over all steps}: it separates nodes that
      were clamped to the same bound, in the order in which they got there.
    history: {'step', 'task_loss', 'nodes'}, equally long lists.
  """

  tau: dict[str, Float[np.ndarray, '_']]
  tau_mean: dict[str, Float[np.ndarray, '_']]
  history: dict[str, list]


def hyperparameters(config: PruneConfig) -> dict[str, Float[Array, '']]:
  """The numbers of a step as arrays: changing one compiles nothing anew."""
  names = (
    'steps k_coef k_warmup_fraction weight_decay learning_rate '
    'warmup_fraction beta1 inv_beta2 temperature clip'
  ).split()
  hyper = {name: getattr(config, name) for name in names}
  hyper['calibrate'] = config.calibrate == 'during'
  return {k: jnp.asarray(v, jnp.float32) for k, v in hyper.items()}


def _learning_rate(hyper: Mapping, step: Int[Array, '']) -> Float[Array, '']:
  """Linear warm-up, then linear decay that would reach 0 after the end."""
  warmup = hyper['warmup_fraction'] * hyper['steps']
  rising = (step + 1) / jnp.maximum(warmup, 1)
  falling = (hyper['steps'] - step) / (hyper['steps'] - warmup)
  return hyper['learning_rate'] * jnp.minimum(1, jnp.minimum(rising, falling))


def _price(hyper: Mapping, step: Int[Array, '']) -> Float[Array, '']:
  """Price of a node at a step, in nats."""
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


@functools.partial(jax.jit, static_argnames='config', donate_argnames='state')
def _run_chunk(
  config: GPTConfig,
  params: dict,
  means: Gates,
  pairs: Pairs,
  hyper: Mapping[str, Float[Array, '']],
  state: GateState,
  batches: Int[Array, 'chunk batch'],
) -> tuple[GateState, tuple[Float[Array, 'chunk'], Float[Array, 'chunk']]]:
  """Scans over steps; returns state, task losses and active nodes by step."""
  optimizer = _optimizer(hyper)

  def objective(learned, price, indices):
    tau, calibration = learned
    log_scale, shift = hyper['calibrate'] * calibration
    gates = jax.tree.map(lambda t: heaviside(t, hyper['temperature']), tau)
    differences = answer_differences(
      config, params, means, gates, pairs.take(indices)
    )
    losses = pair_losses(differences, jnp.exp(log_scale), shift)
    nodes = sum(jnp.sum(gate) for gate in gates.values())
    task_loss = jnp.mean(losses)
    return task_loss + price * nodes, (task_loss, nodes)

  def update(state, indices):
    learned = (state.tau, state.calibration)
    gradient, shown = jax.grad(objective, has_aux=True)(
      learned, _price(hyper, state.step), indices
    )
    updates, inner = optimizer.update(gradient, state.optimizer, learned)
    tau, calibration = optax.apply_updates(learned, updates)
    tau = jax.tree.map(lambda t: jnp.clip(t, -1, 1), tau)
    total = jax.tree.map(jnp.add, state.tau_sum, tau)
    return GateState(tau, calibration, total, inner, state.step + 1), shown

  def step(state, indices):
    return jax.lax.cond(
      state.step < hyper['steps'],
      lambda: update(state, indices),
      lambda: (state, (jnp.nan, jnp.nan)),
    )

  return jax.lax.scan(step, state, batches)


def _start(
  hyper: Mapping, prune_config: PruneConfig, sites: Mapping[str, int], seed: int
) -> GateState:
  keys = jax.random.split(jax.random.key(seed), len(sites))
  tau = {}
  for key, (site, width) in zip(keys, sites.items(), strict=True):
    noise = prune_config.init_noise_scale * jax.random.normal(key, (width,))
    tau[site] = jnp.clip(prune_config.init_noise_bias + noise, -1, 1)
  calibration = jnp.zeros(2)
  return GateState(
    tau,
    calibration,
    jax.tree.map(jnp.zeros_like, tau),
    _optimizer(hyper).init((tau, calibration)),
    jnp.zeros((), jnp.int32),
  )


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
  config: GPTConfig,
  params: dict,
  means: Gates,
  pairs: Pairs,
  sites: Mapping[str, int],
  prune_config: PruneConfig,
  seed: int,
  progress: Progress | None = None,
) -> Optimized:
  """Learns a gate for every node.

  Everything that differs between tasks is an argument of the compiled
  function, so that tasks of equal shapes share one compilation.

  Args:
    config: the model.
    params: its parameters.
    means: {site: values that removed nodes take}.
    pairs: training pairs.
    sites: {site: width} of the nodes.
    prune_config: hyper-parameters.
    seed: of the initial noise and of the batches.
    progress: called now and then with what there is to show.

  Returns:
    Gate parameters and history.
  """
  hyper = hyperparameters(prune_config)
  state = _start(hyper, prune_config, sites, seed)
  steps = prune_config.steps
  chunks = -(-steps // _CHUNK)
  batches = draw_batches(
    pairs.last.shape[0], prune_config.batch_pairs, chunks * _CHUNK, seed
  )
  losses, nodes = [], []
  began = time.monotonic()
  for chunk in np.split(batches, chunks):
    state, shown = _run_chunk(
      config, params, means, pairs, hyper, state, jnp.asarray(chunk)
    )
    losses.extend(np.asarray(shown[0]).tolist())
    nodes.extend(np.asarray(shown[1]).tolist())
    done = min(len(losses), steps)
    if progress is not None:
      elapsed = time.monotonic() - began
      progress(
        {
          'phase': 'optimise',
          'step': done,
          'steps': steps,
          'task_loss': losses[done - 1],
          'nodes': int(nodes[done - 1]),
          'seconds_left': elapsed / done * (steps - done),
        }
      )
  history = {
    'step': list(range(1, steps + 1)),
    'task_loss': losses[:steps],
    'nodes': [int(n) for n in nodes[:steps]],
  }
  return Optimized(
    {site: np.asarray(t) for site, t in state.tau.items()},
    {site: np.asarray(t) / steps for site, t in state.tau_sum.items()},
    history,
  )
