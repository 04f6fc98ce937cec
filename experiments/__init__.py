"""Configurations that ship; see `sparse_interp.configs`."""
