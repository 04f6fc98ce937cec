"""Files of torch.save (.pt), without torch."""

from sparse_interp.interop.torch_file.torch_file import read, write

__all__ = ['read', 'write']
