"""What stands before the question in the prompts of the Python tasks.

A prompt is the beginning of a program like those of the idioms: a function's
header (of the kind that idioms never use), some finished statements, perhaps
the header of a block, and the line that asks. The finished statements are the
distractors: they come from the idioms' own generators, at least one of them
from the family of the task, so that evidence for either answer may stand in a
line that no longer counts. They are the same in both prompts of a pair.
"""

import random

from sparse_interp.data import idioms_names as names
from sparse_interp.data import idioms_statements as statements

# Where the question stands: in a function's body, or in a block in it.
PLACES = ('function', 'branch')

_INDENT = '    '
_LONGEST_LINES = 3


def before(
  rng: random.Random,
  condition: str,
  family: names.Family,
  others: names.Family = (statements.statement,),
) -> tuple[names.Scope, str, str]:
  """The lines before the question.

  Args:
    rng: Source of randomness.
    condition: 'function', 'branch' (the question stands under `if`) or 'loop'
      (under `for`).
    family: Statements of which one is shown, finished.
    others: Statements of which another one is shown, before it or after.

  Returns:
    The scope, the lines, and the indentation of the question.
  """
  scope = names.draw_scope(rng, (family, *statements.draw_theme(rng)[:2]))
  text = names.function_header(rng, scope.parameters, reserved=True)
  for one in rng.sample((family, others), 2):
    text += _brief(rng, scope, rng.choice(one))
  if condition == 'branch':
    tested = rng.choice(scope.integers)
    text += f'{_INDENT}if {tested} == {names.number(rng)}:\n'
  elif condition == 'loop':
    text += f'{_INDENT}for {scope.item} in {scope.collection}:\n'
  return scope, text, _INDENT if condition == 'function' else 2 * _INDENT


def _brief(
  rng: random.Random, scope: names.Scope, write: statements.Statement
) -> str:
  """A statement of few lines, so that prompts stay short."""
  while True:
    known = list(scope.integers), scope.flag_is_known
    text = write(rng, scope, _INDENT)
    if text.count('\n') <= _LONGEST_LINES:
      return text
    scope.integers, scope.flag_is_known = known
