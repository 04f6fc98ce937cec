"""Files of pairs become tasks, or say in one line why they are none."""

import json
import os

import hypothesis
import hypothesis.strategies as st
import pytest

from sparse_interp.data.tokenizer import Tokenizer, train_tokenizer
from sparse_interp.tasks import TASKS, encoding, get_tasks, own
from sparse_interp.tasks.encoding import encode_task
from sparse_interp.tasks.own import read_task
from sparse_interp.tasks.pairs import SPLITS, Pair, draw_pairs, make_pairs

_GOOD = '{"prompts": ["a", "b"], "answers": ["x", "y"]}'


def _line(i, **more):
  prompts = [f'The key {i}', f'The keys {i}']
  return {'prompts': prompts, 'answers': [' is', ' are'], **more}


def _write(path, lines):
  path.write_text('\n'.join(map(json.dumps, lines)))
  return path


@pytest.fixture(scope='module')
def bytes_only() -> Tokenizer:
  """A tokenizer without a merge: every byte is a token."""
  return train_tokenizer(['a'], 257)


@pytest.fixture
def file(tmp_path):
  """200 pairs, a quarter of them of another condition."""
  lines = [
    _line(i, condition='rare' if i % 4 == 0 else 'common') for i in range(200)
  ]
  return _write(tmp_path / 'agreement.jsonl', lines)


def test_a_file_becomes_a_task(file):
  task = read_task(file)
  assert task.name == 'agreement'
  assert task.conditions == ('common', 'rare')
  assert '"The key' in task.description
  assert '\n' not in task.description
  pairs = [p for split in SPLITS for p in draw_pairs(task, split, 0)]
  assert len(pairs) == 200
  assert {pair.prompts for pair in pairs} == {
    (f'The key {i}', f'The keys {i}') for i in range(200)
  }
  assert {pair.answers for pair in pairs} == {(' is', ' are')}
  train = task.pairs('train', 20, seed=3)
  assert train == make_pairs(task, 'train', 20, 3)
  assert train[:5] == task.pairs('train', 5, seed=3)
  assert train != task.pairs('train', 20, seed=4)
  with pytest.raises(ValueError, match=r'got 500 where \d+ were found'):
    task.pairs('test', 500)
  with pytest.raises(ValueError, match="must be one of train, test, got 'dev'"):
    task.pairs('dev', 1)


def test_every_beginning_has_the_share_of_each_condition(file):
  pairs = list(draw_pairs(read_task(file), 'train', 0))
  share = sum(pair.condition == 'rare' for pair in pairs) / len(pairs)
  for count in (20, 40, 80):
    rare = sum(pair.condition == 'rare' for pair in pairs[:count])
    assert abs(rare - share * count) <= 1


def test_pairs_that_share_a_prompt_follow_one_another(tmp_path):
  lines = [_line(i) for i in range(60)]
  for i in range(0, 60, 3):
    lines.append(
      {'prompts': [f'The key {i}', f'Keys {i}'], 'answers': [' is', ' were']}
    )
  task = read_task(_write(tmp_path / 'a.jsonl', lines))
  for split in SPLITS:
    firsts = [pair.prompt_a for pair in draw_pairs(task, split, 1)]
    places = {}
    for place, prompt in enumerate(firsts):
      places.setdefault(prompt, []).append(place)
    assert all(p[-1] - p[0] == len(p) - 1 for p in places.values())


def test_it_shows_itself_in_one_line_and_as_a_table(file):
  task = read_task(file)
  train = task.listed.count('train')
  assert repr(task) == (
    f"Task('agreement': {train} train and {200 - train} test pairs of "
    'agreement.jsonl, 2 conditions)'
  )
  shown = task._repr_html_()
  assert shown.count('<mark>key</mark>') == shown.count('<mark>keys</mark>') > 1
  assert repr(TASKS['with_as']).count('\n') == 0
  assert '<mark>' in TASKS['with_as']._repr_html_()


@hypothesis.settings(max_examples=10)
@hypothesis.given(st.randoms(use_true_random=False))
def test_the_hash_is_of_the_content_alone(tmp_path_factory, rng):
  directory = tmp_path_factory.mktemp('hash')
  lines = [_line(i) for i in range(12)] + [_line(12, split='test')]
  first = read_task(_write(directory / 'a.jsonl', lines))
  rng.shuffle(lines)
  path = _write(directory / 'b.jsonl', lines)
  text = path.read_text()
  path.write_bytes(('\ufeff' + text.replace('\n', '\r\n\n')).encode())
  again = read_task(path)
  assert again.hash == first.hash
  assert again.listed.train == first.listed.train
  changed = rng.choice(['answers', 'prompts', 'condition', 'split'])
  value = {'condition': 'c', 'split': 'train'}.get(changed, ['o', 'p'])
  at = next(i for i, line in enumerate(lines) if 'split' in line)
  lines[at][changed] = value
  assert read_task(_write(directory / 'c.jsonl', lines)).hash != first.hash


