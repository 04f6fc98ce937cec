"""The compiled steps of pruning: gates that a loss and a price pull at.

A parameter tau per unit, clamped to [-1, 1]; the gate is on where tau > 0; task
loss plus a price per active unit; AdamW with clipping, warm-up and linear decay
(arXiv 2511.13653, section A.5). All numbers are arguments, so that tasks and
hyper-parameters share one compilation.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from sparse_interp.circuits.gating.batch import Batch
from sparse_interp.circuits.gating.gated_model import GatedModel, outputs
from sparse_interp.circuits.gating.gates import heaviside
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.units import ByKey, unfold

# Ablations are drawn in proportion to a running mean of the loss under each,
# with this weight of the newest, ...
_NEWEST = 0.3
# ... and this much, in nats, added, so that none is forgotten.
_ALWAYS = 0.02


class GateState(NamedTuple):
  """What a step of the optimisation carries on.

  Attributes:
    tau: {key: gate parameters in [-1, 1]}.
    calibration: log of the scale, and the shift, of answer logit differences.
    tau_sum: {key: sum of tau over the steps done}.
    optimizer: state of the optax chain.
    key: draws ablations, other prompts and subsets.
    step: steps done.
    seen: loss under each ablation, a running mean.
  """

  tau: ByKey
  calibration: Float[Array, '2']
  tau_sum: ByKey
  optimizer: Any
  key: Key[Array, '']
  step: Int[Array, '']
  seen: Float[Array, 'kinds']


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


def draw_ablation(
  key: Key[Array, ''], seen: Float[Array, 'kinds']
) -> Int[Array, '']:
  """Number of an ablation, in proportion to the loss last seen under each."""
  return jax.random.categorical(key, jnp.log(seen + _ALWAYS))


def _chunk_of_steps(
  model: GatedModel,
  data: Batch,
  hyper: Mapping[str, Float[Array, '']],
  state: GateState,
  batches: Int[Array, 'chunk batch'],
  wanted: Bool[Array, 'chunk'],
) -> tuple[GateState, tuple[Float[Array, 'chunk'], Float[Array, 'chunk']]]:
  """Scans over wanted steps; returns state, losses and units by step."""
  optimizer = _optimizer(hyper)

  ways = [functools.partial(outputs, model.under(kind)) for kind in model.kinds]

  def objective(learned, price, indices, key, which):
    tau, calibration = learned
    log_scale, shift = hyper['calibrate'] * calibration
    step = functools.partial(heaviside, temperature=hyper['temperature'])
    batch = data.take(indices)
    gates = unfold(model, tau, step)
    answers = jax.lax.switch(which, ways, gates, batch, key)
    losses = batch.losses(
      answers, jnp.exp(log_scale), shift, hyper['kl_weight']
    )
    active = sum(jnp.sum(step(unit)) for unit in tau.values())
    loss = jnp.mean(losses)
    return loss + price * active, (loss, active)

  def update(state, indices):
    learned = (state.tau, state.calibration)
    key, used, drawn = jax.random.split(state.key, 3)
    which = draw_ablation(drawn, state.seen)
    gradient, shown = jax.grad(objective, has_aux=True)(
      learned, _price(hyper, state.step), indices, used, which
    )
    moved = _NEWEST * (shown[0] - state.seen[which])
    seen = state.seen.at[which].add(moved)
    updates, inner = optimizer.update(gradient, state.optimizer, learned)
    tau, calibration = optax.apply_updates(learned, updates)
    tau = jax.tree.map(lambda t: jnp.clip(t, -1, 1), tau)
    total = jax.tree.map(jnp.add, state.tau_sum, tau)
    state = GateState(tau, calibration, total, inner, key, state.step + 1, seen)
    return state, shown

  def step(state, inputs):
    indices, wanted = inputs
    return jax.lax.cond(
      wanted,
      lambda: update(state, indices),
      lambda: (state, (jnp.nan, jnp.nan)),
    )

  return jax.lax.scan(step, state, (batches, wanted))


run_chunk = jax.jit(_chunk_of_steps, donate_argnames='state')


@functools.partial(
  jax.jit, static_argnames=('data_axis', 'in_turn'), donate_argnames='state'
)
def run_chunks(model, data, hyper, state, batches, wanted, data_axis, in_turn):
  """The same for several jobs along a first axis, side by side or in turn.

  What they share has no such axis: with it, every product with a weight would
  be eight small ones.
  """
  if in_turn:
    own_data = data if data_axis == 0 else None

    def run_one(own):
      hyper, state, batches, own_data = own
      used = data if own_data is None else own_data
      return _chunk_of_steps(model, used, hyper, state, batches, wanted)

    return jax.lax.map(run_one, (hyper, state, batches, own_data))
  axes = (None, data_axis, 0, 0, 0, None)
  run = jax.vmap(_chunk_of_steps, in_axes=axes)
  return run(model, data, hyper, state, batches, wanted)


def _start(
  hyper: Mapping[str, Float[Array, '']],
  lead: ByKey,
  seed: UInt32[Array, ''],
  names: tuple[str, ...],
  kinds: int,
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
    jnp.full(kinds, np.log(2.0)),
  )


# Names in their order: inside of a compiled function, dicts are sorted.
start_one = jax.jit(_start, static_argnames=('names', 'kinds'))


@functools.partial(jax.jit, static_argnames=('names', 'kinds'))
def start_several(hyper, lead, seed, names, kinds):
  """States of several jobs before their first step."""
  start = functools.partial(_start, names=names, kinds=kinds)
  return jax.vmap(start)(hyper, lead, seed)
