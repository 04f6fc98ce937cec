"""The task loss: two-way cross-entropy at the last token of pairs of prompts.

Only the difference between the two answers' logits at one position matters, so
this is all that pruning and evaluation compute of a model's output.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.circuits.gates import Gates, gate_edits
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.tasks.encoding import EncodedTask

TASK_LOSS = (
  'mean over pairs and both prompts of the cross-entropy between the two '
  'answers at the last token, in nats'
)


class Pairs(NamedTuple):
  """Pairs of prompts as arrays.

  Attributes:
    tokens: ids of prompts a and b, padded on the right.
    last: index of the last prompt token.
    answers: first token of the answer to a and of the answer to b.
  """

  tokens: Int[Array, 'pairs 2 time']
  last: Int[Array, 'pairs 2']
  answers: Int[Array, 'pairs 2']

  def take(self, indices: Int[np.ndarray | Array, 'chosen']) -> 'Pairs':
    """The pairs at `indices`."""
    return Pairs(*(array[indices] for array in self))


def make_pairs(task: EncodedTask, multiple: int = 64) -> Pairs:
  """Device arrays of a task, without columns that are padding everywhere.

  Args:
    task: encoded pairs.
    multiple: the length is rounded up to a multiple of this (and at most its
      own), so that tasks share few shapes and the model few compilations.
  """
  longest = int(np.max(task.last)) + 1
  length = min(-(-longest // multiple) * multiple, task.tokens.shape[2])
  return Pairs(
    jnp.asarray(task.tokens[:, :, :length], jnp.int32),
    jnp.asarray(task.last, jnp.int32),
    jnp.asarray(task.answers, jnp.int32),
  )


def pair_losses(
  differences: Float[Array | np.ndarray, '*pairs 2'],
  scale: Float[Array, ''] | float = 1.0,
  shift: Float[Array, ''] | float = 0.0,
) -> Float[Array, '*pairs']:
  """Task loss of each pair from its two logit differences, in nats.

  With d = logit(answer of a) - logit(answer of b) at the last token, the
  two-way cross-entropy is softplus(-d) on prompt a and softplus(d) on prompt
  b; a pair's loss is the mean of both (published stored losses are the sum).

  Args:
    differences: d on prompts a and b.
    scale: multiplies d.
    shift: is added to scale * d.
  """
  calibrated = scale * differences + shift
  signs = jnp.array([-1.0, 1.0])
  return jnp.mean(jax.nn.softplus(signs * calibrated), axis=-1)


def subtract_answers(
  logits: Float[Array, 'prompts vocab'], answers: Int[Array, 'pairs 2']
) -> Float[Array, 'pairs 2']:
  """Logit of a's answer minus that of b's, on prompts a and b of each pair."""
  by_prompt = logits.reshape(answers.shape[0], 2, -1)
  chosen = jnp.take_along_axis(by_prompt, answers[:, None, :], axis=2)
  return chosen[..., 0] - chosen[..., 1]


def answer_differences(
  config: GPTConfig,
  params: dict,
  means: Gates,
  gates: Gates,
  pairs: Pairs,
) -> Float[Array, 'pairs 2']:
  """Answer logit differences of the gated model.

  Args:
    config: the model.
    params: its parameters.
    means: {site: values that removed nodes take}.
    gates: {site: 1 where a node is kept, 0 where it is removed}.
    pairs: prompts and answers.

  Returns:
    logit(answer of a) - logit(answer of b) at the last token of a and of b.
  """
  tokens = pairs.tokens.reshape(-1, pairs.tokens.shape[2])
  logits, _ = GPT(config).apply(
    {'params': params},
    tokens,
    edits=gate_edits(gates, means),
    positions=pairs.last.reshape(-1),
  )
  return subtract_answers(logits, pairs.answers)


@functools.partial(jax.jit, static_argnames='config')
def gate_slopes(
  config: GPTConfig,
  params: dict,
  means: Gates,
  gates: Gates,
  pairs: Pairs,
  scale: Float[Array, ''] | float = 1.0,
  shift: Float[Array, ''] | float = 0.0,
) -> dict[str, Float[Array, '_']]:
  """Gradient of the task loss in the gates, by site.

  To first order, removing a node costs minus its slope.
  """

  def loss(gates):
    differences = answer_differences(config, params, means, gates, pairs)
    return jnp.mean(pair_losses(differences, scale, shift))

  return jax.grad(loss)(dict(gates))


_jitted_differences = functools.partial(jax.jit, static_argnames='config')(
  answer_differences
)


def differences_in_batches(
  config: GPTConfig,
  params: dict,
  means: Gates,
  gates: Gates,
  pairs: Pairs,
  batch_pairs: int = 32,
) -> Float[np.ndarray, 'pairs 2']:
  """Answer logit differences of any number of pairs, in one compiled shape.

  The last batch is filled up with pairs that were already there, so that every
  task, gate and number of pairs runs the same program.
  """
  count = pairs.last.shape[0]
  parts = []
  for start in range(0, count, batch_pairs):
    indices = np.arange(start, start + batch_pairs) % count
    parts.append(
      np.asarray(
        _jitted_differences(config, params, means, gates, pairs.take(indices))
      )
    )
  return np.concatenate(parts)[:count]
