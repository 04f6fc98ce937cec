"""Seeds and recipes side by side, and what is concluded from them."""

import json

import pytest

from experiments import seeds as experiment
from sparse_interp import main
from sparse_interp.runs import seeds


def _of_recipe(found, holds, nodes):
  return {
    'circuits': len(nodes),
    'found': found,
    'holds': holds,
    'nodes': nodes,
    'edges': {name: 2 * count for name, count in nodes.items()},
  }


def test_what_repeats_is_what_every_seed_has():
  by_seed = {
    '0': {
      'learned': ['a', 'b', 'c'],
      'closed': _of_recipe(['a', 'b'], ['a'], {'a': 10, 'b': 30}),
    },
    '1': {
      'learned': ['a', 'b'],
      'closed': _of_recipe(['a'], ['a', 'b'], {'a': 20, 'b': 60}),
    },
  }
  found = seeds.conclusions(by_seed, ['closed'])
  assert found['learned_in_every_seed'] == ['a', 'b']
  assert found['learned_at_least'] == 2
  assert found['closed'] == {
    'found_share_at_least': 0.5,
    'holds_in_every_seed': ['a'],
    'median_nodes': 25,
    'median_edges': 50,
  }


@pytest.mark.parametrize(
  ('field', 'value', 'said'),
  [
    ('recipes', ('other',), 'recipes must each be one of closed, published'),
    ('recipes', (), 'seeds and recipes must each have one at least'),
    ('seeds', (-1,), 'seed must be'),
  ],
)
def test_what_cannot_be_is_refused_before_any_work(
  field, value, said, tmp_path
):
  config = experiment.get_config('tiny')
  config[field] = value
  with pytest.raises(ValueError, match=said):
    main.run(config, str(tmp_path / 'w'))
  assert not (tmp_path / 'w').exists()


@pytest.mark.long
def test_a_seed_by_both_recipes_once(tmp_path):
  config = experiment.get_config('tiny')
  config.seeds, config.tasks = (1,), 'else_elif,bracket_brace'
  workdir = tmp_path / 'w'
  main.run(config, str(workdir))
  first = json.loads((workdir / 'summary.json').read_text())
  assert set(first['seeds']) == {'1'}
  own = json.loads((workdir / 'seed_1/published/summary.json').read_text())
  assert own['asked']['config']['prune']['recipe'] == 'published'
  learned = first['seeds']['1']['learned']
  for recipe in ('closed', 'published'):
    pruned = first['seeds']['1'][recipe]
    assert set(pruned['nodes']) <= set(learned) - {seeds.APART}
    assert (workdir / f'seed_1/{recipe}/report.html').exists()
  main.run(config, str(workdir))
  again = json.loads((workdir / 'summary.json').read_text())
  assert again['seeds'] == first['seeds']
