"""The letters in which byte-level vocabularies write bytes, as in GPT-2."""

from tokenizers import pre_tokenizers

BYTES = 256


def byte_letters() -> dict[str, int]:
  """The byte that each of the 256 letters of the vocabulary stands for.

  Printable Latin-1 letters stand for themselves; letters from U+0100 on stand
  for the other bytes, in order.
  """
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  plain = [ord(letter) for letter in letters if ord(letter) < BYTES]
  others = sorted(set(range(BYTES)) - set(plain))
  return dict(zip(letters, plain + others, strict=True))
