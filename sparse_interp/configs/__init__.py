"""Configurations: those that ship, how a file is read, what runs need of them.

A configuration that varies another one begins with it:

    from sparse_interp import configs

    def get_config():
      config = configs.load('quickstart', 'tiny')
      config.prune.steps = 20
      return config
"""

from sparse_interp.configs.shipped import load

__all__ = ['load']
