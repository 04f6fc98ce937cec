"""What --help and --list print; quickly, so without importing jax."""

import textwrap
from collections.abc import Iterable

from sparse_interp import tasks
from sparse_interp.configs import fields, notes, shipped
from sparse_interp.configs.runs import RUNS

USAGE = """\
One command line for every run.

    python -m sparse_interp --config=quickstart --workdir=runs/quickstart

flags:
  --config=<name or path>    configuration that ships, by its name, or a Python
                             file with get_config(); ':variant' behind it is
                             handed to get_config, as in quickstart:tiny
  --config.<field>=<value>   sets a field, as in --config.model.d_model=128
  --workdir=<directory>      for all that the run writes; made if missing. The
                             same command goes on where it was stopped.
  --list                     the configurations that ship, and ends
  --help                     this, and ends
  --debug                    the traceback even of what the user can mend, and
                             what libraries log
"""

# Tests compare these with models/sites.py, which takes seconds to import.
SITES = {
  '{layer}.attn.act_in': 'what attention reads',
  '{layer}.attn.q': 'queries',
  '{layer}.attn.k': 'keys',
  '{layer}.attn.v': 'values',
  '{layer}.attn.resid_delta': 'what attention adds to the residual stream',
  '{layer}.mlp.act_in': 'what the MLP reads',
  '{layer}.mlp.post_act': 'its neurons',
  '{layer}.mlp.resid_delta': 'what it adds to the residual stream',
  'final_resid': 'the residual stream before the last norm',
}
_WIDTH = 100


def list_text() -> str:
  """The configurations that ship, a line each."""
  return _columns(shipped.names().items())


def help_text() -> str:
  """Flags, runs, configurations with their fields, tasks and sites."""
  return '\n'.join(
    [
      USAGE,
      'runs, named by the field `run` of a configuration:',
      _columns((name, run.says) for name, run in RUNS.items()),
      'configurations that ship, for --config:',
      list_text(),
      *_field_lines(),
      (
        'tasks, for --config.tasks (names with commas between, or all; a file '
        'of pairs is one, too, as in with_as,pairs.jsonl):'
      ),
      _columns((t.name, t.description) for t in tasks.TASKS.values()),
      'sites, where nodes live (site:channel is a node):',
      _columns(SITES.items()),
    ]
  )


def _field_lines() -> list[str]:
  """Every field once, under the runs that read it."""
  texts, readers, shown = notes.of_shipped(), {}, {}
  for name, run in RUNS.items():
    reference = shipped.load(run.reference, *run.variant)
    own = notes.of_reference(run.reference)
    for path, field in fields.of_config(reference).items():
      if path != 'run' and f'{path.split(".")[0]}.*' not in run.loose:
        # The same name may stand for another thing in another run.
        meant = path, own.get(path) or texts.get(path, '')
        readers.setdefault(meant, []).append(name)
        shown.setdefault(meant, f'{path} = {field.default!r}')
  groups = {}
  for meant, names in readers.items():
    groups.setdefault(', '.join(names), []).append((shown[meant], meant[1]))
  lines = []
  for names, entries in groups.items():
    lines += [f'fields of {names}:', _columns(entries, 44)]
  return lines


def _columns(entries: Iterable[tuple[str, str]], width: int = 28) -> str:
  """(name, text) pairs, a line each, with a blank line behind."""
  lines = []
  for name, text in entries:
    room = max(_WIDTH - max(width, len(name) + 1) - 2, 30)
    short = textwrap.shorten(text, room, placeholder=' …')
    lines.append(f'  {name:<{width}} {short}'.rstrip())
  return '\n'.join(lines) + '\n'
