"""Test prompts that go with a circuit, and what it does on them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sparse_interp.circuits.gating.gated_model import GatedModel, all_outputs
from sparse_interp.circuits.gating.gates import Gates
from sparse_interp.circuits.gating.task_loss import Pairs
from sparse_interp.circuits.watching import watch
from sparse_interp.tasks.encoding import EncodedTask

FORMULAS = {
  'activation': 'value of a kept node in the circuit, with everything else '
  'ablated, in the call that gave the probabilities',
  'probability': 'of the right answer among the two, in the circuit, with its '
  'scale and shift; raw: with scale 1 and shift 0; full: in the full model',
}


def make_examples(
  model: GatedModel,
  nodes: dict[str, Int[np.ndarray, '_']],
  calibrated: tuple[float, float],
  gates: Gates,
  task: EncodedTask,
  test: Pairs,
  count: int,
  pieces: Callable[[Sequence[int]], list[str]] | None,
) -> tuple[list[dict[str, Any]], Int[np.ndarray, '_ _'], dict[str, Any]]:
  """Prompts of a few test pairs: texts, tokens, activations of kept nodes.

  Args:
    model: the model with its ablation.
    nodes: {site: kept channels}.
    calibrated: scale and shift of the circuit.
    gates: of the circuit.
    task: the test task.
    test: the same as arrays.
    count: pairs to show.
    pieces: printable pieces of token ids; their decimal numbers without it.

  Returns:
    Fields `examples`, `example_tokens` and `activations` of a Circuit; all are
    the circuit's own, but for `full_probability`.
  """
  pieces = pieces or (lambda ids: [str(i) for i in ids])
  chosen = _spread(task.conditions, count)
  pairs = test.take(chosen)
  answers, activations = watch(model, gates, pairs, nodes)
  probabilities = {
    'probability': _right(answers, *calibrated),
    'raw_probability': _right(answers),
    'full_probability': _right(all_outputs(model, {}, pairs)),
  }
  examples = []
  for row, pair in enumerate(chosen):
    texts = [pieces([int(token)])[0] for token in task.answers[pair]]
    for side in (0, 1):
      prompt = task.tokens[pair, side, : int(task.last[pair, side]) + 1]
      examples.append(
        {
          'pieces': pieces([int(token) for token in prompt]),
          'answer': texts[side],
          'other_answer': texts[1 - side],
          **{
            name: float(probability[row, side])
            for name, probability in probabilities.items()
          },
          'condition': task.conditions[pair],
          'side': 'ab'[side],
        }
      )
  tokens = pairs.tokens.reshape(-1, pairs.tokens.shape[2])
  return examples, np.asarray(tokens, np.int32), activations


def _right(
  differences: Float[np.ndarray, 'pairs 2'],
  scale: float = 1.0,
  shift: float = 0.0,
) -> Float[np.ndarray, 'pairs 2']:
  """Probability of the right answer among the two, on either side."""
  signs = np.array([1, -1])
  right = (scale * differences + shift) * signs
  return 1 / (1 + np.exp(-right.astype(np.float64)))


def _spread(conditions: Sequence[str], count: int) -> Int[np.ndarray, '_']:
  """Indices of `count` pairs that take turns between the conditions."""
  turn, order = {}, []
  for index, condition in enumerate(conditions):
    turn[condition] = turn.get(condition, 0) + 1
    order.append((turn[condition], index))
  return np.array([index for _, index in sorted(order)[:count]], int)
