"""Claims on a directory, and the summary."""

import json
import os
import threading

import pytest

from sparse_interp.files import lock, manifest, whole_file, workdir

CONFIG = {'seed': 0, 'data': {'corpora': (('idioms', 1.0),), 'length': 32}}


def claim(directory, config=CONFIG):
  """A run that ends well."""
  with workdir.claimed(directory, config):
    pass


def end(directory, error, *work, config=CONFIG):
  """A run that does some work, each a function of the claim, and then fails."""
  with workdir.claimed(directory, config) as made:
    for do in work:
      do(made)
    raise error


def settle(made):
  made.settle()


def content(directory):
  return {
    path.relative_to(directory).as_posix(): (
      path.read_bytes() if path.is_file() else None
    )
    for path in directory.rglob('*')
  }


def write(path, text='x'):
  with whole_file.writing(path) as part:
    part.write_text(text)


def test_the_first_claim_writes_the_configuration_and_the_same_is_let_in(
  tmp_path,
):
  claim(tmp_path / 'a' / 'run')
  found = json.loads((tmp_path / 'a' / 'run' / 'config.json').read_text())
  assert found['data']['corpora'] == [['idioms', 1.0]]
  before = content(tmp_path)
  claim(tmp_path / 'a' / 'run')
  assert content(tmp_path) == before


@pytest.mark.parametrize('settled', [False, True])
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
  tmp_path, other, message, settled
):
  with pytest.raises(KeyboardInterrupt):
    end(tmp_path, KeyboardInterrupt, *[settle] * settled)
  before = content(tmp_path)
  with pytest.raises(ValueError) as error:
    claim(tmp_path, other)
  assert message in str(error.value)
  assert '\n' not in str(error.value)
  assert content(tmp_path) == before


# What users keep in directories, and what is named.
FOREIGN = {
  'a data set of Hugging Face': (
    ['tokenizer.json', 'data/train-00000-of-00001.parquet', 'README.md'],
    'README.md',
  ),
  'a model of Hugging Face': (['config.json', 'model.safetensors'], 'config'),
  'a lone data set': (['data/train-1-2.npy'], 'data/train-1-2.npy'),
  'a repository': (['.git/HEAD'], '.git/HEAD'),
  'a hidden file': (['.env'], '.env'),
  "somebody else's manifest": (['manifest.json'], 'manifest.json'),
  'parts of other programs': (['.config.json.part'], '.config.json.part'),
  'a directory without files': (['empty/'], 'empty'),
}


@pytest.mark.parametrize('kind', FOREIGN)
def test_a_directory_of_others_is_refused_before_anything_is_written(
  tmp_path, kind
):
  names, named = FOREIGN[kind]
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    if name.endswith('/'):
      (tmp_path / name).mkdir()
    else:
      (tmp_path / name).write_text('{"model_type": "gpt2"}')
  before = content(tmp_path)
  os.chmod(tmp_path, 0o555)  # not even a lock
  try:
    with pytest.raises(ValueError) as error:
      claim(tmp_path)
  finally:
    os.chmod(tmp_path, 0o755)
  assert named in str(error.value)
  assert 'choose another workdir' in str(error.value)
  assert '\n' not in str(error.value)
  assert content(tmp_path) == before


def test_our_configuration_among_files_of_others_does_not_make_them_ours(
  tmp_path,
):
  (tmp_path / 'config.json').write_text(json.dumps(CONFIG))
  (tmp_path / 'thesis.txt').touch()
  with pytest.raises(ValueError, match=r'config\.json, which no run'):
    claim(tmp_path)


def test_a_lock_left_in_a_directory_of_others_makes_it_nobodys(tmp_path):
  (tmp_path / lock.NAME).touch()
  (tmp_path / 'thesis.txt').touch()
  with pytest.raises(ValueError, match=r'thesis\.txt'):
    claim(tmp_path)
  assert list(content(tmp_path)) == ['thesis.txt']


