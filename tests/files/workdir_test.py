"""Claims on a directory, and the summary."""

import json

import pytest

from sparse_interp.files import workdir

CONFIG = {'seed': 0, 'data': {'corpora': (('idioms', 1.0),), 'length': 32}}


def test_the_first_claim_writes_the_configuration_and_the_same_is_let_in(
  tmp_path,
):
  workdir.claim(tmp_path / 'a' / 'run', CONFIG)
  found = json.loads((tmp_path / 'a' / 'run' / 'config.json').read_text())
  assert found['data']['corpora'] == [['idioms', 1.0]]
  workdir.claim(tmp_path / 'a' / 'run', CONFIG)


@pytest.mark.parametrize(
  ('other', 'message'),
  [
    (CONFIG | {'seed': 1}, 'seed = 0 there and 1 asked'),
    (
      {'seed': 0, 'data': CONFIG['data'] | {'length': 64}},
      'data.length = 32 there and 64 asked',
    ),
    (CONFIG | {'new': {'x': 1}}, 'new = nothing there and a section asked'),
    ({'seed': 0}, 'data = a section there and nothing asked'),
  ],
)
def test_another_configuration_is_refused_by_its_first_differing_field(
  tmp_path, other, message
):
  workdir.claim(tmp_path, CONFIG)
  with pytest.raises(ValueError) as error:
    workdir.claim(tmp_path, other)
  assert message in str(error.value)
  assert '\n' not in str(error.value)


def test_a_released_directory_keeps_what_others_put_there(tmp_path):
  workdir.claim(tmp_path / 'new', CONFIG)
  workdir.release(tmp_path / 'new')
  assert not (tmp_path / 'new').exists()
  workdir.claim(tmp_path, CONFIG)
  (tmp_path / 'data').mkdir()
  (tmp_path / 'data' / 'train-1-2.npy').touch()
  (tmp_path / 'data' / 'thesis.txt').touch()
  workdir.release(tmp_path)
  left = sorted(path.name for path in tmp_path.rglob('*') if path.is_file())
  assert left == ['thesis.txt']


def test_the_summary_grows_by_entries(tmp_path):
  workdir.add_to_summary(tmp_path, {'a': 1, 'b': 2})
  assert workdir.add_to_summary(tmp_path, {'b': 3}) == {'a': 1, 'b': 3}
  assert workdir.read_summary(tmp_path) == {'a': 1, 'b': 3}
  assert [path.name for path in tmp_path.iterdir()] == ['summary.json']


def test_the_code_version_is_stable_and_names_the_release():
  assert workdir.code_version() == workdir.code_version()
  assert workdir.code_version().startswith('0.')


def test_a_field_added_later_and_not_used_is_no_difference(tmp_path):
  workdir.claim(tmp_path, CONFIG)
  workdir.claim(tmp_path, CONFIG | {'added': None})
  with pytest.raises(ValueError, match='added = nothing there and 16 asked'):
    workdir.claim(tmp_path, CONFIG | {'added': 16})
