"""Test prompts that go with a circuit, and what its nodes do on them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from sparse_interp.circuits.gated_model import GatedModel
from sparse_interp.circuits.task_loss import Pairs
from sparse_interp.models import GPT
from sparse_interp.tasks.encoding import EncodedTask


def make_examples(
  model: GatedModel,
  nodes: dict[str, Int[np.ndarray, '_']],
  calibrated: tuple[float, float],
  answer: Callable[[Pairs], Float[np.ndarray, 'pairs 2']],
  task: EncodedTask,
  test: Pairs,
  count: int,
  pieces: Callable[[Sequence[int]], list[str]] | None,
) -> tuple[list[dict[str, Any]], Int[np.ndarray, '_ _'], dict[str, Any]]:
  """Prompts of a few test pairs: texts, tokens, activations of kept nodes.

  Args:
    model: the model.
    nodes: {site: kept channels}.
    calibrated: scale and shift of the circuit.
    answer: from pairs to the circuit's answer logit differences.
    task: the test task.
    test: the same as arrays.
    count: pairs to show.
    pieces: printable pieces of token ids; their decimal numbers without it.

  Returns:
    Fields `examples`, `example_tokens` and `activations` of a Circuit.
  """
  pieces = pieces or (lambda ids: [str(i) for i in ids])
  chosen = _spread(task.conditions, count)
  pairs = test.take(chosen)
  scale, shift = calibrated
  signs = np.array([1, -1])
  right = scale * answer(pairs) * signs + shift * signs
  probability = 1 / (1 + np.exp(-right.astype(np.float64)))
  examples = []
  for row, pair in enumerate(chosen):
    answers = [pieces([int(token)])[0] for token in task.answers[pair]]
    for side in (0, 1):
      prompt = task.tokens[pair, side, : int(task.last[pair, side]) + 1]
      examples.append(
        {
          'pieces': pieces([int(token) for token in prompt]),
          'answer': answers[side],
          'other_answer': answers[1 - side],
          'probability': float(probability[row, side]),
          'condition': task.conditions[pair],
          'side': 'ab'[side],
        }
      )
  tokens = pairs.tokens.reshape(-1, pairs.tokens.shape[2])
  run = jax.jit(GPT(model.config).apply)
  _, recorded = run({'params': model.frozen}, tokens)
  activations = {
    site: np.asarray(recorded[site][..., kept], np.float32)
    for site, kept in nodes.items()
  }
  return examples, np.asarray(tokens, np.int32), activations


def _spread(conditions: Sequence[str], count: int) -> Int[np.ndarray, '_']:
  """Indices of `count` pairs that take turns between the conditions."""
  turn, order = {}, []
  for index, condition in enumerate(conditions):
    turn[condition] = turn.get(condition, 0) + 1
    order.append((turn[condition], index))
  return np.array([index for _, index in sorted(order)[:count]], int)
