"""Where and with what something was measured."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import jax

# Whose versions a figure may depend on, where they are installed.
_PACKAGES = ('jax', 'jaxlib', 'numpy', 'scipy', 'torch')


def processor_name() -> str:
  """Model of the CPU, where the system tells."""
  path = pathlib.Path('/proc/cpuinfo')
  if path.exists():
    for line in path.read_text().splitlines():
      if line.startswith('model name'):
        return line.split(':', 1)[1].strip()
  return platform.processor() or platform.machine()


def about(code_version: str) -> dict[str, Any]:
  """Hardware, versions and date, as JSON values.

  Args:
    code_version: of this package.
  """
  versions = {'python': platform.python_version(), 'code': code_version}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  cores = getattr(
    os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1)
  )(0)
  device = jax.devices()[0].device_kind
  if jax.default_backend() == 'cpu':
    device = f'{len(cores)} CPU cores'
  return {
    'device': f'{jax.device_count()} x {device}'
    if jax.device_count() > 1
    else device,
    'platform': jax.default_backend(),
    'processor': processor_name(),
    'cores': len(cores),
    'versions': versions,
    'date': datetime.datetime.now().astimezone().date().isoformat(),
  }
