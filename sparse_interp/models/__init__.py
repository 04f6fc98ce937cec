"""The transformer: its configuration, its sites and its modules."""

from sparse_interp.models.config import GPTConfig
from sparse_interp.models.gpt import GPT

__all__ = ['GPT', 'GPTConfig']
