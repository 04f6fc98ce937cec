"""Every run looks at every field before it claims a directory."""

import pytest

from experiments import ground_truth, import_model, prune, quickstart, strength
from experiments.benchmarks import kernels, pruning, step_time
from experiments.pretrain import tiny
from sparse_interp.ground_truth.compiled.programs import PROGRAMS
from tests.refusals import assert_refused

INF, NAN = float('inf'), float('nan')

PRETRAIN = [
  ('optimizer.learning_rate', INF),
  ('optimizer.learning_rate', NAN),
  ('optimizer.learning_rate', 0.0),
  ('optimizer.learning_rate', -1e-3),
  ('optimizer.learning_rate', '1e-3'),
  ('optimizer.warmup_fraction', 1.0),
  ('optimizer.warmup_fraction', -0.1),
  ('optimizer.warmup_fraction', NAN),
  ('optimizer.eps', INF),
  ('optimizer.beta2', True),
  ('optimizer.gradient_rms', 'none at all'),
  ('sparsity.exponent', INF),
  ('sparsity.density', '1/4'),
  ('sparsity.minimum_alive', 2.5),
  ('sparsity.block', 'x'),
  ('sparsity.regrow_every', 0),
  ('sparsity.products', 7),
  ('data.corpora', (('files:/nowhere/*.py', 1.0),)),
  ('data.corpora', (('parquet:/nowhere/x.parquet#text', 1.0),)),
  ('data.corpora', (('jsonl:/nowhere/x.jsonl', 1.0),)),
  ('data.corpora', (('files:gopher://x', 1.0),)),
  ('data.corpora', (('idiom', 1.0),)),
  ('data.corpora', (('idioms', INF),)),
  ('data.corpora', (('idioms', NAN),)),
  ('data.corpora', 'idioms'),
  ('data.max_bytes', 0),
  ('data.max_bytes', '1'),
  ('data.max_bytes', None),  # with an endless corpus
  ('data.batch_size', 8.0),
  ('data.vocab_size', True),
  ('data.validation_fraction', '0.1'),
  ('train.tokens', '10'),
  ('train.eval_batches', 0),
  ('train.fsdp', 3),
  ('seed', -1),
  ('seed', '0'),
]
PRUNE = [
  ('pairs.train', 8),  # fewer than are taken for each use
  ('pairs.test', 2.5),
  ('pairs.length', '80'),
  ('circuits_at_most', 0),
  ('circuits_at_most', '8'),
  ('prune.learning_rate', INF),
  ('prune.k_coef', NAN),
  ('seed', 2**32),
]
RUNS = {
  'pretrain': (tiny.get_config, PRETRAIN),
  'quickstart': (lambda: quickstart.get_config('tiny'), PRETRAIN + PRUNE),
  'prune': (
    prune.get_config,
    [*PRUNE, ('model_workdir', None), ('model_workdir', '')],
  ),
  'strength': (
    strength.get_config,
    [
      *PRUNE,
      ('trials', 0),
      ('parallel', 1.5),
      ('targets', (0.5, -1)),
      ('targets', (0.5, 'x')),
      ('program_sequences', 0),
      ('programs_directory', '/nowhere'),
      ('together.model_nodes_short.on', 'both'),
      ('together.model_nodes_short.repetitions', 0),
    ],
  ),
  'ground_truth': (
    ground_truth.get_config,
    [
      ('methods', 'acdc'),
      ('methods', 'edge_masks,acdc'),
      ('methods', ''),
      ('programs', 'histogram'),
      ('programs', ','),
      ('sequences', 0),
      ('pairs', 1),
      ('length', '40'),
      ('planted_method', 'acdc'),
      ('compiled.target_loss', NAN),
      ('planted.ablation', 'noise'),
      ('programs_directory', 7),
      ('seed', -1),
    ],
  ),
  'import_model': (
    import_model.get_config,
    [
      ('source', None),
      ('source', '/nowhere'),
      ('sha256', 'abc'),
      ('length', 1),
      ('tolerance', INF),
      ('tolerance', 0.0),
      ('text', '/nowhere.txt'),
      ('reference', '/nowhere.npz'),
      ('tokenizer', '/nowhere'),
      ('seed', 0.5),
    ],
  ),
  'kernels': (
    lambda: kernels.get_config('tiny'),
    [
      ('repetitions', 0),
      ('repetitions', 2.5),
      ('seconds', NAN),
      ('budget', '1'),
      ('dtypes', ('float31',)),
      ('only', 'nothing'),
      ('abs_topk.density', 0),
      ('abs_topk.sizes', ((16,),)),
      ('projection.sizes', (0,)),
      ('row_sparse.densities', (2.0,)),
      ('block_sparse.sizes', ((16, 64, '64'),)),
      ('block_sparse.blocks', (0,)),
      ('ceiling.width', -1),
    ],
  ),
  'step_time': (
    lambda: step_time.get_config('tiny'),
    [
      ('repetitions', 0),
      ('steps', ('spares',)),
      ('budget', NAN),
      ('peak_flops', -1.0),
      ('optimizer.learning_rate', INF),
      ('data.batch_size', 0),
    ],
  ),
  'prune_time': (
    lambda: pruning.get_config('tiny'),
    [
      ('repetitions', 0),
      ('densities', (NAN,)),
      ('batch_size', 0),
      ('steps', '1'),
      ('pair_length', 10**6),
      ('pairs', 0.5),
      ('budget', -1),
      ('model.d_head', 7),
    ],
  ),
}


@pytest.mark.parametrize('run', RUNS)
def test_a_wrong_field_is_named_and_no_directory_is_touched(
  capfd, tmp_path, run
):
  make, wrong = RUNS[run]
  for field, value in wrong:
    config = make()
    if run in ('prune', 'strength'):
      config.model_workdir = str(tmp_path / 'nowhere')
    with config.ignore_type(), config.unlocked():
      config.update_from_flattened_dict({field: value})
    if run == 'import_model' and field != 'source':
      with config.ignore_type():
        config.source = str(tmp_path)
    name = 'data.max_bytes' if value is None and 'max' in field else field
    assert_refused(capfd, config, tmp_path / 'w', name.split('.')[-1])
    assert not list(tmp_path.iterdir()), (field, value)


def test_the_model_s_directory_is_no_directory_for_circuits(capfd, tmp_path):
  for get_config in (prune.get_config, strength.get_config):
    config = get_config()
    config.model_workdir = str(tmp_path / 'x' / '..')
    assert_refused(
      capfd, config, tmp_path, 'another directory than model_workdir'
    )
  assert not list(tmp_path.iterdir())


def test_all_programs_have_a_name_that_can_be_asked_for():
  config = ground_truth.get_config()
  config.programs = ' , '.join(PROGRAMS)
  from sparse_interp.runs import ground_truth as run

  assert run.program_names(config) == list(PROGRAMS)