def test_what_systems_put_there_unasked_is_nothing_and_stays(tmp_path):
  for name in ('.ipynb_checkpoints/x.ipynb', 'lost+found/x', '.DS_Store'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  before = content(tmp_path)
  with pytest.raises(ValueError):
    end(tmp_path, ValueError)
  assert content(tmp_path) == before


def test_a_wrong_run_leaves_nothing_behind_but_what_others_made(tmp_path):
  for directory, mine in ((tmp_path / 'a' / 'new', []), (tmp_path, ['m'])):

    def work(made, directory=directory, mine=mine):
      made.record('tensorboard', directory=True)
      write(directory / 'data' / 'train-1.npy')
      for name in mine:
        (directory / 'data' / name).touch()

    with pytest.raises(ValueError):
      end(directory, ValueError, work)
    left = [p.name for p in tmp_path.rglob('*') if p.is_file()]
    assert left == mine
  assert [p.name for p in tmp_path.iterdir()] == ['data']


def test_a_directory_that_was_there_stays(tmp_path):
  (tmp_path / 'mine').mkdir()
  with pytest.raises(ValueError):
    end(tmp_path / 'mine' / 'a' / 'b', ValueError)
  assert content(tmp_path) == {'mine': None}


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
def test_what_the_configuration_is_not_to_blame_for_takes_nothing_back(
  tmp_path, error
):
  with pytest.raises(error):
    end(tmp_path, error, lambda _: write(tmp_path / 'tokenizer.json'))
  assert {'tokenizer.json', 'config.json'} <= set(content(tmp_path))
  # And a later run of the same claim may still take it back.
  with pytest.raises(ValueError):
    end(tmp_path, ValueError)
  assert not content(tmp_path)


def test_where_there_is_a_result_nothing_is_taken_back(tmp_path):
  with pytest.raises(ValueError):
    end(tmp_path, ValueError, settle)
  with pytest.raises(ValueError):
    end(tmp_path, ValueError)
  assert 'config.json' in content(tmp_path)


def test_files_that_others_add_survive_every_run(tmp_path):
  with workdir.claimed(tmp_path, CONFIG):
    write(tmp_path / 'circuits' / 'a' / 'circuit.json')
  for name in ('notes.txt', 'circuits/b/circuit.json', 'summary.json'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('mine')
  with workdir.claimed(tmp_path, CONFIG):
    write(tmp_path / 'circuits' / 'a' / 'circuit.json', 'new')
    for name in ('circuits/b/circuit.json', 'summary.json'):
      with pytest.raises(ValueError, match=f'{name}, which no run wrote'):
        write(tmp_path / name)
  for name in ('notes.txt', 'circuits/b/circuit.json', 'summary.json'):
    assert (tmp_path / name).read_text() == 'mine'


def test_a_run_that_calls_another_shares_its_claim(tmp_path):
  def call_others(outer):
    with workdir.claimed(tmp_path / '.', CONFIG) as inner:
      assert inner is outer
    with pytest.raises(ValueError, match='seed = 0 there and 1 asked'):
      claim(tmp_path, CONFIG | {'seed': 1})
    assert lock.is_there(tmp_path)

  with pytest.raises(ValueError):
    end(tmp_path, ValueError, call_others)
  assert not content(tmp_path)


def test_another_thread_does_not_share_it(tmp_path):
  messages = []

  def run():
    try:
      claim(tmp_path)
    except ValueError as error:
      messages.append(str(error))

  with workdir.claimed(tmp_path, CONFIG):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
  assert f'process {os.getpid()}' in messages[0]


def test_leftovers_of_a_killed_run_are_swept(tmp_path):
  claim(tmp_path)
  for name in ('config.json', manifest.NAME):
    (tmp_path / whole_file.part_name(name)).touch()
  (tmp_path / lock.NAME).touch()
  claim(tmp_path)
  assert set(content(tmp_path)) == {'config.json', manifest.NAME}


def test_a_run_killed_before_its_list_was_whole_goes_on(tmp_path):
  (tmp_path / whole_file.part_name(manifest.NAME)).write_text('{"na')
  (tmp_path / lock.NAME).touch()
  claim(tmp_path)
  assert set(content(tmp_path)) == {'config.json', manifest.NAME}


def test_processes_that_do_not_lead_leave_lock_and_list_to_the_one_that_does(
  tmp_path,
):
  with workdir.claimed(tmp_path, CONFIG):
    before = content(tmp_path)
    with workdir.claimed(tmp_path, CONFIG, leads=False) as other:
      other.record('x')
      other.settle()
    assert content(tmp_path) == before


@pytest.mark.parametrize('text', [None, '', '{', 'null', '[' * 10**5])
def test_a_lost_or_damaged_configuration_is_named(tmp_path, text):
  claim(tmp_path)
  path = tmp_path / 'config.json'
  path.unlink()
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError) as error:
    claim(tmp_path)
  assert str(tmp_path) in str(error.value)
  assert '\n' not in str(error.value)


def test_a_file_or_a_lost_link_is_no_workdir(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='must be a directory'):
    claim(tmp_path / 'file')
  (tmp_path / 'link').symlink_to('nowhere')
  with pytest.raises(ValueError, match='must be a directory'):
    claim(tmp_path / 'link')


def test_the_summary_grows_by_entries(tmp_path):
  workdir.add_to_summary(tmp_path, {'a': 1, 'b': 2})
  assert workdir.add_to_summary(tmp_path, {'b': (3,)}) == {'a': 1, 'b': [3]}
  assert workdir.read_summary(tmp_path) == {'a': 1, 'b': [3]}
  assert [path.name for path in tmp_path.iterdir()] == ['summary.json']


@pytest.mark.parametrize('text', ['', '{', '[]', 'null', '{"a": 2}'])
def test_a_damaged_summary_is_named(tmp_path, text):
  workdir.add_to_summary(tmp_path, {'a': 1})
  (tmp_path / 'summary.json').write_text(text)
  for call in (
    lambda: workdir.read_summary(tmp_path),
    lambda: workdir.add_to_summary(tmp_path, {'b': 1}),
  ):
    with pytest.raises(ValueError, match=r'summary\.json must be .* delete it'):
      call()


def test_the_code_version_is_stable_and_names_the_release():
  assert workdir.code_version() == workdir.code_version()
  assert workdir.code_version().startswith('0.')


def test_a_field_added_later_and_not_used_is_no_difference(tmp_path):
  claim(tmp_path)
  claim(tmp_path, CONFIG | {'added': None})
  with pytest.raises(ValueError, match='added = nothing there and 16 asked'):
    claim(tmp_path, CONFIG | {'added': 16})
