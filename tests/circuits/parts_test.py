"""What kept units are as nodes and edges, and which of them lead nowhere."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparse_interp.circuits import units as units_lib
from sparse_interp.circuits.gating import gated_model, task_loss
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.models.sites import node_sites


def test_parts_of_the_known_circuit_by_nodes_and_by_edges(known):
  for gates in ('nodes', 'edges'):
    units = units_lib.make(known.model, gates)
    made = units.parts(known.true_units(units))
    nodes = {site: kept.tolist() for site, kept in made.nodes.items()}
    assert {s: k for s, k in nodes.items() if k} == known.nodes
    assert (made.node_count, made.edge_count) == (4, 2)
    for name, edges in known.edges.items():
      kept = np.asarray(known.model.edges[name])[:, made.edges[name]]
      assert list(zip(*kept.tolist(), strict=True)) == edges


def test_nodes_without_a_way_to_the_output_are_found(known):
  # 5 reads noise; its value 1 has a kept writer, but channel 6 no reader.
  dangling = {
    '0.attn.act_in': [0, 5],
    '0.attn.q': [0, 4],
    '0.attn.v': [1, 5],
    '0.attn.resid_delta': [3, 6],
    '0.mlp.post_act': [2],
    'final_resid': [1, 3],
  }
  keep = known.units.mask_of(dangling)
  loose = known.units.split(keep & ~known.units.live(keep))
  found = {s: np.flatnonzero(m).tolist() for s, m in loose.items() if m.any()}
  assert found == {
    '0.attn.act_in': [5],
    '0.attn.q': [0, 4],
    '0.attn.v': [1],
    '0.attn.resid_delta': [6],
    '0.mlp.post_act': [2],
  }


def test_circuits_of_nodes_keep_what_leads_nowhere_and_of_edges_do_not(known):
  for gates in ('nodes', 'edges'):
    units = units_lib.make(known.model, gates)
    # No one reads what noise writes.
    keep = np.ones(units.count, bool)
    keep[-known.config.d_model :] = np.arange(known.config.d_model) == 3
    settled = units.settle(keep)
    assert np.array_equal(settled, keep) == (gates == 'nodes')
    assert np.all(settled[known.true_units(units)])


def _live_by_paths(model, masks):
  """Edges on a way to the output, by plain search over a list of edges.

  An edge counts while its source is fed and its target is read. A query and
  a key are read where both are written and their head has a read value. With
  rotary positions, the two channels of a head here are one pair.
  """
  config = model.config
  edges = {
    (name, (source, i), (target, j))
    for name, index in model.edges.items()
    for source, target in [name.split('->')]
    for (i, j), kept in zip(
      np.asarray(index).T.tolist(), masks[name], strict=True
    )
    if kept
  }
  final = set(np.flatnonzero(masks['final_resid']).tolist())

  def place(site):
    layer, kind, _ = site.split('.')
    late = kind == 'mlp' and not config.parallel_residual
    return 2 * int(layer) + late

  def fed(node):
    return node[0].endswith('act_in') or any(e[2] == node for e in edges)

  def is_read(node):
    site, channel = node
    if site.endswith('resid_delta'):
      return channel in final or any(
        e[1][1] == channel
        and e[1][0].endswith('act_in')
        and place(e[1][0]) > place(site)
        for e in edges
      )
    if site.endswith(('attn.q', 'attn.k')):
      met = {channel}
      if config.position == 'rotary':
        met = {channel, channel ^ 1}
      other = site[:-1] + {'q': 'k', 'k': 'q'}[site[-1]]
      both = fed(node) and any(fed((other, c)) for c in met)
      return both and any(
        e[1][0] == site[:-1] + 'v'
        and e[1][1] // config.d_head == channel // config.d_head
        for e in edges
      )
    return any(e[1] == node for e in edges)

  while True:
    left = {e for e in edges if fed(e[1]) and is_read(e[2])}
    if left == edges:
      return edges
    edges = left


@pytest.fixture(
  scope='module',
  params=[{}, {'position': 'rotary', 'parallel_residual': True}],
  ids=['sequential', 'rotary, parallel'],
)
def small(request):
  """Two layers of a few nonzero weights; zeros elsewhere."""
  config = GPTConfig(
    vocab_size=3,
    n_layer=2,
    d_model=4,
    d_head=2,
    d_mlp=4,
    context_length=4,
    activation_density=None,
    bigram_table=False,
    **request.param,
  )
  rng = np.random.default_rng(1)
  shapes = jax.eval_shape(
    GPT(config).init, jax.random.key(0), jnp.zeros((1, 4), int)
  )
  params = jax.tree.map(
    lambda x: jnp.asarray(rng.random(x.shape) < 0.5, jnp.float32),
    shapes['params'],
  )
  values = {s: jnp.zeros(w) for s, w in node_sites(config).items()}
  return gated_model.make(config, params, values)


@pytest.mark.slow
@hypothesis.given(st.integers(0, 10**6), st.floats(0.05, 0.95))
@hypothesis.settings(max_examples=60)
def test_live_edges_are_those_that_a_plain_path_search_finds(
  small, seed, share
):
  units = units_lib.make(small, 'edges')
  keep = np.random.default_rng(seed).random(units.count) < share
  expected = _live_by_paths(small, units.split(keep))
  live, made = units.split(units.live(keep)), units.parts(keep)
  for name, index in small.edges.items():
    source, target = name.split('->')
    found = {
      (name, (source, i), (target, j))
      for i, j in np.asarray(index)[:, live[name]].T.tolist()
    }
    assert found == {edge for edge in expected if edge[0] == name}
    np.testing.assert_array_equal(made.edges[name], live[name])
  # Final nodes are no dead ends by themselves; all others are ends of edges.
  ends = set(itertools.chain.from_iterable(edge[1:] for edge in expected))
  for site, kept in made.nodes.items():
    if site != 'final_resid':
      assert set(kept.tolist()) == {c for s, c in ends if s == site}
  settled = units.settle(keep)
  np.testing.assert_array_equal(units.live(settled), settled)


@pytest.fixture(
  scope='module',
  params=[
    {},
    {'position': 'rotary'},
    {'parallel_residual': True},
  ],
  ids=['plain', 'rotary', 'parallel'],
)
def linear(request):
  """Parts that only edges join: no norm, no AbsTopK; and pairs of prompts."""
  config = GPTConfig(
    vocab_size=7,
    n_layer=2,
    d_model=6,
    d_head=2,
    d_mlp=5,
    context_length=6,
    norm='none',
    activation_density=None,
    bigram_table=False,
    use_bias=False,
    **request.param,
  )
  shapes = jax.eval_shape(
    GPT(config).init, jax.random.key(0), jnp.zeros((1, 6), int)
  )
  rng = np.random.default_rng(2)
  params = jax.tree.map(
    lambda x: jnp.asarray(
      rng.normal(0, 1, x.shape) * (rng.random(x.shape) < 0.4), jnp.float32
    ),
    shapes['params'],
  )
  pairs = task_loss.Pairs(
    jnp.asarray(rng.integers(0, 7, (32, 2, 6)), jnp.int32),
    jnp.full((32, 2), 5),
    jnp.tile(jnp.array([1, 2]), (32, 1)),
  )
  return config, params, pairs


@pytest.mark.slow
@pytest.mark.parametrize(
  'ablation',
  [
    'zero',
    'counterfactual',
    'resample',
  ],
)
@hypothesis.given(st.integers(0, 10**6), st.floats(0.05, 0.6))
@hypothesis.settings(max_examples=20, deadline=None)
def test_what_leads_nowhere_changes_no_answer(linear, ablation, seed, share):
  config, params, pairs = linear
  values = {s: jnp.zeros(w) for s, w in node_sites(config).items()}
  model = gated_model.make(config, params, values, ablation)
  units = units_lib.make(model, 'edges')
  keep = np.random.default_rng(seed).random(units.count) < share

  def answers(mask):
    return gated_model.all_outputs(model, units.unfold(mask), pairs)

  np.testing.assert_allclose(
    answers(units.settle(keep)), answers(keep), rtol=1e-4, atol=1e-4
  )


def test_a_query_without_a_key_leads_somewhere_where_keys_are_of_others(known):
  query = '0.attn.act_in->0.attn.q'
  rng = np.random.default_rng(0)
  kernel = rng.normal(
    0, 1, known.params['h_0']['attn']['c_attn']['kernel'].shape
  )
  params = jax.tree.map(jnp.asarray, known.params)
  params['h_0']['attn']['c_attn']['kernel'] = jnp.asarray(kernel, jnp.float32)
  left = {}
  for ablation in ('mean', 'zero', 'counterfactual', 'resample', 'subsets'):
    model = gated_model.make(known.config, params, known.means, ablation)
    units = units_lib.make(model, 'edges')
    keep = units.mask_of(
      {
        query: np.arange(units.sizes[query]),
        '0.attn.v->0.attn.resid_delta': np.arange(3),
        'final_resid': np.arange(known.config.d_model),
      }
    )
    live = units.split(units.settle(keep))
    left[ablation] = int(live[query].sum())
  assert left['mean'] == left['zero'] == 0
  assert left['counterfactual'] == left['resample'] > 0
  assert left['subsets'] == units.sizes[query]
