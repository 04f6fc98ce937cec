"""Planted circuits: known programs in unused channels of a trained model.

Compiled models have ground truth and nothing else in them; trained models are
full of everything and have no ground truth. A trained model with a planted
program has both: old tokens give the logits they gave, and the circuit of the
program's prompts is known weight by weight.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from sparse_interp.ground_truth.planted.planted_programs import (
  ANSWER,
  NEGATIVE,
  NEURON_LAYER,
  POSITIVE,
  QUESTION,
  Program,
)
from sparse_interp.ground_truth.planted.widening import widen
from sparse_interp.models import GPTConfig
from sparse_interp.models.sites import edge_matrices
from sparse_interp.tasks.encoding import EncodedTask

# Distractors in each part of a prompt: enough for their values to drown the
# evidence in any average over the prompt.
DISTRACTORS = 8

# Length of every planted embedding, in units of the amplitude. Most of it is in
# a channel that nothing reads, so that writes hardly change the length.
_LENGTH = 4.0
# Of marked keys over others, in logits of the softmax.
_SCORE = 30.0
# Activations of values and of the neuron.
_LOUD = 16.0
# Between the answers' logits.
_LOGITS = 12.0


@dataclasses.dataclass(frozen=True, eq=False)
class Planted:
  """A model with a program in it, and the truth about the program.

  Attributes:
    config: the widened model.
    params: its parameters, float32.
    program: what was planted.
    tokens: {token of the program: id}, answers included.
    channels: {meaning: residual channel}.
    edges: {name of an edge matrix: rows and columns of the planted weights};
      matrices without any are missing.
    nodes: {site: channels of the program, ascending}; `final_resid` has the
      answer channel, sites without any are missing.
  """

  config: GPTConfig
  params: dict
  program: Program
  tokens: dict[str, int]
  channels: dict[str, int]
  edges: dict[str, Int32[np.ndarray, '2 _']]
  nodes: dict[str, Int32[np.ndarray, '_']]


def plant(
  config: GPTConfig,
  params: dict,
  program: Program,
  amplitude: float = 32.0,
) -> Planted:
  """Writes a program into new channels of a model.

  On old tokens, logits of old tokens stay what they were, to rounding, and
  those of new tokens are 0. A planted model can be planted again.

  Args:
    config: the model: causal, without positions, RMSNorm or none, untied.
    params: its parameters.
    program: one of `planted_programs.PROGRAMS`, or alike.
    amplitude: size of planted residual values; four times it should be well
      above the norm of what the model itself writes to its residual stream.

  Returns:
    The widened model and the truth.

  Raises:
    ValueError: if the model cannot be widened (see `widening.widen`), has too
      few layers, is not causal, has a ReLU on its residual stream or a
      parallel residual, or lacks biases for a program with a threshold.
  """
  _check(config, program)
  names = ('carrier', *program.channels)
  wide, params = widen(
    config,
    params,
    tokens=len(program.tokens) + 2,
    channels=len(names),
    heads=1,
    neurons=1,
  )
  params = jax.tree.map(np.array, params)
  tokens = {
    token: config.vocab_size + i
    for i, token in enumerate([*program.tokens, POSITIVE, NEGATIVE])
  }
  channels = {name: config.d_model + i for i, name in enumerate(names)}

  # ---- Into and out of the planted channels.
  for token, code in program.tokens.items():
    row = params['wte']['embedding'][tokens[token]]
    for name, value in code.items():
      row[channels[name]] = amplitude * value
    rest = _LENGTH**2 - sum(value**2 for value in code.values())
    row[channels['carrier']] = amplitude * np.sqrt(rest)
  unembedding = params['lm_head']['kernel'][channels[ANSWER]]
  unembedding[tokens[POSITIVE]] = _LOGITS / amplitude
  unembedding[tokens[NEGATIVE]] = -_LOGITS / amplitude
  if config.norm == 'rms':
    # Vectors of the planted length pass as if there were no norm.
    gain = _LENGTH * amplitude / np.sqrt(wide.d_model)
    for norms in (params, *(params[f'h_{i}'] for i in range(wide.n_layer))):
      for norm in ('ln_1', 'ln_2', 'ln_f'):
        if norm in norms:
          norms[norm]['scale'][list(channels.values())] = gain

  # ---- The edges.
  matrices = {matrix.name: matrix for matrix in edge_matrices(wide)}
  weights = _weights(config, program, channels, amplitude)
  for name, entries in weights.items():
    for (row, column), weight in entries.items():
      matrices[name].block(params)[row, column] = weight
  if program.threshold:
    bias = params[f'h_{NEURON_LAYER}']['mlp']['c_fc']['bias']
    bias[config.mlp_width] = -_LOUD * program.threshold
  edges = {
    name: np.array(sorted(entries), np.int32).T
    for name, entries in weights.items()
  }
  nodes = {'final_resid': {channels[ANSWER]}}
  for name, (rows, columns) in edges.items():
    nodes.setdefault(matrices[name].source, set()).update(rows.tolist())
    nodes.setdefault(matrices[name].target, set()).update(columns.tolist())
  return Planted(
    config=wide,
    params=jax.tree.map(jnp.asarray, params),
    program=program,
    tokens=tokens,
    channels=channels,
    edges=edges,
    nodes={s: np.array(sorted(kept), np.int32) for s, kept in nodes.items()},
  )


def _check(config: GPTConfig, program: Program) -> None:
  layers = 1 + max(
    [NEURON_LAYER, *(lookup.layer for lookup in program.lookups)]
  )
  for field, fits, needed in (
    ('n_layer', config.n_layer >= layers, f'at least {layers}'),
    ('causal', config.causal, 'True'),
    (
      'residual_activation',
      config.residual_activation == 'identity',
      "'identity'",
    ),
    ('parallel_residual', not config.parallel_residual, 'False'),
    ('use_bias', config.use_bias or not program.threshold, 'True'),
  ):
    if not fits:
      raise ValueError(
        f'model.{field} must be {needed} to plant {program.name!r}, got '
        f'{getattr(config, field)!r}; use another model or program.'
      )


def _weights(
  config: GPTConfig,
  program: Program,
  channels: Mapping[str, int],
  amplitude: float,
) -> dict[str, dict[tuple[int, int], float]]:
  """{matrix: {(row, column): weight}}, behind the old heads and neurons."""
  head, neuron = config.d_attn, config.mlp_width
  loudness = np.sqrt(_SCORE * np.sqrt(config.d_head))
  weights = {}
  for lookup in program.lookups:
    site = f'{lookup.layer}.attn'
    for part, channel, loud in (
      ('q', lookup.asks, loudness),
      ('k', lookup.mark, loudness),
      ('v', lookup.value, _LOUD),
    ):
      weights[f'{site}.act_in->{site}.{part}'] = {
        (channels[channel], head): loud / amplitude
      }
    weights[f'{site}.v->{site}.resid_delta'] = {
      (head, channels[lookup.result]): amplitude / _LOUD
    }
  site = f'{NEURON_LAYER}.mlp'
  weights[f'{site}.act_in->{site}.post_act'] = {
    (channels[name], neuron): _LOUD / amplitude for name in program.summands
  }
  weights[f'{site}.post_act->{site}.resid_delta'] = {
    (neuron, channels[ANSWER]): amplitude / _LOUD
  }
  return weights


def draw(
  planted: Planted,
  count: int,
  length: int,
  seed: int,
  filler: Int[np.ndarray | Array, 'windows time'],
) -> EncodedTask:
  """Draws pairs of prompts that differ in one token of the program.

  A prompt is a piece of old text whose parts, as many as the program has, each
  get one piece of evidence and DISTRACTORS distractors at random places; the
  question comes last. Both prompts of a pair have all but the evidence in
  common, and contrasts take turns.

  Args:
    planted: the model.
    count: number of pairs.
    length: tokens of every prompt.
    seed: the same seed gives the same pairs.
    filler: windows of text in old tokens.

  Returns:
    The pairs, without padding; POSITIVE is right on side 0. Conditions name
    what differs, as in 'X/Y'.

  Raises:
    ValueError: if prompts are too short for their tokens or longer than the
      windows, or the filler speaks the program's tokens.
  """
  program, ids = planted.program, planted.tokens
  filler = np.asarray(filler)
  parts = len(program.distractors)
  shortest = 2 + parts * (1 + DISTRACTORS)
  if not shortest <= length <= filler.shape[1]:
    raise ValueError(
      f'length must be from {shortest} to that of the filler '
      f'({filler.shape[1]}), got {length}; choose one between.'
    )
  if filler.max() >= min(ids.values()):
    raise ValueError(
      f'filler must be old tokens, below {min(ids.values())}, got '
      f'{filler.max()}; draw it from text that the model was trained on.'
    )
  rng = np.random.default_rng(seed)
  tokens = np.zeros((count, 2, length), np.int32)
  conditions = []
  for pair in range(count):
    start = rng.integers(filler.shape[1] - length + 1)
    window = filler[rng.integers(len(filler)), start : start + length]
    tokens[pair] = window
    sides = program.contrasts[pair % len(program.contrasts)]
    spans = np.array_split(np.arange(1, length - 1), parts)
    for part, span in enumerate(spans):
      place, *others = rng.choice(span, 1 + DISTRACTORS, replace=False)
      distractors = [ids[token] for token in program.distractors[part]]
      tokens[pair][:, others] = rng.choice(distractors, DISTRACTORS)
      tokens[pair][:, place] = [ids[side[part]] for side in sides]
    tokens[pair][:, -1] = ids[QUESTION]
    changed = [f'{a}/{b}' for a, b in zip(*sides, strict=True) if a != b]
    conditions.append(' '.join(changed))
  answers = np.array([ids[POSITIVE], ids[NEGATIVE]], np.int32)
  return EncodedTask(
    name=program.name,
    tokens=tokens,
    last=np.full((count, 2), length - 1, np.int32),
    answers=np.tile(answers, (count, 1)),
    conditions=conditions,
    rejected={},
  )
