"""One tokenizer and one set of pairs for all tests of the tasks."""

import pytest

from sparse_interp.data import corpora, idioms
from sparse_interp.data.tokenizer import Tokenizer, train_tokenizer
from sparse_interp.tasks import TASKS
from sparse_interp.tasks.pairs import SPLITS, Pair, make_pairs


@pytest.fixture(scope='session')
def library_source() -> list[str]:
  """A part of the standard library's source."""
  return corpora.read_corpus('stdlib', 0, 1_000_000)


@pytest.fixture(scope='session')
def tokenizer(library_source: list[str]) -> Tokenizer:
  """As the default one: 2048 entries, from idioms and library source."""
  texts = list(idioms.documents(0, 500_000))
  return train_tokenizer(texts + library_source, 2048)


@pytest.fixture(scope='session')
def some_pairs() -> dict[str, dict[str, list[Pair]]]:
  """A hundred pairs of each task and split."""
  return {
    name: {split: make_pairs(task, split, 100, 0) for split in SPLITS}
    for name, task in TASKS.items()
  }
