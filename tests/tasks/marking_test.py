"""What differs between two texts is marked, and nothing is lost."""

import re
import time

import hypothesis
import hypothesis.strategies as st

from sparse_interp.tasks import marking

_TEXTS = st.text(st.sampled_from('ab <&"\n.'), max_size=20)


def _text(pieces, *kinds):
  return ''.join(text for text, differs in pieces if differs in kinds)


@hypothesis.given(_TEXTS, _TEXTS)
def test_pieces_are_the_text_and_what_is_unmarked_is_shared(one, other):
  pieces = marking.compare(one, other)
  assert [_text(p, True, False) for p in pieces] == [one, other]
  assert _text(pieces[0], False) == _text(pieces[1], False)
  assert all(text for side in pieces for text, _ in side)
  if one == other:
    assert not any(differs for side in pieces for _, differs in side)


def test_words_are_marked_whole():
  one, other = marking.compare('The key by the door', 'The keys by the doors')
  assert [t for t, differs in one if differs] == ['key', 'door']
  assert [t for t, differs in other if differs] == ['keys', 'doors']


def test_long_texts_are_compared_in_no_time():
  begun = time.monotonic()
  texts = [' '.join(f'{c}{i}' for i in range(20_000)) for c in 'ab']
  one, _ = marking.compare(f'same {texts[0]} end', f'same {texts[1]} end')
  assert [differs for _, differs in one] == [False, True, False]
  assert time.monotonic() - begun < 2


def test_a_table_shows_prompts_and_takes_no_text_for_a_tag():
  evil = '<script>alert(1)</script>'
  shown = marking.table(
    evil, [evil], [(evil, (f'x{evil} a', f'y{evil} a'), (' is\n', evil * 9))]
  )
  assert '<script' not in shown
  assert shown.count('<mark>') == 2
  assert '␣is↵' in shown
  rows = re.findall('<tr>', shown)
  assert len(rows) == 3  # heads and both sides
  for tag in ('table', 'tr', 'td', 'th', 'div', 'p', 'mark'):
    opened = len(re.findall(rf'<{tag}[ >]', shown))
    assert opened == shown.count(f'</{tag}>')


def test_of_what_does_not_differ_both_ends_are_shown():
  start, end = 'begin ' + 'x ' * 400, ' y' * 400
  shown = marking.table(
    'long', [], [('', (f'{start}one{end}', f'{start}two{end}'), ('a', 'b'))]
  )
  assert shown.count('begin') == 2
  assert ' … ' in shown
  assert '<mark>one</mark>' in shown
  assert len(shown) < 4000
