"""The BUILD file states the real targets and dependencies, no more, no less.

BUILD is Python. It is executed here with rules that only take notes, and what
it declares is compared with the import statements of the source.
"""

import ast
import configparser
import dataclasses
import graphlib
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ('sparse_interp', 'experiments', 'tests')
# Modules that are installed under another name; jaxlib comes with jax.
DISTRIBUTIONS = {
  'absl': 'absl_py',
  'jaxlib': 'jax',
  'orbax': 'orbax_checkpoint',
  'tracr': 'tracr_pypi',
}
# The extras that choose a jax for a machine; nothing imports them.
ACCELERATORS = ('cuda', 'tpu')


@dataclasses.dataclass(frozen=True)
class Target:
  """One declaration of the BUILD file.

  Attributes:
    rule: py_library, py_binary or py_test.
    name: Name that other targets depend on, with a colon before it.
    srcs: Paths below the directory of the BUILD file.
    deps: Labels of targets (':ops') and distributions ('@pip//jax').
    data: Labels of what is needed at run time but not imported.
  """

  rule: str
  name: str
  srcs: list[str]
  deps: list[str]
  data: list[str] = dataclasses.field(default_factory=list)


def read_build(root: pathlib.Path) -> list[Target]:
  """Executes a BUILD file with rules that take notes."""
  targets = []

  def rule(kind):
    def declare(name, srcs, deps=(), data=()):
      targets.append(Target(kind, name, list(srcs), list(deps), list(data)))

    return declare

  def glob(include, exclude=()):
    def found(patterns):
      return {
        path.relative_to(root).as_posix()
        for pattern in patterns
        for path in root.glob(pattern)
      }

    return sorted(found(include) - found(exclude))

  rules = {k: rule(k) for k in ('py_library', 'py_binary', 'py_test')}
  text = (root / 'BUILD').read_text()
  exec(compile(text, 'BUILD', 'exec'), {'glob': glob, **rules})
  return targets


def sources(root: pathlib.Path) -> list[str]:
  """Lists every Python file that BUILD must account for."""
  return sorted(
    path.relative_to(root).as_posix()
    for top in SOURCES
    for path in (root / top).rglob('*.py')
  )


def imported_modules(root: pathlib.Path, source: str) -> Iterator[list[str]]:
  """Yields, per import, what may be meant, the likeliest first."""
  for node in ast.walk(ast.parse((root / source).read_text())):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield [alias.name]
    elif isinstance(node, ast.ImportFrom):
      package = source.split('/')[: -node.level] if node.level else []
      module = '.'.join([*package, *filter(None, [node.module])])
      for alias in node.names:
        yield [f'{module}.{alias.name}', module]


def labels(root: pathlib.Path, targets: list[Target], source: str) -> set[str]:
  """Labels of all that a source file imports, but for its own target."""
  owner = {path: target.name for target in targets for path in target.srcs}
  result = set()
  for candidates in imported_modules(root, source):
    top = candidates[0].split('.')[0]
    if top in SOURCES:
      paths = [
        path
        for candidate in candidates
        for stem in [candidate.replace('.', '/')]
        for path in (f'{stem}.py', f'{stem}/__init__.py')
        if (root / path).is_file()
      ]
      if not paths:
        result.add(f'{candidates[-1]} (no such module)')
      elif owner.get(paths[0]) != owner.get(source):
        result.add(f':{owner.get(paths[0], paths[0])}')
    elif top not in sys.stdlib_module_names:
      result.add(f'@pip//{DISTRIBUTIONS.get(top, top)}'.lower())
  return result


def requirements(root: pathlib.Path) -> dict[str, set[str]]:
  """Reads install_requires (under '') and the extras of setup.cfg as labels."""
  parser = configparser.ConfigParser()
  parser.read(root / 'setup.cfg')
  lists = {'': parser['options']['install_requires']}
  lists |= dict(parser['options.extras_require'])

  def label(requirement):
    name = re.match(r'[\w.-]+', requirement)[0]
    return '@pip//' + re.sub(r'[-_.]+', '_', name).lower()

  return {
    name: {
      label(line)
      for line in text.splitlines()
      if line.strip() and not line.startswith('#')
    }
    for name, text in lists.items()
  }


def ownership_problems(root: pathlib.Path) -> Iterator[str]:
  """Every module stands in one target, every test in a py_test."""
  targets = read_build(root)
  for source in sources(root):
    owners = [t for t in targets if source in t.srcs]
    if len(owners) != 1:
      names = ', '.join(t.name for t in owners) or 'none'
      yield f'{source}: must be in srcs of one target of BUILD, is in {names}.'
    is_test = source.endswith('_test.py')
    if any((t.rule == 'py_test') != is_test for t in owners):
      yield f'{source}: py_test is for *_test.py, and only for these.'
  for target in targets:
    for source in set(target.srcs) - set(sources(root)):
      yield f'{source}: in srcs of {target.name} of BUILD, but no such file.'


def dependency_problems(root: pathlib.Path) -> Iterator[str]:
  """The deps are the imports; the tests share one list of them."""
  targets = read_build(root)
  groups = [[t] for t in targets if t.rule != 'py_test']
  groups.append([t for t in targets if t.rule == 'py_test'])
  for group in groups:
    declared = {label for target in group for label in target.deps}
    used = set()
    for target in group:
      for source in target.srcs:
        found = labels(root, targets, source)
        used |= found
        for label in sorted(found - declared):
          yield (
            f'{source}: imports {label}, which target {target.name} does not '
            'declare: add it to deps in BUILD, or do without the import.'
          )
    for label in sorted(declared - used):
      yield (
        f'{label}: no source of target {group[0].name} imports it: '
        'take it from deps in BUILD.'
      )


