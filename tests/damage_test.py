"""One flipped bit anywhere in a finished workdir is noticed, or does nothing.

Each flip is tried on a copy of its own. Everything that reads a workdir then
reads it: the command again, the stages after it, the page, and training that
goes on. Either one of them refuses in one line that names the place, or what
all of them return is what it was; the test prints which.
"""

import collections
import random
import shutil

import jax
import numpy as np
import pytest

from experiments import quickstart as experiment
from sparse_interp.circuits import circuit as circuit_lib
from sparse_interp.files import metric_rows
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPT
from sparse_interp.runs import pretrained, quickstart
from sparse_interp.training import checkpoints, optimizer
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib
from sparse_interp.training import text as text_lib
from sparse_interp.viewer.report import write_report
from tests import whole_runs

FLIPS = 200

pytestmark = [
  pytest.mark.slow,
  # orbax abandons what it was reading.
  pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('finished') / 'run'
  whole_runs.copy_of_finished(tmp_path_factory, workdir)
  return workdir


@pytest.fixture(scope='module')
def abstract_state():
  plan = plan_lib.make_plan(experiment.get_config('tiny'))
  init = state_lib.make_init(
    GPT(plan.model, plan.products),
    optimizer.make_optimizer(plan.optimizer, plan.learning_rate, plan.targets),
  )
  device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
    jax.eval_shape(init, jax.random.key(0)),
  )


def kind_of(name):
  """Files of a kind are read alike: 'checkpoints/params', 'data/.npy', ..."""
  parts = name.split('/')
  if parts[0] == 'checkpoints':
    return '/'.join([parts[0], *parts[2:3]])
  return parts[0] if len(parts) == 1 else f'{parts[0]}/*{name[-5:]}'


def all_files(workdir):
  """{kind: names of files that are not empty}."""
  kinds = collections.defaultdict(list)
  for path in sorted(workdir.rglob('*')):
    if path.is_file() and path.stat().st_size:
      name = path.relative_to(workdir).as_posix()
      kinds[kind_of(name)].append(name)
  return kinds


def choose(workdir):
  """(name, bit) of every flip: as many for each kind, from a fixed seed.

  Of a kind large files are hit more often, but the small ones, too.
  """
  rng, kinds = random.Random(0), list(all_files(workdir).values())
  for i in range(FLIPS):
    names = kinds[i % len(kinds)]
    sizes = [(workdir / name).stat().st_size for name in names]
    (name,) = rng.choices(names, [size**0.5 for size in sizes])
    yield name, rng.randrange(8 * (workdir / name).stat().st_size)


def flip(path, bit):
  content = bytearray(path.read_bytes())
  content[bit // 8] ^= 1 << bit % 8
  path.write_bytes(content)


def read(workdir, name, abstract_state):
  """What those read who read this file, in an order of use."""
  parts = name.split('/')
  if parts[0] == 'checkpoints':
    return read_checkpoint(workdir, parts[1], abstract_state)
  if parts[0] == 'data':
    return read_text(workdir)
  # The command finds damaged circuits anew; those who only read refuse them.
  for path in workdir.glob('circuits/*/circuit.json'):
    circuit_lib.load(path.parent)
  quickstart.run(experiment.get_config('tiny'), str(workdir))
  write_report(str(workdir), str(workdir.parent / 'report.html'))
  model = pretrained.load(workdir)
  return {
    'summary': workdir_lib.read_summary(workdir),
    'metrics': metric_rows.read(workdir / 'metrics.jsonl'),
    'report': (workdir.parent / 'report.html').read_bytes(),
    'model': (model.config, model.tokenizer.hash, model.provenance),
    'arrays': [model.params, model.means],
    'circuits': [
      vars(circuit_lib.load(path.parent)) | {'config': None}
      for path in sorted(workdir.glob('circuits/*/circuit.json'))
    ],
  }


def read_checkpoint(workdir, step, abstract_state):
  """Parameters for later stages, and all of the state for training on."""
  for path in (workdir / 'checkpoints').iterdir():
    if path.name > step:
      shutil.rmtree(path)
  params = checkpoints.load_params(workdir)
  manager = checkpoints.open_manager(workdir, keep=9)
  try:
    state, progress = checkpoints.restore(manager, abstract_state)
  finally:
    manager.close()
  return {'params': params, 'state': tuple(state), 'progress': progress}


def read_text(workdir):
  """Tokens, as training that goes on reads them or makes them anew."""
  config = experiment.get_config('tiny')
  text = text_lib.prepare(
    workdir,
    list(config.data.corpora),
    config.seed,
    config.data.max_bytes,
    config.data.vocab_size,
    config.data.validation_fraction,
    lambda line: None,
  )
  return {
    'hashes': (text.corpus_hash, text.tokenizer.hash),
    'streams': [np.array(one) for one in (*text.train, *text.validation)],
    # What was damaged is as it was.
    'files': {p.name: p.read_bytes() for p in (workdir / 'data').iterdir()},
  }


def assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    if isinstance(other, (np.ndarray, jax.Array)):
      assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    else:
      assert one == other


def place_of(name):
  """What a message must name: the file, or the checkpoint that it is in."""
  return '/'.join(name.split('/')[:2]) if 'checkpoints/' in name else name


def test_a_flipped_bit_is_noticed_or_does_nothing(
  finished, abstract_state, tmp_path
):
  workdir, expected, log = tmp_path / 'run', {}, []
  unnoticed = []
  for name, bit in choose(finished):
    shutil.copytree(finished, workdir)
    # Checkpoints differ by step, all other files are read together.
    about = place_of(name) if 'checkpoints/' in name else name.split('/')[0]
    about = about if about.startswith(('checkpoints', 'data')) else 'others'
    if about not in expected:
      expected[about] = read(workdir, name, abstract_state)
      shutil.rmtree(workdir)
      shutil.copytree(finished, workdir)
    flip(workdir / name, bit)
    try:
      assert_same(read(workdir, name, abstract_state), expected[about])
      outcome = 'without effect'
    except ValueError as error:
      outcome = f'refused: {error}'
      if '\n' in str(error) or str(workdir) not in str(error):
        unnoticed.append((name, bit, outcome))
    except AssertionError:
      outcome = 'OTHER RESULTS'
      unnoticed.append((name, bit, outcome))
    log.append((kind_of(name), outcome.split(':')[0]))
    print(f'{name} bit {bit}: {outcome}')
    shutil.rmtree(workdir)
  for (kind, outcome), count in sorted(collections.Counter(log).items()):
    print(f'{count:>4} {outcome:<15} {kind}')
  assert len(log) == FLIPS
  assert not unnoticed


def test_flips_reach_every_file_that_matters(finished):
  kinds = {kind_of(name) for name, _ in choose(finished)}
  assert kinds == set(all_files(finished))
  items = {f'checkpoints/{i}' for i in ('params', 'opt_state', 'progress')}
  named = {'model.json', 'tokenizer.json', 'pretraining_sample.npy'}
  assert kinds >= items | named | {'circuits/*.json', 'circuits/*t.npz'}
