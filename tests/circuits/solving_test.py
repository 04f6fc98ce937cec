"""Whether the full model solves a task, and whether it answers at all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sparse_interp.circuits import solving
from sparse_interp.circuits.gating import task_loss
from sparse_interp.models import GPT


def test_probabilities_are_those_of_the_right_answer_among_all_tokens(known):
  pairs = task_loss.make_pairs(known.test)
  logits, _ = GPT(known.config).apply(
    {'params': known.params}, pairs.tokens.reshape(-1, pairs.tokens.shape[2])
  )
  chances = np.asarray(jax.nn.softmax(logits))
  expected = [
    chances[2 * pair + side, known.test.last[pair, side], answer]
    for pair, answers in enumerate(known.test.answers)
    for side, answer in enumerate(answers)
  ]
  np.testing.assert_allclose(
    solving.answer_probabilities(known.model, pairs),
    np.reshape(expected, (-1, 2)).mean(axis=1),
    rtol=1e-4,
  )


def test_a_model_that_prefers_right_may_never_answer(known):
  kernel = known.params['lm_head']['kernel']
  loud = kernel.at[:, 0].set(0).at[3, 0].set(0)
  params = {**known.params, 'lm_head': {'kernel': loud}}
  # A third token is ahead of both answers, whatever the evidence.
  bias = jnp.zeros(known.config.vocab_size).at[0].set(50.0)
  config = dataclasses.replace(known.config, final_logits_bias=True)
  model = dataclasses.replace(
    known.model,
    config=config,
    params={**params, 'final_logits_bias': bias},
    frozen={**params, 'final_logits_bias': bias},
  )
  loss, probability = solving.on_pairs(model, task_loss.make_pairs(known.test))
  assert loss < 0.05
  assert probability < 1e-3
