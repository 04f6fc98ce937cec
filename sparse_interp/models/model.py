"""A model with all that belongs to it, wherever it came from.

Trained here, imported, compiled, or made in memory: what prunes a model, puts
its circuits on trial or looks at its units takes one of these, and nothing
else that has to be carried along with it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sparse_interp.data.tokenizer import Tokenizer
from sparse_interp.files import npz, whole_file
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import sites
from sparse_interp.models.config import GPTConfig
from sparse_interp.models.means import site_means
from sparse_interp.models.params_hash import hash_params

Means = Mapping[str, Float[Array | np.ndarray, '_']]

Arrays = dict[str, np.ndarray]

# Where a workdir keeps means of its nodes, and what of it says whose they are.
MEANS = 'means.npz'
_OF = 'of'
# Windows per call when means are taken.
_WINDOWS = 32


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
  """A model and what belongs to it.

  From memory, `Model(config, params)` is enough to run and to extract;
  behaviours that are posed as text need the tokenizer, and replacing removed
  nodes by their means needs windows of text, or the means themselves:

      Model(config, params, tokenizer=tokenizer, windows=windows)

  Attributes:
    config: architecture.
    params: parameter tree, as `GPT(config).init(...)['params']`.
    tokenizer: from text to tokens; None where nobody knows it.
    windows: sample of text as tokens, int32 (windows, length), which means are
      taken over; None where there is none.
    known_means: {site: (width,) float32}, means that came with the model; None
      has them taken over the windows when they are first asked for.
    workdir: the directory that keeps means once they are taken; None for none.
    source: where the model is from, in words, for people.
    corpus_hash: of the text it was trained on, where that is known.
  """

  config: GPTConfig
  params: dict
  tokenizer: Tokenizer | None = None
  windows: Int[np.ndarray, 'windows length'] | None = None
  known_means: Means | None = None
  workdir: pathlib.Path | None = None
  source: str = 'memory'
  corpus_hash: str | None = None

  def __repr__(self) -> str:
    config = self.config
    text = 'no text' if self.windows is None else f'{self.mean_tokens} tokens'
    return (
      f'Model({config.n_layer} layers, {config.d_model} channels, '
      f'vocabulary {config.vocab_size}, {text}, from {self.source})'
    )

  @functools.cached_property
  def means(self) -> Means:
    """{site: (width,) float32}: what removed nodes are held at.

    Taken over the windows when first asked for; with a workdir, read from it
    or kept there, as far as it may be written to.

    Raises:
      ValueError: there is no text to take them over.
    """
    if self.known_means is not None:
      return self.known_means
    if self.windows is None:
      raise ValueError(
        'windows must hold text to take means of nodes over, got none with the '
        f'model from {self.source}; import it again with a tokenizer, give '
        "Model windows, or ablate by 'zero' or 'task_mean'."
      )
    kept = _read_kept(self.workdir)
    found = self._own(kept)
    if found is None:
      parts = max(1, len(self.windows) // _WINDOWS)
      batches = np.array_split(self.windows, parts)
      found = site_means(self.config, self.params, batches)
      self._keep(found, kept)
    return found

  @property
  def mean_tokens(self) -> int:
    """Number of tokens behind the means; 0 where nobody knows."""
    return 0 if self.windows is None else int(self.windows.size)

  @property
  def hash(self) -> str:
    """Of the parameters; see `hash_params`."""
    return hash_params(self.params)

  @property
  def provenance(self) -> dict[str, Any]:
    """Hashes and the version of the code, as artifacts record them."""
    return {
      'corpus_hash': self.corpus_hash,
      'tokenizer_hash': self.tokenizer and self.tokenizer.hash,
      'code_version': workdir_lib.code_version(),
      'params_hash': self.hash,
    }

  def _whose(self) -> str:
    """Hash of all that decides the means."""
    digest = hashlib.sha256(self.hash.encode())
    digest.update(f'{self.config!r} {self.windows.shape}'.encode())
    digest.update(np.ascontiguousarray(self.windows, np.int32).tobytes())
    return digest.hexdigest()

  def _own(self, kept: Arrays | None) -> dict[str, Float[Array, '_']] | None:
    """Of what the workdir keeps, the means of this model."""
    wanted = sites.constant_sites(self.config)
    if kept is None or str(kept[_OF]) != self._whose() or wanted.keys() - kept:
      return None
    return {site: jnp.asarray(kept[site], jnp.float32) for site in wanted}

  def _keep(self, means: Means, kept: Arrays | None) -> None:
    if self.workdir is None:
      return
    path = self.workdir / MEANS
    if kept is None and path.exists():  # no run wrote it
      return
    # A model that lies where nobody may write is as good as any other.
    with (
      contextlib.suppress(OSError, ValueError),
      whole_file.writing(path) as part,
      part.open('wb') as file,
    ):
      arrays = {site: np.asarray(mean) for site, mean in means.items()}
      np.savez(file, **{_OF: np.array(self._whose())}, **arrays)


def _read_kept(workdir: pathlib.Path | None) -> Arrays | None:
  """What a workdir keeps of means, whoever's; None for none, or damaged."""
  if workdir is None or not (workdir / MEANS).is_file():
    return None
  with contextlib.suppress(ValueError, OSError):
    arrays = npz.read(workdir / MEANS, 'delete it')
    return arrays if _OF in arrays else None
  return None
