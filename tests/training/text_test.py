"""From corpora to tokens, with a word about what was left out."""

from sparse_interp.training import text


def test_what_is_left_out_is_said_and_counted(tmp_path):
  path = tmp_path / 'a.jsonl'
  lines = [f'{{"text": "number {i}"}}' for i in range(20)]
  path.write_text('\n'.join([*lines, '{"text": null}', '{"text": null}']))
  spec, said = f'jsonl:{path}', []
  sources = [(spec, 1.0), ('idioms', 1.0)]
  made = text.prepare(tmp_path, sources, 0, 10_000, 300, 0.1, said.append)
  assert made.left_out == {spec: {'null': 2}}
  assert said[:3] == [
    f'reading corpus {spec}',
    f'left out of {spec}: 2 null',
    'reading corpus idioms',
  ]
