"""Whatever is wrong with somebody's JSON, it is a ValueError of one line."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from sparse_interp.files import json_text

_VALUES = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**70), 2**70)
  | st.floats(allow_nan=False, allow_infinity=False)
  | st.text(),
  lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@hypothesis.given(_VALUES, st.booleans(), st.booleans())
def test_values_come_back(value, escape, mark):
  text = json.dumps(value, ensure_ascii=escape).encode()
  found = json_text.parse(b'\xef\xbb\xbf' * mark + text)
  assert found == value


@pytest.mark.parametrize(
  ('text', 'constraint', 'found'),
  [
    (b'', 'be json', 'Expecting value'),
    (b'\xff', 'be json', 'not UTF-8 at byte 0'),
    (b'[' * 100_000, 'depth', 'nested too deep'),
    (b'[' * 102 + b']' * 102, 'depth', 'nested too deep'),
    (b'{"a":' * 5000 + b'1' + b'}' * 5000, 'depth', 'nested too deep'),
    (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'each key once', "'c' twice"),
    (b'[NaN]', 'be json', 'NaN'),
    (b'[-Infinity]', 'be json', '-Infinity'),
    (b'[1e999]', 'finite', '1e999'),
    (b'9' * 5000, 'be json', '4300 digits'),
    (b'{"a": "\\ud800"}', 'whole characters', 'half a surrogate'),
    (b'{"\\udfff": 1}', 'whole characters', 'half a surrogate'),
    (b'{"' + b'a' * 500 + b'": 1, "' + b'a' * 500 + b'": 2}', 'once', '...'),
  ],
)
def test_what_is_wrong_is_said_in_one_line(text, constraint, found, tmp_path):
  with pytest.raises(json_text.JsonError) as error:
    json_text.parse(text)
  assert constraint in error.value.constraint
  assert found in error.value.found
  assert len(str(error.value)) <= 120
  path = tmp_path / 'a.json'
  path.write_bytes(text)
  with pytest.raises(
    ValueError, match=r'a\.json must .*; copy it again'
  ) as error:
    json_text.read(path, 'copy it again')
  assert '\n' not in str(error.value)


def test_what_others_write_is_taken_where_it_does_not_matter():
  parse = json_text.parse
  assert parse(b'{"a": 1, "a": 2}', strict=False) == {'a': 2}
  assert parse(b'[Infinity]', strict=False) == [float('inf')]
  assert parse(b'[Infinity, 1e999]', finite=False) == [float('inf')] * 2
  with pytest.raises(json_text.JsonError, match='nested too deep'):
    parse(b'[' * 100_000, strict=False)


def test_an_object_is_asked_for_and_sizes_are_bounded(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('[1]')
  assert json_text.read(path, 'again') == [1]
  with pytest.raises(
    ValueError, match='must be a json object, got list; again'
  ):
    json_text.read_object(path, 'again')
  path.write_text(' ' * 100 + '{}')
  assert json_text.read_object(path, 'again', 102) == {}
  with pytest.raises(ValueError, match='must have at most'):
    json_text.read_object(path, 'again', 101)
  (tmp_path / 'zero').symlink_to('/dev/zero')
  with pytest.raises(ValueError, match='zero must be a file, got a device'):
    json_text.read(tmp_path / 'zero', 'again')


@hypothesis.given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_value_or_refused(text, strict):
  try:
    json_text.parse(text, strict)
  except json_text.JsonError as error:
    assert '\n' not in str(error)  # noqa: PT017
