"""What stands beside a circuit's prompts is what the circuit does on them."""

import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits.examples import make_examples
from sparse_interp.circuits.gating import gated_model, task_loss
from sparse_interp.circuits.gating.ablation import ABLATIONS, constants
from sparse_interp.models import GPT
from sparse_interp.models.sites import node_sites


@pytest.mark.slow
@pytest.mark.parametrize('ablation', ABLATIONS)
def test_activations_are_of_the_call_that_gave_the_probabilities(
  known, ablation
):
  config, params = known.config, known.params
  pairs = task_loss.make_pairs(known.test)
  values = constants(config, params, known.means, ablation, pairs)
  model = gated_model.make(config, params, values, ablation)
  sites = node_sites(config)
  nodes = {site: np.array(known.nodes.get(site, []), int) for site in sites}
  # All of the last stream is shown, so that the answers follow from it.
  nodes['final_resid'] = np.arange(sites['final_resid'])
  gates = {
    site: jnp.zeros(width).at[nodes[site]].set(1.0)
    for site, width in sites.items()
  }
  shown, tokens, seen = make_examples(
    model, nodes, (2.0, 0.5), gates, known.test, pairs, 3, None
  )
  stream = jnp.asarray(seen['final_resid'])
  run = GPT(config).apply
  own, _ = run(
    {'params': params},
    jnp.asarray(tokens),
    edits={'final_resid': lambda _: stream},
  )
  full, of_full = run({'params': params}, jnp.asarray(tokens))
  a, b = known.test.answers[0]

  def right(logits, row, scale=1.0, shift=0.0):
    last = len(shown[row]['pieces']) - 1
    difference = float(logits[row, last, a] - logits[row, last, b])
    sign = 1 if shown[row]['side'] == 'a' else -1
    return 1 / (1 + np.exp(-sign * (scale * difference + shift)))

  assert len(shown) == len(tokens) == 6
  for row, example in enumerate(shown):
    for name, expected in (
      ('probability', right(own, row, 2, 0.5)),
      ('raw_probability', right(own, row)),
      ('full_probability', right(full, row)),
    ):
      assert example[name] == pytest.approx(expected, abs=1e-5)
  assert np.abs(of_full['final_resid'] - stream).max() > 1e-2
