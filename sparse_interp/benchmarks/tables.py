"""Tables of docs/kernels.md, made from committed results and nothing else."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from sparse_interp.files import whole_file

BEGIN = (
  '<!-- made by sparse_interp.benchmarks.tables from committed results -->'
)
END = '<!-- end of what is made -->'

GROUPS = {
  'abs_topk': 'AbsTopK of float32 rows',
  'projection': 'The k largest magnitudes of a float32 tensor',
  'row_sparse': 'Product with unstructured sparse weights',
  'block_sparse': 'Product with block-sparse weights',
  'ceilings': 'Ceilings',
}


def read(directory: pathlib.Path, prefix: str) -> list[dict[str, Any]]:
  """The committed results whose name begins so, by name."""
  paths = sorted(directory.glob(f'{prefix}*.json'))
  return [json.loads(path.read_text()) for path in paths]


def _cell(result: Mapping[str, Any] | None) -> str:
  if result is None or 'absent' in result:
    return ''
  if 'median_ms' not in result:
    return next(iter(result))
  return f'{result["median_ms"]:.3g}'


def _row(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cells)} |'


def group_table(cases: Sequence[Mapping[str, Any]]) -> list[str]:
  """Markdown lines: parameters, then a column of medians per competitor."""
  parameters = list(dict.fromkeys(k for c in cases for k in c['parameters']))
  names = list(
    dict.fromkeys(
      name
      for case in cases
      for name, result in case['results'].items()
      if 'absent' not in result
    )
  )
  rows = [[*parameters, *names], ['---'] * (len(parameters) + len(names))]
  for case in cases:
    given = [str(case['parameters'].get(k, '')) for k in parameters]
    rows.append([*given, *(_cell(case['results'].get(n)) for n in names)])
  return [_row(cells) for cells in rows]


def kernel_tables(results: Sequence[Mapping[str, Any]]) -> str:
  """Markdown for every machine of which there are results, in milliseconds."""
  lines = []
  for result in results:
    about = result['about']
    lines += [
      (
        f'{about["device"]} ({about["processor"]}), jax '
        f'{about["versions"]["jax"]}, {about["date"]}; medians in ms, at least '
        f'{result["least_repetitions"]} repetitions.'
      ),
      '',
    ]
    for group, title in GROUPS.items():
      cases = [c for c in result['cases'] if c['group'] == group]
      if cases:
        lines += [f'*{title}*', '', *group_table(cases), '']
  return '\n'.join(lines or ['No kernel has been timed yet.', ''])


def with_tables(page: str, directory: pathlib.Path) -> str:
  """The page with its tables made anew.

  Raises:
    ValueError: the page has no place for them.
  """
  if BEGIN not in page or END not in page:
    raise ValueError(
      f'docs/kernels.md must have the lines {BEGIN!r} and {END!r}, got neither '
      'or one; put both where the tables belong.'
    )
  before, rest = page.split(BEGIN, 1)
  after = rest.split(END, 1)[1]
  tables = kernel_tables(read(directory, 'kernels'))
  return f'{before}{BEGIN}\n\n{tables}\n{END}{after}'


def main() -> None:
  """Rewrites docs/kernels.md from experiments/benchmarks/results."""
  root = pathlib.Path(__file__).parents[2]
  path = root / 'docs' / 'kernels.md'
  directory = root / 'experiments' / 'benchmarks' / 'results'
  with whole_file.writing(path) as part:
    part.write_text(with_tables(path.read_text(), directory))


if __name__ == '__main__':
  main()
