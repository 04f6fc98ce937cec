"""Two texts side by side, with what differs between them marked, in HTML."""

import difflib
import html
import re
from collections.abc import Iterable, Sequence

# Words, single spaces, single marks: what is marked is whole.
_WORD = re.compile(r'\w+|\s|[^\w\s]')

# Texts of more differing words than this, multiplied, are marked in one piece:
# the comparison takes time in proportion.
_MOST = 10**6

# Of a stretch without a difference, so many characters are shown at each end.
_SHOWN = 160

_TABLE = 'border-collapse: collapse; text-align: left'
_CELL = (
  'text-align: left; vertical-align: top; padding: 2px 8px; '
  'border-top: 1px solid #8884'
)
_TEXT = f'{_CELL}; white-space: pre-wrap; font-family: monospace'

# (text, whether it differs) in order; together they are a whole text.
Pieces = list[tuple[str, bool]]


def compare(one: str, other: str) -> tuple[Pieces, Pieces]:
  """Parts two texts into what they share and what differs, word by word.

  Args:
    one: any text.
    other: likewise.

  Returns:
    The pieces of both. Those of a text, joined, are the text; the unmarked
    ones of both, joined, are equal, but for texts that differ in more than a
    thousand words, where what lies between the first difference and the last
    is marked.
  """
  words = [_WORD.findall(text) for text in (one, other)]
  shorter = min(map(len, words))
  start = 0
  while start < shorter and words[0][start] == words[1][start]:
    start += 1
  end = 0
  while end < shorter - start and words[0][-1 - end] == words[1][-1 - end]:
    end += 1
  middle = [side[start : len(side) - end] for side in words]
  if len(middle[0]) * len(middle[1]) > _MOST:
    blocks = []
  else:
    matcher = difflib.SequenceMatcher(None, *middle, autojunk=False)
    blocks = [(b.a, b.b, b.size) for b in matcher.get_matching_blocks()]
  found = []
  for side, inner in enumerate(middle):
    pieces, at = [(''.join(words[side][:start]), False)], 0
    for block in blocks:
      where, size = block[side], block[2]
      pieces.append((''.join(inner[at:where]), True))
      pieces.append((''.join(inner[where : where + size]), False))
      at = where + size
    pieces.append((''.join(inner[at:]), True))
    pieces.append((''.join(words[side][len(words[side]) - end :]), False))
    found.append(_joined(pieces))
  return found[0], found[1]


def _joined(pieces: Pieces) -> Pieces:
  """Without empty pieces, and with neighbours of one kind made one."""
  result = []
  for text, differs in pieces:
    if result and text and result[-1][1] == differs:
      result[-1] = (result[-1][0] + text, differs)
    elif text:
      result.append((text, differs))
  return result


def table(
  title: str,
  lines: Iterable[str],
  pairs: Sequence[tuple[str, tuple[str, str], tuple[str, str]]],
) -> str:
  """A table of pairs of prompts, for a notebook.

  Args:
    title: above it.
    lines: of text below the title.
    pairs: condition, prompts and answers of each.

  Returns:
    HTML that brings its style with it; nothing in a text is taken for a tag.
  """
  rows = []
  for condition, prompts, answers in pairs:
    for side, pieces in enumerate(compare(*prompts)):
      cells = [
        f'<td style="{_CELL}">{html.escape(condition if side == 0 else "")}',
        f'<td style="{_TEXT}">{"".join(map(_marked, pieces))}',
        f'<td style="{_TEXT}">{html.escape(_visible(answers[side]))}',
      ]
      rows.append(f'<tr>{"</td>".join(cells)}</td></tr>')
  heads = ''.join(
    f'<th style="{_CELL}">{head}</th>'
    for head in ('condition', 'prompt', 'answer')
  )
  return (
    f'<div><p><b>{html.escape(title)}</b></p>'
    f'{"".join(f"<p>{html.escape(line)}</p>" for line in lines)}'
    f'<table style="{_TABLE}"><thead><tr>{heads}</tr></thead>'
    f'<tbody>{"".join(rows)}</tbody></table></div>'
  )


def _marked(piece: tuple[str, bool]) -> str:
  text, differs = piece
  if len(text) > 2 * _SHOWN:
    text = f'{text[:_SHOWN]} … {text[-_SHOWN:]}'
  text = html.escape(text)
  return f'<mark>{text}</mark>' if differs else text


def _visible(answer: str) -> str:
  """An answer whose white space can be seen."""
  short = answer if len(answer) <= 40 else f'{answer[:40]}…'
  return short.replace(' ', '␣').replace('\n', '↵').replace('\t', '⇥')
