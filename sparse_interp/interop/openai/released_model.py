"""A released circuit and the model it belongs to: evaluated, and converted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.circuits import examples
from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.circuit import Circuit
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.gated_model import GatedModel
from sparse_interp.circuits.gating.gates import apply_gates
from sparse_interp.circuits.gating.losses import TASK_LOSS, pair_losses
from sparse_interp.circuits.gating.task_loss import Pairs, make_pairs
from sparse_interp.interop.openai.released_circuit import Released
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.model import Means
from sparse_interp.models.params_hash import hash_params
from sparse_interp.models.sites import node_sites
from sparse_interp.tasks.encoding import EncodedTask

Answers = tuple[int, int | None]


class Reevaluation(NamedTuple):
  """Losses recomputed from model, circuit and samples, and those stored.

  Attributes:
    full_loss: of the whole model on the stored prompts, in nats.
    pruned_loss: of the circuit.
    stored_full_loss: as stored, halved.
    stored_pruned_loss: as stored, halved.
    full_activations: largest difference of stored activations from those of
      the whole model; nan where none are stored.
    pruned_activations: the same from those of the circuit.
  """

  full_loss: float
  pruned_loss: float
  stored_full_loss: float
  stored_pruned_loss: float
  full_activations: float
  pruned_activations: float

  def __str__(self) -> str:
    """Two lines that say how much differs."""
    lines = []
    for name, found, stored, activations in (
      (
        'full model',
        self.full_loss,
        self.stored_full_loss,
        self.full_activations,
      ),
      (
        'circuit',
        self.pruned_loss,
        self.stored_pruned_loss,
        self.pruned_activations,
      ),
    ):
      lines.append(
        f'{name}: loss {found:.6f}, stored {stored:.6f} (half of what the file '
        f'holds), difference {found - stored:+.2e}; stored activations differ '
        f'by at most {activations:.2e}'
      )
    return '\n'.join(lines)


def reevaluate(
  released: Released,
  config: GPTConfig,
  params: dict,
  means: Means,
  answers: Answers,
  scale: float = 1.0,
  shift: float = 0.0,
) -> Reevaluation:
  """Recomputes what is stored of a circuit.

  The stored losses may be over more prompts than the stored ones: then a
  difference says little. One of the size of the loss itself says that model,
  means or answers are others.

  Args:
    released: the circuit.
    config: the model it belongs to.
    params: its parameters.
    means: {site: what removed nodes take}, from `read_means` of the released
      file, or from `means.site_means`.
    answers: token that the first half of the prompts calls for, and the one of
      the second half; None there means any but the first.
    scale: of the circuit's logits, where the sweep fitted one.
    shift: is added to the difference of the two answers' scaled logits.

  Raises:
    ValueError: the circuit is none of this model's.
  """
  model = _gated(released, config, params, means)
  pairs = make_pairs(_task(released, config, answers))
  gates = _gates(released, config)
  full, seen = _run(model, {}, pairs)
  pruned, pruned_seen = _run(model, gates, pairs)
  return Reevaluation(
    full_loss=_loss(full, pairs, answers),
    pruned_loss=_loss(pruned, pairs, answers, scale, shift),
    stored_full_loss=released.losses.full,
    stored_pruned_loss=released.losses.pruned,
    full_activations=_difference(released, seen),
    pruned_activations=_difference(released, pruned_seen),
  )


def to_circuit(
  released: Released,
  config: GPTConfig,
  params: dict,
  means: Means,
  answers: tuple[int, int],
  task: str,
  description: str = '',
  pieces: Callable[[Sequence[int]], list[str]] | None = None,
) -> Circuit:
  """The circuit as our artifact, its weights taken from the model.

  Args:
    released: the circuit.
    config: the model it belongs to.
    params: its parameters.
    means: {site: what removed nodes take}.
    answers: tokens that the two halves of the prompts call for.
    task: name of the task.
    description: one sentence about it.
    pieces: printable pieces of token ids; their decimal numbers without it.

  Returns:
    A circuit without scores, which are not stored. Its `metrics` are the
    stored losses, halved (`stored_...`), and those recomputed on the stored
    prompts.

  Raises:
    ValueError: the circuit is none of this model's.
  """
  model = _gated(released, config, params, means)
  posed = _task(released, config, answers)
  pairs, gates = make_pairs(posed), _gates(released, config)
  units = units_lib.make(model, 'nodes', 'final_resid' in released.nodes)
  made = units.parts(units.mask_of(released.nodes))
  found = reevaluate(released, config, params, means, answers)
  shown, tokens, activations = examples.make_examples(
    model,
    released.nodes,
    (1.0, 0.0),
    gates,
    posed,
    pairs,
    pairs.size,
    pieces,
  )
  sites = node_sites(config, 'final_resid' in released.nodes)
  return Circuit(
    task=task,
    description=description,
    config=config,
    gates='nodes',
    sites=sites,
    nodes={site: released.nodes[site] for site in sites},
    edges=circuit_lib.list_edges(config, params, model.edges, made, sites),
    means={site: np.asarray(means[site]) for site in model.values},
    scores={},
    scale=1.0,
    shift=0.0,
    ablation={'kind': 'mean', 'over': 'pretraining'},
    formula={
      'test_loss': f'{TASK_LOSS}; on the prompts stored with it',
      **examples.FORMULAS,
    },
    metrics={
      'test_loss': found.pruned_loss,
      'full_loss': found.full_loss,
      'stored_test_loss': found.stored_pruned_loss,
      'stored_full_loss': found.stored_full_loss,
      'test_pairs': pairs.size,
    },
    prune_config=released.prune_config,
    history={
      'step': [step for step, _ in released.losses.search],
      'task_loss': [loss for _, loss in released.losses.search],
    },
    examples=shown,
    example_tokens=tokens,
    activations=activations,
    provenance={
      'released_file_hash': released.hash,
      'params_hash': hash_params(params),
    },
  )


def _gated(released, config, params, means) -> GatedModel:
  widths = node_sites(config)
  unknown = set(released.nodes) - set(widths)
  missing = set(widths) - {'final_resid'} - set(released.nodes)
  if unknown or missing:
    site = min(unknown or missing)
    raise _foreign(f'circuit_data of {site}', 'there' if missing else 'absent')
  for site, kept in released.nodes.items():
    if len(kept) and kept[-1] >= widths[site]:
      raise _foreign(f'channels of {site}', f'below {widths[site]}', kept[-1])
    if site not in means or np.shape(means[site]) != (widths[site],):
      raise _foreign(f'means of {site}', f'{widths[site]} numbers')
  if released.tokens.max() >= config.vocab_size:
    raise _foreign(
      'tokens', f'below {config.vocab_size}', released.tokens.max()
    )
  means = {site: jnp.asarray(means[site]) for site in means if site in widths}
  return gated_model.make(config, params, means)


def _foreign(field, constraint, found='something else'):
  return ValueError(
    f'released circuit: {field} must be {constraint} for this model, got '
    f'{found}; give the model that the circuit was found in.'
  )


def _gates(released, config):
  gates = {}
  for site, kept in released.nodes.items():
    gates[site] = jnp.zeros(node_sites(config)[site]).at[kept].set(1.0)
  return gates


def _task(released, config, answers) -> EncodedTask:
  """Pairs of one prompt from each half."""
  for answer in answers:
    if answer is not None and not 0 <= answer < config.vocab_size:
      raise ValueError(
        f'answers must be tokens below {config.vocab_size}, got {answer}; '
        'encode them with the tokenizer of the model.'
      )
  count = len(released.tokens) // 2

  def by_pair(array):
    return np.stack([array[:count], array[count:]], axis=1)

  first, second = answers
  both = (first, first if second is None else second)
  return EncodedTask(
    name='released',
    tokens=by_pair(released.tokens),
    last=by_pair(released.lengths - 1).astype(np.int32),
    answers=np.tile(np.array(both, np.int32), (count, 1)),
    conditions=['released'] * count,
    rejected={},
  )


@jax.jit
def _run(
  model: GatedModel, gates: dict[str, Array], pairs: Pairs
) -> tuple[Float[Array, 'prompts vocab'], dict[str, Array]]:
  params, edits = apply_gates(
    model.config, model.params, model.edges, gates, model.values
  )
  found: Any = GPT(model.config).apply(
    {'params': params}, edits=edits, **pairs.inputs()
  )
  return found


def _loss(logits, pairs, answers, scale=1.0, shift=0.0) -> float:
  """Mean over pairs and prompts; for one answer, of it or of all others."""
  if answers[1] is not None:
    return float(jnp.mean(pair_losses(pairs.read(logits), scale, shift)))
  logs = jax.nn.log_softmax(logits).reshape(-1, 2, logits.shape[-1])
  right = logs[:, 0, answers[0]]
  wrong = jax.nn.logsumexp(logs[:, 1].at[:, answers[0]].set(-jnp.inf), axis=-1)
  return float(-jnp.mean(right + wrong) / 2)


def _difference(released: Released, seen: Mapping[str, Any]) -> float:
  """Largest difference on the tokens of the prompts, without their padding."""
  count, worst = len(released.tokens) // 2, float('nan')
  width = released.tokens.shape[1]
  visible = np.arange(width) < released.lengths[:, None]
  for site, channels in released.activations.items():
    values = np.asarray(seen[site]).reshape(count, 2, -1, seen[site].shape[-1])
    values = np.concatenate([values[:, 0], values[:, 1]])
    for channel, stored in channels.items():
      shared = min(width, values.shape[1])
      apart = np.abs(stored[:, :shared] - values[:, :shared, channel])
      worst = np.fmax(worst, apart[visible[:, :shared]].max())
  return float(worst)