def test_those_of_the_suite_have_a_hash_too():
  hashes = {task.hash for task in TASKS.values()}
  assert len(hashes) == len(TASKS)
  assert TASKS['with_as'].hash == TASKS['with_as'].hash


def test_splits_that_are_given_count(tmp_path):
  lines = [_line(i, split='test' if i < 5 else 'train') for i in range(30)]
  lines += [_line(99), {**_line(3), 'split': None, 'condition': None}]
  task = read_task(_write(tmp_path / 'a.jsonl', lines))
  tested = {pair.prompt_a for pair in draw_pairs(task, 'test', 0)}
  assert {f'The key {i}' for i in range(5)} <= tested
  assert not {f'The key {i}' for i in range(5, 30)} & tested


def test_pairs_that_are_there_twice_count_once(tmp_path):
  lines = [_line(i) for i in range(20)]
  turned = [
    {'prompts': line['prompts'][::-1], 'answers': line['answers'][::-1]}
    for line in lines[:3]
  ]
  task = read_task(_write(tmp_path / 'a.jsonl', [*lines, *turned, lines[7]]))
  assert sum(task.listed.count(split) for split in SPLITS) == 20
  assert task.listed.left_out == {own.TWICE: 4}
  assert f'4 left out: {own.TWICE}' in repr(task)
  once = read_task(_write(tmp_path / 'b.jsonl', lines))
  assert once.hash == task.hash


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    ('', ['an empty file', 'write e.g.']),
    ('\ufeff\n \n', ['an empty file']),
    ('[]', ['line 1 with a list instead of an object']),
    (f'{_GOOD}\n\n{{', ['line 3 with other text', 'correct or remove it.']),
    (f'{_GOOD}\n3\n{{}}\n', ['2 of 3 lines', 'first line 2 with', 'them.']),
    ('{"answers": ["x", "y"]}', ['with no prompts']),
    (_GOOD.replace('["a", "b"]', '["a"]'), ['a list of 1 as prompts']),
    (_GOOD.replace('["a", "b"]', '"ab"'), ['text as prompts instead']),
    (_GOOD.replace('"x"', '7'), ['a number among answers']),
    (_GOOD.replace('"x"', '""'), ['an empty text among answers']),
    (_GOOD.replace('"b"', '"a"'), ["both prompts 'a'"]),
    (_GOOD.replace('"y"', '"x"'), ["both answers 'x'"]),
    (_GOOD.replace('answers', 'prompts'), ["'prompts' twice"]),
    (_GOOD.replace('"b"', '[' * 10**5), ['nested too deep']),
    (_GOOD.replace('"b"', '"\\ud800"'), ['half a surrogate pair']),
    (_GOOD.replace('"b"', '1' * 5000), ['line 1 with other text']),
    (_GOOD.replace('}', ', "Split": "test"}'), ["unknown field 'Split'"]),
    (_GOOD.replace('}', ', "split": "dev"}'), ["the split 'dev' instead"]),
    (_GOOD.replace('}', ', "split": {}}'), ['the split {} instead']),
    (_GOOD.replace('}', ', "condition": "a\\nb"}'), ['the condition']),
    (_GOOD.replace('}', f', "condition": "{"c" * 61}"}}'), ['1 to 60']),
    (_GOOD.encode('utf-16'), ['not UTF-8']),
    (_GOOD, ['both splits, got no', 'among 1, in 1 groups']),
    (
      f'{_GOOD}\n{_GOOD.replace(chr(34) + "b", chr(34) + "c")}\n'
      + _GOOD.replace('["x", "y"]', '["y", "x"]'),
      ["got both for 2 prompts, e.g. 'a'", 'correct or remove their pairs'],
    ),
  ],
)
def test_what_is_no_file_of_pairs_says_so_in_one_line(tmp_path, text, parts):
  path = tmp_path / 'pairs.jsonl'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError) as caught:
    read_task(path)
  message = str(caught.value)
  assert message.startswith(f'{path} must ')
  assert '\n' not in message
  assert len(message) < len(str(path)) + 300
  for part in parts:
    assert part in message


def test_a_prompt_in_both_splits_is_refused_with_a_count(tmp_path):
  lines = [_line(i, split=split) for i in range(3) for split in SPLITS]
  with pytest.raises(ValueError, match=r'in one split, got 6 prompts in both;'):
    read_task(_write(tmp_path / 'a.jsonl', lines))


def test_conditions_are_shared_by_many(tmp_path):
  lines = [_line(i, condition=str(i)) for i in range(51)]
  with pytest.raises(ValueError, match=r'at most 50 conditions.*got 51'):
    read_task(_write(tmp_path / 'a.jsonl', lines))


@pytest.mark.parametrize(
  'name', ['a b.jsonl', '-a.jsonl', 'é.jsonl', f'{"a" * 65}.jsonl', 'a.js\non']
)
def test_names_that_are_none_are_refused(tmp_path, name):
  with pytest.raises(ValueError, match='the name of a file of pairs must be'):
    read_task(_write(tmp_path / name, [_line(i) for i in range(20)]))