def cycle_problems(root: pathlib.Path) -> Iterator[str]:
  """The targets are an acyclic graph."""
  graph = {f':{t.name}': t.deps for t in read_build(root)}
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    yield f'{" -> ".join(error.args[1])}: break this cycle of deps in BUILD.'


def requirement_problems(root: pathlib.Path) -> Iterator[str]:
  """The distributions of BUILD are those that setup.cfg installs."""
  extras = requirements(root)
  always, tests = extras.pop(''), extras.pop('test')
  accelerators = set().union(*(extras.pop(name) for name in ACCELERATORS))
  optional = set().union(*extras.values())
  package, test_only = set(), set()
  for target in read_build(root):
    of_tests = any(path.startswith('tests/') for path in target.srcs)
    needed = target.deps + target.data
    (test_only if of_tests else package).update(
      label for label in needed if label.startswith('@pip//')
    )
  yield from _difference(
    'install_requires and the optional extras', always | optional, package
  )
  yield from _difference('extra test', tests, optional | test_only - always)
  yield from _difference('extras cuda and tpu', accelerators, {'@pip//jax'})


def _difference(name: str, stated: set[str], used: set[str]) -> Iterator[str]:
  for label in sorted(used - stated):
    yield f'{label}: used in BUILD; add it to {name} of setup.cfg.'
  for label in sorted(stated - used):
    yield f'{label}: in {name} of setup.cfg; no target of BUILD uses it.'


def reachable(targets: Iterable[Target], name: str) -> set[str]:
  """Labels of everything a target depends on, directly or not."""
  deps = {f':{t.name}': t.deps for t in targets}
  result, open_labels = set(), [f':{name}']
  while open_labels:
    new = set(deps.get(open_labels.pop(), ())) - result
    result |= new
    open_labels.extend(new)
  return result


CHECKS = (
  ownership_problems,
  dependency_problems,
  cycle_problems,
  requirement_problems,
)


@pytest.mark.parametrize('check', CHECKS)
def test_build_file_tells_the_truth(check):
  problems = list(check(ROOT))
  assert not problems, '\n'.join(problems)


def test_only_models_import_flax():
  direct = {t.name for t in read_build(ROOT) if '@pip//flax' in t.deps}
  assert direct == {'models'}


@pytest.mark.parametrize(
  ('room', 'stranger'),
  [
    ('configs', ':models'),
    ('configs', '@pip//jax'),
    ('ops', ':models'),
    ('sparsity', ':models'),
    ('data', ':models'),
    ('tasks', ':training'),
    ('tasks', ':circuits'),
    ('circuits', ':training'),
    ('circuits', ':interop'),
    ('interop', ':training'),
    ('records', ':circuits'),
    ('records', ':training'),
    ('viewer', ':circuits'),
    ('viewer', ':models'),
    ('viewer', '@pip//jax'),
  ],
)
def test_room_does_not_know(room, stranger):
  targets = read_build(ROOT)
  assert room in {t.name for t in targets}
  assert stranger not in reachable(targets, room)


@pytest.fixture
def small_repository(tmp_path):
  """A repository in order, for the tests below to put out of order."""
  files = {
    'BUILD': """
py_library(name='ops', srcs=glob(['sparse_interp/*.py']), deps=['@pip//jax'])
[py_test(name=s, srcs=[s], deps=[':ops']) for s in ['tests/ops_test.py']]
""",
    'setup.cfg': """
[options]
install_requires =
  jax>=0.10
[options.extras_require]
cuda = jax[cuda12]
tpu = jax[tpu]
test =
""",
    'sparse_interp/__init__.py': '',
    'sparse_interp/ops.py': 'import os\nimport jax.numpy as jnp\n',
    'tests/ops_test.py': 'from sparse_interp import ops\n',
  }
  for name, text in files.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
  assert not [problem for check in CHECKS for problem in check(tmp_path)]
  return tmp_path


@pytest.mark.parametrize(
  ('name', 'text', 'expected'),
  [
    (
      'sparse_interp/ops.py',
      'import jax\ndef f():\n  import numpy\n',
      ['sparse_interp/ops.py: imports @pip//numpy'],
    ),
    (
      'sparse_interp/ops.py',
      '',
      ['@pip//jax: no source of target ops'],
    ),
    ('tests/new_test.py', '', ['tests/new_test.py: must be in srcs of one']),
    ('experiments/a.py', '', ['experiments/a.py: must be in srcs of one']),
    (
      'setup.cfg',
      (
        '[options]\ninstall_requires = grain\n[options.extras_require]\n'
        'cuda = jax\ntpu = jax\ntest = ruff'
      ),
      [
        '@pip//jax: used in BUILD; add it to install_requires',
        '@pip//grain: in install_requires',
        '@pip//ruff: in extra test',
      ],
    ),
    (
      'BUILD',
      (
        "for name in ('a', 'b'):\n"
        "  py_library(name=name, srcs=glob(['sparse_interp/*.py']),\n"
        "    deps=['@pip//jax', {'a': ':b', 'b': ':a'}[name]])\n"
        "py_test(name='t', srcs=['tests/ops_test.py'], deps=[])\n"
      ),
      [
        (
          'sparse_interp/__init__.py: must be in srcs of one target of BUILD, '
          'is in a, b'
        ),
        'tests/ops_test.py: imports :b',
        'break this cycle',
      ],
    ),
  ],
  ids=['undeclared', 'unused', 'no py_test', 'no target', 'setup', 'cycle'],
)
def test_checks_find_what_is_wrong(small_repository, name, text, expected):
  (small_repository / name).parent.mkdir(exist_ok=True)
  (small_repository / name).write_text(text)
  problems = [p for check in CHECKS for p in check(small_repository)]
  for start in expected:
    assert any(start in problem for problem in problems), problems
