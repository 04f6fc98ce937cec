"""Are planted programs found, weight by weight, in a trained model?"""

import pathlib
from typing import Any

import numpy as np
from jaxtyping import Int

from sparse_interp.circuits import find
from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.gating import gated_model
from sparse_interp.circuits.gating.task_loss import make_pairs
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.ranking import attribution
from sparse_interp.circuits.recovery import set_scores
from sparse_interp.circuits.selecting import from_ranking, parted
from sparse_interp.circuits.selecting.answers import answer_by_gates
from sparse_interp.files import model_files
from sparse_interp.ground_truth.planted.planted import draw, plant
from sparse_interp.ground_truth.planted.planted_programs import Program
from sparse_interp.models import GPTConfig
from sparse_interp.models.means import site_means
from sparse_interp.models.sites import edge_ends
from sparse_interp.training import pretrain

# Prompts that nothing is fitted to are drawn far from those that are.
_TEST_SEED = 1000

METHODS = ('edge_masks', 'eap_ig')

# Slopes are averaged over so many pairs; bisection begins with so many edges.
_RANKING_PAIRS = 64
_GUESS = 64


def load(workdir: str | pathlib.Path) -> tuple[GPTConfig, dict, np.ndarray]:
  """A pretrained model and its sample of pretraining text."""
  config, params = pretrain.load_model(workdir)
  sample = model_files.checked(workdir, model_files.SAMPLE)
  return config, params, np.load(sample)


def score_planted(
  config: GPTConfig,
  params: dict,
  windows: Int[np.ndarray, 'windows time'],
  program: Program,
  prune_config: PruneConfig,
  seed: int,
  pairs: int = 512,
  length: int = 40,
  method: str = 'edge_masks',
  progress: Progress | None = None,
) -> dict[str, Any]:
  """Plants a program, searches for its edges, compares with the truth.

  Args:
    config: the model.
    params: its parameters.
    windows: pretraining text: removed parts take its means, and prompts are
      filled with it.
    program: one of `planted_programs.PROGRAMS`.
    prune_config: hyper-parameters, with gates on edges.
    seed: of prompts and gates.
    pairs: pairs of prompts for training; half as many test.
    length: tokens of every prompt.
    method: of METHODS.
    progress: called now and then with what there is to show.

  Returns:
    A row as those of `compiled_scores`, truth 'planted' at the level of single
    weights.
  """
  planted = plant(config, params, program)
  batches = np.array_split(windows, max(1, len(windows) // 32))
  means = site_means(planted.config, planted.params, batches)
  model = gated_model.make(
    planted.config, planted.params, means, prune_config.ablation
  )
  train, test = (
    make_pairs(draw(planted, count, length, own_seed, windows))
    for count, own_seed in ((pairs, seed), (pairs // 2, seed + _TEST_SEED))
  )
  result = _search(method, model, train, prune_config, seed, progress)
  answers = answer_by_gates(result.units)(result.keep, test)
  kept = _entries(
    {
      name: np.asarray(model.edges[name])[:, mask]
      for name, mask in result.units.parts(result.keep).edges.items()
    }
  )
  truth = _entries(planted.edges)
  nonzero = _entries(model.edges)
  return {
    'program': f'planted {program.name}',
    'seed': seed,
    'method': method,
    'gates': 'edges',
    'ablation': prune_config.ablation,
    'target': prune_config.target_loss,
    'split': 'found on train, test_loss on test',
    'test_loss': float(
      np.mean(test.losses(answers, result.scale, result.shift))
    ),
    'weights': len(kept),
    'of_weights': len(nonzero),
    'truth': 'planted',
    **set_scores(kept, truth),
    'auroc': None,
    'missed': sorted(map(_name, truth - kept)),
    'extra': sorted(map(_name, kept - truth)),
  }


def _search(method, model, train, config, seed, progress):
  """From either ranking to a circuit."""
  if method == 'edge_masks':
    return find.find_units(model, train, config, seed, progress)
  units = from_ranking.units_of(model, config)
  data = parted.part(model, train, config)
  few = data.fitting.take(np.arange(min(_RANKING_PAIRS, data.fitting.size)))
  # By absolute value: the channel of the answer makes wrong answers worse on
  # most of the way, and yet nothing can be right without it.
  order = attribution.order(np.abs(attribution.eap_ig(units, few)))
  return from_ranking.select(units, order, _GUESS, data, config, progress)


def _entries(edges):
  return {
    (name, *entry)
    for name, index in edges.items()
    for entry in np.asarray(index).T.tolist()
  }


def _name(entry):
  name, row, column = entry
  source, target = edge_ends(name)
  return f'{source}:{row}>{target}:{column}'