def test_what_is_no_file_is_not_read(tmp_path, monkeypatch):
  os.mkfifo(tmp_path / 'pipe.jsonl')
  for path, what in (
    (tmp_path / 'pipe.jsonl', 'a pipe'),
    ('/dev/zero', 'a device'),
    (tmp_path, 'a directory'),
  ):
    with pytest.raises(ValueError, match=f'must be a file, got {what}'):
      read_task(path)
  with pytest.raises(FileNotFoundError):
    read_task(tmp_path / 'none.jsonl')
  monkeypatch.setattr(own, '_MOST_BYTES', 100)
  with pytest.raises(ValueError, match='must have at most'):
    read_task(_write(tmp_path / 'large.jsonl', [_line(i) for i in range(20)]))


def test_names_and_files_can_be_mixed_but_not_share_a_name(
  file, tmp_path, monkeypatch
):
  monkeypatch.setenv('HOME', str(tmp_path))
  tasks = get_tasks(['with_as', '~/agreement.jsonl'])
  assert [task.name for task in tasks] == ['with_as', 'agreement']
  for other in ('with_as.jsonl', 'With_As.jsonl', 'all.jsonl'):
    (tmp_path / other).write_text(file.read_text())
    with pytest.raises(ValueError, match=r'of the suite; rename the file\.$'):
      get_tasks([str(tmp_path / other)])
  (tmp_path / 'b').mkdir()
  twin = _write(
    tmp_path / 'b' / 'AGREEMENT.jsonl', [_line(i) for i in range(9)]
  )
  with pytest.raises(ValueError, match='must have a name each, got AGREEMENT'):
    get_tasks([str(file), str(twin)])
  for name in (str(file), 'with_as'):
    with pytest.raises(ValueError, match=f'got {name} twice; leave one out'):
      get_tasks([name, 'var_if', name])


def test_all_that_can_be_posed_are_encoded(file, bytes_only):
  lines = [{**_line(i), 'answers': ['x', 'y']} for i in range(200)]
  task = read_task(_write(file, lines))
  encoded = encode_task(task, bytes_only, 'train', 10**9, 32, 0)
  count = task.listed.count('train')
  assert len(encoded.conditions) == count > 100
  assert encoded.tokens.shape == (count, 2, 32)
  assert (encoded.rejected, encoded.longer_answers) == ({}, 0)
  assert len(encode_task(task, bytes_only, 'train', 40, 32, 0).last) == 40


def test_answers_of_several_tokens_are_counted(tmp_path, bytes_only):
  lines = [{**_line(i), 'answers': ['x', 'y']} for i in range(160)]
  for line in lines[:10]:
    line.update(split='train', answers=['x', 'yy'])
  task = read_task(_write(tmp_path / 'a.jsonl', lines))
  encoded = encode_task(task, bytes_only, 'train', 10**3, 32, 0)
  assert encoded.longer_answers == 10
  assert set(encoded.answers[:, 1].tolist()) == set(bytes_only.encode('y'))


@pytest.mark.parametrize(
  ('answers', 'reason', 'remedy'),
  [
    ([' is', ' it'], encoding.SAME_ANSWER, 'choose answers that differ'),
    (['ab', 'c'], encoding.MERGED, 'begin answers with the space'),
    (['x', 'y'], encoding.TOO_LONG, 'shorten the prompts'),
  ],
)
def test_too_few_pairs_say_why_and_what_to_do(
  tmp_path, bytes_only, answers, reason, remedy
):
  tokenizer, ends = bytes_only, ''
  if reason == encoding.MERGED:
    tokenizer, ends = train_tokenizer(['aab '] * 50, 300), ' a'
  lines = [
    {'prompts': [f'{i} key{ends}', f'{i} keys{ends}'], 'answers': answers}
    for i in range(200)
  ]
  task = read_task(_write(tmp_path / 'a.jsonl', lines))
  length = 4 if reason == encoding.TOO_LONG else 32
  with pytest.raises(ValueError, match='a must give at least 32 train') as info:
    encode_task(task, tokenizer, 'train', 768, length, 0)
  message = str(info.value)
  assert f'times {reason}' in message
  assert f'; {remedy}' in message
  assert '\n' not in message


def test_few_pairs_ask_for_more(tmp_path, bytes_only):
  lines = [{**_line(i), 'answers': ['x', 'y']} for i in range(20)]
  task = read_task(_write(tmp_path / 'a.jsonl', lines))
  with pytest.raises(ValueError, match=r'no further pairs; write more pairs\.'):
    encode_task(task, bytes_only, 'test', 256, 32, 0)


def test_text_in_another_form_is_counted(bytes_only, monkeypatch):
  monkeypatch.setattr(bytes_only, 'can_encode', lambda text: 'é' not in text)
  pair = Pair('é', 'x', 'e', 'y', 'one')
  assert encoding.encode_pair(pair, bytes_only, 9) == encoding.OTHER_FORM
