"""What a library says of its arguments is said of the fields of a section."""

import dataclasses

import pytest

from sparse_interp.configs import sections


@dataclasses.dataclass(frozen=True)
class _Asked:
  steps: int = 1

  def __post_init__(self):
    if self.steps < 1:
      raise ValueError(f'steps must be at least 1, got {self.steps}; raise it.')


class _RefusedError(ValueError):
  pass


def test_a_dataclass_names_its_field_and_a_run_the_section():
  with pytest.raises(ValueError, match=r'^steps must be at least 1, got 0'):
    _Asked(0)
  with pytest.raises(ValueError, match=r'^prune\.steps must be at least 1'):
    sections.read(_Asked, {'steps': 0}, 'prune')


@pytest.mark.parametrize(
  ('message', 'shown'),
  [
    ('steps must be 1', 'together.nodes.steps must be 1'),
    ('prune.steps must be 1', 'together.nodes.steps must be 1'),
    ('tokens must be 1', 'tokens must be 1'),
    ('tokens.npz must be a file', 'tokens.npz must be a file'),
    ('', ''),
  ],
)
def test_only_fields_of_the_section_are_renamed(message, shown):
  for error in (ValueError, _RefusedError):
    with pytest.raises(error) as raised:
      with sections.naming('together.nodes', _Asked):
        raise error(message)
    assert str(raised.value) == shown
