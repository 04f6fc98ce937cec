"""Every flipped bit of a sealed file is noticed, or changes nothing."""

import pytest

from sparse_interp.files import sealed

VALUE = {'a': [1, 2.5, None], 'b': {'c': 'x', 'd': True}}


def test_comes_back(tmp_path):
  path = tmp_path / 'x.json'
  sealed.write_json(path, {**VALUE, 'pair': (1, 2)})
  assert sealed.read_json(path, 'x') == {**VALUE, 'pair': [1, 2]}


def test_every_flipped_bit_is_noticed_or_without_effect(tmp_path):
  path = tmp_path / 'x.json'
  sealed.write_json(path, VALUE)
  written = path.read_bytes()
  messages = []
  for bit in range(8 * len(written)):
    damaged = bytearray(written)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
      assert sealed.read_json(path, 'delete it') == VALUE
    except ValueError as error:
      messages.append(str(error))
  for message in messages:
    assert message.startswith(str(path))
    assert message.endswith('delete it.')
    assert '\n' not in message
  # Space is much of such a file, and a bit makes one kind of it another.
  assert len(messages) > 0.9 * 8 * len(written)


@pytest.mark.parametrize('text', ['{"a": 1}', '[]', '', '[' * 100_000, '1'])
def test_what_was_not_written_here_is_refused(tmp_path, text):
  path = tmp_path / 'x.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=r'x\.json must be'):
    sealed.read_json(path, 'delete it')
