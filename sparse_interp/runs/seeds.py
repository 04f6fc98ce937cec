"""The seeds run: the quickstart over seeds and recipes, and what repeats."""

import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import config_dict

from sparse_interp.auditing import criteria
from sparse_interp.circuits.gating.ablation_names import TOGETHER
from sparse_interp.circuits.prune_config import RECIPES
from sparse_interp.files import pace
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.runs import prune
from sparse_interp.training import hosts, metrics, pretrain, ranges, sharding

_PHASE = 'seeds'

# The last token of its prompts decides: it says nothing of circuits.
APART = 'else_elif'

FORMULAS = {
  'learned': 'see the summaries of the seeds',
  'found': 'learned tasks whose circuit met every bound, see auditing.criteria',
  'holds': 'learned tasks whose circuit keeps below the target, by the end of '
  'its 95 % interval, under every one of ' + ', '.join(TOGETHER),
  'median_nodes': 'of the circuits of all learned tasks, found or not; edges '
  'likewise',
  'apart': f'{APART} counts as learned, for nothing else: the last token of '
  'its prompts decides',
}


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains and prunes for every seed and recipe; goes on where it stopped.

  Args:
    config: see experiments/seeds.py.
    workdir: receives seed_<n>/model, seed_<n>/<recipe> and summary.json.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: a field of the configuration is wrong.
  """
  check(config, workdir)
  begun, done = time.monotonic(), 0
  with hosts.claimed(workdir, config.to_dict(), _PHASE):
    by_seed = {}
    for seed in config.seeds:
      by_seed[str(seed)] = _of_seed(config, pathlib.Path(workdir), seed)
      done += 1
      left = metrics.duration(pace.seconds_left(begun, done, len(config.seeds)))
      metrics.say(_PHASE, f'{_line(seed, by_seed[str(seed)])}, {left} left')
    return workdir_lib.add_to_summary(
      workdir,
      {
        'asked': {'config': config.to_dict()},
        'device': sharding.device_name(),
        'formulas': FORMULAS,
        'seeds': by_seed,
        **conclusions(by_seed, config.recipes),
        'wall_seconds': time.monotonic() - begun,
      },
    )


def check(config: config_dict.ConfigDict, workdir: str) -> None:
  """Raises ValueError if a field is wrong; does no work."""
  prune.check(config)
  for recipe in config.recipes:
    if recipe not in RECIPES:
      raise ValueError(
        f'recipes must each be one of {", ".join(RECIPES)}, got {recipe!r}; '
        'choose some of these.'
      )
  for seed in config.seeds:
    one = _with_seed(config, seed)
    ranges.check_seed(one)
    pretrain.check(one, str(pathlib.Path(workdir) / f'seed_{seed}' / 'model'))
  if not config.seeds or not config.recipes:
    raise ValueError(
      'seeds and recipes must each have one at least, got '
      f'{config.seeds} and {config.recipes}; give e.g. (0, 1) and '
      f'{tuple(RECIPES)}.'
    )


def _with_seed(config, seed):
  one = config.copy_and_resolve_references()
  with one.unlocked():
    one.seed, one.run = seed, 'pretrain'
  return one


def _of_seed(
  config: config_dict.ConfigDict, workdir: pathlib.Path, seed: int
) -> dict[str, Any]:
  place = workdir / f'seed_{seed}'
  one = _with_seed(config, seed)
  trained = pretrain.run(one, str(place / 'model'))
  found = {}
  for recipe in config.recipes:
    asked = config_dict.ConfigDict(
      {
        'run': 'prune',
        'seed': seed,
        'model_workdir': str(place / 'model'),
        **{k: one[k] for k in ('tasks', 'circuits_at_most', 'pairs', 'prune')},
      }
    )
    asked.prune.recipe = recipe
    found[recipe] = prune.run(asked, str(place / recipe))
  tasks = next(iter(found.values()))['tasks']
  return {
    'learned': [name for name, entry in tasks.items() if entry['learned']],
    'of': len(tasks),
    'training_seconds': trained['wall_seconds'],
    **{recipe: _of_recipe(summary) for recipe, summary in found.items()},
  }


def _of_recipe(summary: Mapping[str, Any]) -> dict[str, Any]:
  circuits, missed, holds = {}, {}, []
  for name, entry in summary['tasks'].items():
    found = entry['circuit'] or entry.get('failed_circuit')
    if name == APART or not found:
      continue
    circuits[name] = found
    missed[name] = list(found.get('missed', ()))
    if set(TOGETHER) <= set(
      criteria.holds_under(found, summary['asked']['config']['prune'])
    ):
      holds.append(name)
  return {
    'circuits': len(circuits),
    'found': [name for name, bounds in missed.items() if not bounds],
    'holds': holds,
    'missed': {name: bounds for name, bounds in missed.items() if bounds},
    'nodes': {name: found['nodes'] for name, found in circuits.items()},
    'edges': {name: found['edges'] for name, found in circuits.items()},
  }


def conclusions(
  by_seed: Mapping[str, Mapping[str, Any]], recipes: Sequence[str]
) -> dict[str, Any]:
  """What repeats: counts that every seed reaches, and median sizes.

  Args:
    by_seed: {seed: tasks learned, and what each recipe found}.
    recipes: names of these.
  """
  learned = [set(one['learned']) for one in by_seed.values()]
  found = {
    'learned_in_every_seed': sorted(set.intersection(*learned)),
    'learned_at_least': min(map(len, learned)),
  }
  for recipe in recipes:
    own = [one[recipe] for one in by_seed.values()]
    sizes = {
      what: [n for one in own for n in one[what].values()]
      for what in ('nodes', 'edges')
    }
    found[recipe] = {
      'found_share_at_least': min(
        len(one['found']) / max(1, one['circuits']) for one in own
      ),
      'holds_in_every_seed': sorted(
        set.intersection(*(set(one['holds']) for one in own))
      ),
      **{
        f'median_{what}': statistics.median(all_sizes) if all_sizes else None
        for what, all_sizes in sizes.items()
      },
    }
  return found


def _line(seed: int, one: Mapping[str, Any]) -> str:
  told = [f'seed {seed}: {len(one["learned"])} of {one["of"]} learned']
  for recipe in RECIPES:
    if recipe in one:
      own = one[recipe]
      told.append(
        f'{recipe}: {len(own["found"])} of {own["circuits"]} found, '
        f'{len(own["holds"])} hold under all ablations'
      )
  return '; '.join(told)
