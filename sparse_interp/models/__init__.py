"""The transformer: its configuration, its sites and its modules."""

from typing import TYPE_CHECKING, Any

from sparse_interp.models.config import GPTConfig

if TYPE_CHECKING:
  from sparse_interp.models.gpt import GPT

__all__ = ['GPT', 'GPTConfig']


def __getattr__(name: str) -> Any:
  # Not before it is asked for: configurations need GPTConfig, and not jax.
  if name != 'GPT':
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from sparse_interp.models.gpt import GPT

  return GPT
