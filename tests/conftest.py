"""What must be settled before any test imports jax."""

import atexit
import gc
import importlib.metadata
import os
import pathlib
import shutil
import signal
import tempfile

import hypothesis
import pytest

# Eight devices, on the CPU.
_FLAGS = ['--xla_force_host_platform_device_count=8']
# Most of the time of these small models is their compilation: half of it.
_FLAGS += ['--xla_backend_optimization_level=0']
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  # The emitters that these replaced compile in half the time. Later versions no
  # longer have them, and end the process at a flag that they do not know.
  _FLAGS += ['--xla_cpu_use_fusion_emitters=false']
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = ' '.join(
  [os.environ.get('XLA_FLAGS', ''), *_FLAGS]
).strip()

# Tracing makes many objects and few cycles. Looked for as often as is Python's
# default, the cycles take a twelfth of the time.
gc.set_threshold(20_000, 20, 10)

# Every process that the tests start, and every test, may use what another has
# compiled; so may another run of the tests that is given the same directory.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _COMPILED = tempfile.mkdtemp(prefix='compiled')
  atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'

# A shell that starts this in the background has it ignore interrupts, and all
# that it starts; a run that is told to ignore them does so.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# The first example of a test is slow, since it compiles; and a suite that draws
# other examples on every run cannot be bisected.
hypothesis.settings.register_profile(
  'repository', deadline=None, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile('repository')

# Begun before all others, in this order: with `--dist loadfile` the end waits
# for the file that ends last.
_FIRST = (
  'stress_test.py',
  'damage_test.py',
  'extract_test.py',
  'python_tasks_test.py',
  'quickstart_test.py',
  'notebook_test.py',
)


def pytest_configure(config):
  """Has files begin in the order of the tests, not those with most tests."""
  if hasattr(config.option, 'loadscopereorder'):
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
  """Puts the files that take longest first."""
  order = {name: place for place, name in enumerate(_FIRST)}
  items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(autouse=True, scope='module')
def forget_what_was_compiled():
  """Frees compiled programs after a test file, where they have become many.

  Each one holds several memory maps. A process may have 65,530 of them on
  Linux; the compiler dies of a segmentation fault at the next.
  """
  yield
  maps = pathlib.Path('/proc/self/maps')
  if maps.exists() and maps.read_bytes().count(b'\n') > 20_000:
    import jax

    jax.clear_caches()
