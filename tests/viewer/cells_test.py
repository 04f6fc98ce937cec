"""What records show of themselves in a notebook."""

import dataclasses
import xml.etree.ElementTree as ET

import numpy as np

from sparse_interp.viewer.cells import records_html
from tests.files.small_records import make_records


def _rows(records):
  """Texts of the cells of every row, and all that is marked."""
  root = ET.fromstring(records._repr_html_())
  rows = [[''.join(cell.itertext()) for cell in row] for row in root.iter('tr')]
  return rows, [mark.text for mark in root.iter('mark')]


def test_every_unit_has_a_row_with_its_highest_excerpt():
  records = make_records()
  (_, first, second), marks = _rows(records)
  assert first == ['0.mlp.post_act:5', '4', '2', 'a↵']
  assert second == ['final_resid:0', '1', '0', 'üü']
  assert marks == ['↵', 'ü']
  line = records_html(records).split('</p>')[0]
  assert 'Records(2 units on 12 tokens: 5 excerpts of 2;' in line


def test_nothing_in_a_text_is_taken_for_a_tag():
  hostile = '<script>alert(1)</script>'
  pieces = {1: hostile, 2: hostile, 8: '</td>&amp;'}
  records = dataclasses.replace(
    make_records(), pieces=pieces, units=('<b>:5', 'final_resid:0')
  )
  (_, first, second), marks = _rows(records)
  assert first == ['<b>:5', '4', '2', hostile * 2]
  assert second[-1] == '</td>&amp;' * 2
  assert marks == [hostile, '</td>&amp;']
  assert '<script' not in records._repr_html_()


def test_without_a_tokenizer_tokens_are_numbers():
  records = dataclasses.replace(make_records(), pieces={})
  (_, first, second), marks = _rows(records)
  assert first[-1] == '1 2'
  assert second[-1] == '8 8'
  assert marks == ['2', '8']


def test_of_a_long_excerpt_the_middle_is_shown():
  long = {
    'tokens': np.arange(500, dtype=np.int32).reshape(5, 100),
    'values': np.zeros((5, 100), np.float32),
    'position': np.full(5, 50, np.int32),
    'length': 100,
    'pieces': {},
  }
  (_, first, _), marks = _rows(dataclasses.replace(make_records(), **long))
  shown = first[-1].split()
  assert shown == ['…', *map(str, range(38, 63)), '…']
  assert marks == ['50', '450']


def test_of_many_units_the_first_are_shown_and_one_may_have_no_excerpt():
  units = tuple(f'a:{i}' for i in range(100))
  records = dataclasses.replace(
    make_records(), units=units, highest=np.arange(100, dtype=np.float32)
  )
  rows, _ = _rows(records)
  assert len(rows) == 21
  assert rows[3] == ['a:2', '0', '2', '']
  assert 'and 80 more units' in records._repr_html_()
