"""Every wrong field is refused in one line that names it."""

import pytest

from experiments.pretrain import expansion, laptop, tiny
from sparse_interp.training import plan


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('seed', -1),
    ('data.batch_size', 0),
    ('data.length', 1),
    ('data.vocab_size', 256),
    ('data.validation_fraction', 1.0),
    ('data.corpora', ()),
    ('data.corpora', (('idioms', 0.0),)),
    ('data.corpora', ('idioms', 'stdlib')),
    ('data.corpora', (('idioms', 1.0), ('idioms', 1.0))),
    ('model.d_model', 33),
    ('model.vocab_size', 12),
    ('model.depth', 12),
    ('sparsity.density', 0.0),
    ('sparsity.density', 1.5),
    ('sparsity.minimum_alive', 30),
    ('sparsity.biases', 'none'),
    ('sparsity.products', 'fast'),
    ('sparsity.regrow_every', 0),
    ('optimizer.learning_rate', 0.0),
    ('optimizer.eps', 0.0),
    ('train.tokens', 100),
    ('train.log_every', 0),
    ('train.keep_checkpoints', 0),
  ],
)
def test_a_wrong_field_is_named_in_one_line(field, value):
  config = tiny.get_config()
  section, _, name = field.rpartition('.')
  with config.unlocked():
    (config[section] if section else config)[name] = value
  with pytest.raises(ValueError) as error:
    plan.make_plan(config)
  assert field in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('field', 'least'),
  [
    ('data.batch_size', 1),
    ('data.length', 2),  # one token, and the one that follows
    ('data.vocab_size', 257),  # all bytes, and the end of a text
    ('data.max_bytes', 1),
    ('sparsity.block', 1),
    ('sparsity.minimum_alive', 0),
    ('sparsity.regrow_every', 1),
    ('train.tokens', 1),
    ('train.log_every', 1),
    ('train.eval_every', 1),
    ('train.eval_batches', 1),
    ('train.checkpoint_every', 1),
    ('train.keep_checkpoints', 1),
    ('train.fsdp', 1),
    ('seed', 0),
  ],
)
def test_the_least_that_makes_sense_is_taken_and_one_less_is_not(field, least):
  config = tiny.get_config()
  with config.ignore_type():
    config.update_from_flattened_dict({field: least})
    plan._check_values(config)
    config.update_from_flattened_dict({field: least - 1})
  with pytest.raises(ValueError, match=rf'^{field} must be '):
    plan._check_values(config)


def test_a_seed_has_32_bits():
  config = tiny.get_config()
  config.seed = 2**32 - 1
  plan._check_values(config)
  config.seed = 2**32
  with pytest.raises(ValueError, match=r'^seed must be '):
    plan._check_values(config)


def test_a_table_of_bigrams_is_for_a_vocabulary_of_8192_or_less():
  config = tiny.get_config()
  tables = []
  for size in (8192, 8193):
    config.data.vocab_size = size
    config.model.bigram_table = None
    tables.append(plan.model_config(config).bigram_table)
  assert tables == [True, False]


@pytest.mark.parametrize('weight', [0.0, -1.0, float('inf'), '1'])
def test_what_is_no_weight_of_a_corpus_is_refused(weight):
  config = tiny.get_config()
  config.data.corpora = (('idioms', 1e-9),)
  plan._check_corpora(config.data)
  config.data.corpora = (('idioms', weight),)
  with pytest.raises(ValueError, match=r'^data\.corpora must be pairs'):
    plan._check_corpora(config.data)


def test_fields_that_exclude_each_other_are_named_in_one_line():
  for fields, words in (
    (
      {'products': 'dense', 'regrow_every': 10},
      "sparsity.products must not be 'dense' where sparsity.regrow_every",
    ),
    (
      {'products': 'row_sparse', 'block': 16},
      "sparsity.products must be 'auto' where sparsity.block is set",
    ),
  ):
    config = tiny.get_config()
    config.sparsity.update(fields)
    with pytest.raises(ValueError) as error:
      plan.make_plan(config)
    assert words in str(error.value)
    assert '\n' not in str(error.value)


def test_zeros_are_skipped_where_that_pays(monkeypatch):
  def products(density, asked='auto', devices=1):
    monkeypatch.setattr('jax.device_count', lambda: devices)
    config = laptop.get_config()
    config.sparsity.update({'density': density, 'products': asked})
    return plan.make_plan(config).products

  assert products(1 / 16).skip_zeros
  assert not products(1 / 4).skip_zeros
  assert not products(1 / 16, 'dense').skip_zeros
  assert not products(1 / 16, devices=8).skip_zeros
  assert products(1 / 4, 'row_sparse', devices=8).skip_zeros


@pytest.mark.slow
@pytest.mark.parametrize('factor', expansion.FACTORS)
def test_published_sizes_keep_the_nonzeros_for_every_width(factor):
  config = expansion.get_config(factor)
  made = plan.make_plan(config)
  assert made.updates == 244_141
  assert made.model.d_model == 256 * int(factor)
  assert made.model.mlp_width == 1024 * int(factor)
  hidden = [
    int(target.counts[-1])
    for name, target in made.targets.items()
    if name.startswith('h_') and name.endswith('kernel')
  ]
  assert sum(hidden) == 12 * 256**2 * 8 // 4
  assert int(made.targets['wte/embedding'].counts[-1]) == 2048 * 256 // 4


def test_an_unpublished_size_is_an_error():
  with pytest.raises(ValueError, match='expansion factor'):
    expansion.get_config('3')


def test_the_laptop_model_is_sparse_enough_for_its_circuits():
  made = plan.make_plan(laptop.get_config())
  for name, target in made.targets.items():
    if name.startswith('h_') and name.endswith('kernel'):
      assert target.minimum_alive > 0
  assert laptop.get_config().sparsity.density <= 1 / 16
