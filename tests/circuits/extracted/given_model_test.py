"""Under values of other prompts a small model equals the gated one."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.task_loss import Pairs
from sparse_interp.circuits.selecting.answers import (
  answer_by_gates,
  answer_by_given_model,
)
from tests.circuits.extracted.all_switches import CASES, make_case


def _pairs(config, count, rng):
  """Random prompts of different lengths."""
  return Pairs(
    jnp.asarray(rng.integers(0, config.vocab_size, (count, 2, 10))),
    jnp.asarray(rng.integers(4, 10, (count, 2))),
    jnp.asarray(rng.integers(0, config.output_width, (count, 2))),
  )


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('published', 'resample'),
    ('published', 'counterfactual'),
    *(
      pytest.param(name, 'counterfactual', marks=pytest.mark.slow)
      for name in CASES
      if name != 'published'
    ),
  ],
)
def test_circuits_inside_a_circuit_answer_as_the_gated_model(name, kind):
  config, params, means, _, rng = make_case(name)
  model = gated_model.make(config, params, means, kind, closed=True)
  units = units_lib.make(model, 'nodes', 'rectified' not in name)
  start = rng.random(units.count) < 0.6
  by_gates = answer_by_gates(units)
  inside = answer_by_given_model(units, start)
  batch = _pairs(config, 40, rng)
  for share in (1, 0.8, 0.3, 0):
    trial = start & (rng.random(units.count) < share)
    expected, found = by_gates(trial, batch), inside(trial, batch)
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)
  # It is not that nothing mattered.
  assert np.abs(inside(start, batch) - found).max() > 1e-3
