"""The next ablation is most often the one that a circuit holds up worst to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import task_loss
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import gate_steps


def test_ablations_are_drawn_in_proportion_to_their_losses():
  keys = jax.random.split(jax.random.key(0), 4000)
  seen = jnp.array([0.0, 0.1, 0.3])
  drawn = jax.vmap(lambda key: gate_steps.draw_ablation(key, seen))(keys)
  shares = np.bincount(np.asarray(drawn), minlength=3) / len(keys)
  # One that is met is not forgotten: 0.02 nats are added to each.
  np.testing.assert_allclose(shares, np.array([2, 12, 32]) / 46, atol=0.03)


def test_the_loss_under_each_ablation_is_followed(known):
  model = dataclasses.replace(known.model, ablation='mean,counterfactual')
  units = units_lib.make(model, 'nodes')
  config = PruneConfig(steps=10, batch_pairs=8, init_attribution=0.0)
  hyper = gate_steps.hyperparameters(config)
  start = gate_steps.start_one(
    hyper, units.filled(0.0), np.uint32(0), tuple(units.sizes), 2
  )
  pairs = task_loss.make_pairs(known.train)
  batches = np.arange(80).reshape(10, 8) % pairs.size
  before = np.asarray(start.seen)
  state, _ = gate_steps.run_chunk(
    model, pairs, hyper, start, batches, np.ones(10, bool)
  )
  assert np.all(np.asarray(state.seen) != before)
  assert np.all(np.asarray(state.seen) < before)  # all gates are on: it is low
