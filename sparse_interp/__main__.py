"""`python -m sparse_interp`, the same as `python -m sparse_interp.main`."""

from sparse_interp.main import cli

if __name__ == '__main__':
  cli()
