"""Files of compiled programs: what they say is so, or they are refused."""

import dataclasses
import io
import json
import os
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from sparse_interp.ground_truth.compiled.storage import load, save
from tests.ground_truth.compiled.compiled_programs import DIRECTORY, program_of


def _refused(path, part):
  with pytest.raises(ValueError, match='must') as error:
    load(path)
  assert '\n' not in str(error.value)
  assert path.name in str(error.value)
  assert part in str(error.value)


def _rewrite(path, edit, name='hist', sealed=False):
  """A program after an edit of its description and its arrays, in place."""
  arrays = dict(np.load(DIRECTORY / f'{name}.npz'))
  fields = json.loads(str(arrays.pop('description')))
  if not sealed:  # as files were before there were hashes in them
    del fields['arrays'], fields['sha256']
  edit(fields, arrays)
  np.savez(path, description=np.array(json.dumps(fields)), **arrays)
  return path


def _set(*path, to):
  def edit(fields, arrays):
    value = fields
    for key in path[:-1]:
      value = value[key]
    value[path[-1]] = to

  return edit


def _fill(name, place, value):
  return lambda fields, arrays: arrays[name].__setitem__(place, value)


@pytest.mark.parametrize(
  ('edit', 'part'),
  [
    (_set('config', 'n_layer', to=10**9), 'layers'),
    (_set('config', 'd_mlp', to=10**30), ''),
    (_set('config', 'context_length', to=10**12), ''),
    (_set('config', 'vocab_size', to=10**12), ''),
    (_set('config', 'd_model', to=7), 'channels'),
    (_set('config', 'norm', to='layernorm'), ''),
    (_set('config', 'activation', to='gelu'), 'activation relu'),
    (_set('config', 'causal', to=True), 'outputs that its examples say'),
    (_set('config', 'nonsense', to=1), 'nonsense'),
    (_set('config', to=[]), 'config as dict'),
    (_set('edges', 0, to=['a0.h0', 'm7']), "not ('a0.h0', 'm7')"),
    (_set('edges', 0, to=['output', 'embed']), 'its own components'),
    (_set('edges', 0, to=['embed', 5]), ''),
    (_set('edges', 0, to='embed'), 'pairs of names'),
    (lambda f, a: f['edges'].append(f['edges'][0]), 'every edge once'),
    (_set('channels', 0, to='indices:1'), 'each of its channels once'),
    # By text; the checker of types looks at one entry, and may see it first.
    (_set('channels', 0, to=0), ''),
    (_set('vocab', 0, to='b'), 'each of its vocab once'),
    (_set('vocab', 0, to=['b']), 'plain values'),
    (lambda f, a: f['vocab'].remove('compiler_bos'), ''),
    (_set('output_values', 0, to=[1]), 'plain values'),
    (_set('output_kind', to='numerical'), 'one numerical output'),
    (_set('output_kind', to='other'), 'categorical or numerical'),
    (_set('unique_tokens', to='no'), 'unique_tokens as bool'),
    (_set('name', to=5), 'name as str'),
    (_set('version', to=2), 'version 1'),
    (_fill('examples/lengths', 0, 99), 'lengths from 2 to'),
    (_fill('examples/lengths', 0, 1), 'lengths from 2 to'),
    (_fill('examples/tokens', (0, 1), 77), 'tokens below'),
    (_fill('examples/tokens', (0, 1), -1), 'tokens below'),
    (_fill('examples/tokens', (0, 0), 0), "begin with 'compiler_bos'"),
    (_fill('examples/outputs', (0, 1), np.nan), 'finite outputs'),
    (_fill('examples/outputs', (0, 1), 0.5), 'outputs that its examples say'),
    (_fill('params/lm_head/kernel', 0, 5), 'outputs that its examples say'),
    (_fill('params/lm_head/kernel', 0, np.inf), 'finite numbers in lm_head'),
    (lambda f, a: a.update(more=np.ones(3)), 'no array more'),
    (lambda f, a: a.pop('examples/lengths'), 'an array examples/lengths'),
    (
      lambda f, a: a.update({'examples/lengths': a['examples/lengths'][:3]}),
      'shapes of its model',
    ),
  ],
)
def test_what_a_file_says_is_so(edit, part, tmp_path):
  _refused(_rewrite(tmp_path / 'edited.npz', edit), part)


def test_a_file_from_before_there_were_hashes_is_read(tmp_path):
  path = _rewrite(tmp_path / 'old.npz', lambda fields, arrays: None)
  assert load(path).edges == program_of('hist').edges


@pytest.mark.parametrize(
  ('edit', 'part'),
  [
    # Nothing else could tell that an edge was true.
    (lambda f, a: f['edges'].pop(), 'the description that was written'),
    (_set('name', to='mist'), 'the description that was written'),
    (lambda f, a: f.pop('arrays'), 'the description that was written'),
    (_fill('params/wte/embedding', (0, 0), 1.001), 'arrays that were written'),
  ],
)
def test_edits_that_leave_it_a_program_are_seen_by_the_hash(
  edit, part, tmp_path
):
  _refused(_rewrite(tmp_path / 'a.npz', edit, sealed=True), part)


def test_values_keep_their_types(tmp_path):
  program = program_of('hist')
  values = ('1', 2, 2.5, True, None, 'true')
  changed = dataclasses.replace(
    program, output_values=values, vocab=(1.5, '1', 1, *program.vocab[3:])
  )
  save(changed, tmp_path / 'a.npz')
  found = load(tmp_path / 'a.npz')
  for field in ('output_values', 'vocab'):
    expected = getattr(changed, field)
    assert getattr(found, field) == expected
    assert [*map(type, getattr(found, field))] == [*map(type, expected)]
  for value in (float('nan'), float('-inf')):
    odd = dataclasses.replace(program, output_values=(value, *values[1:]))
    with pytest.raises(ValueError, match='finite numbers, booleans or None'):
      save(odd, tmp_path / 'b.npz')
  assert not (tmp_path / 'b.npz').exists()


def test_what_is_no_file_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'pipe.npz')
  (tmp_path / 'zero.npz').symlink_to('/dev/zero')
  _refused(tmp_path / 'pipe.npz', 'a pipe')
  _refused(tmp_path / 'zero.npz', 'a device')
  with zipfile.ZipFile(tmp_path / 'a.npz', 'w', zipfile.ZIP_DEFLATED) as file:
    text = io.BytesIO()
    np.save(text, np.array('[' * 100_000))
    file.writestr('description.npy', text.getvalue())
  _refused(tmp_path / 'a.npz', 'nested too deep')


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=30)
def test_a_flipped_bit_is_seen(tmp_path_factory, data):
  content = bytearray((DIRECTORY / 'length.npz').read_bytes())
  at = data.draw(st.integers(0, 8 * len(content) - 1))
  content[at // 8] ^= 1 << at % 8
  path = tmp_path_factory.mktemp('flipped') / 'a.npz'
  path.write_bytes(content)
  try:
    found = load(path)
  except ValueError as error:
    assert '\n' not in str(error)  # noqa: PT017
    return
  # Dates, flags and other bits of the archive that say nothing of arrays.
  expected = program_of('length')
  assert (found.edges, found.vocab) == (expected.edges, expected.vocab)
