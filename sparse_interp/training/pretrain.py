"""The pretraining run: from text to a weight-sparse model, in one pass.

Everything that decides the result is in the configuration and the seed, and
everything the run knows is in its workdir: killed at any moment and started
again with the same command, it ends with the same bits as if it had never been
interrupted (on the same devices).
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import config_dict

from sparse_interp.data import batches as batches_lib
from sparse_interp.files import whole_file
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.sparsity import statistics
from sparse_interp.training import checkpoints, metrics, sharding
from sparse_interp.training import measure as measure_lib
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib
from sparse_interp.training import text as text_lib

_PHASE = 'pretrain'

# Windows of training text that later stages average activations over.
SAMPLE = 'pretraining_sample.npy'
_SAMPLE_TOKENS = 65_536


def pretrain(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains the model that the configuration describes, or goes on doing so.

  Args:
    config: see experiments/pretrain/tiny.py for every field.
    workdir: directory of the run: config.json, model.json, tokenizer.json,
      data/, checkpoints/, metrics.jsonl and summary.json.

  Returns:
    The content of summary.json.

  Raises:
    ValueError: a field is wrong, the workdir holds another configuration, a
      checkpoint is damaged, or the loss is not finite.
    SystemExit: with status 0, after SIGTERM and a last checkpoint.
  """
  with _stop_on_sigterm() as stop:
    summary = _pretrain(config, workdir, stop)
  if summary is None:
    sys.exit(0)
  return summary


def _pretrain(
  config: config_dict.ConfigDict, workdir: str, stop: threading.Event
) -> dict[str, Any] | None:
  """See `pretrain`; None when `stop` was set before the end."""
  begun = time.monotonic()

  # ---- What is asked: nothing is written before all of it is known to fit.
  plan = plan_lib.make_plan(config)
  mesh = sharding.make_mesh(config.train.fsdp)
  sharding.check_batch_size(mesh, config.data.batch_size)
  workdir_lib.claim(workdir, config.to_dict())
  manager = checkpoints.open_manager(workdir, config.train.keep_checkpoints)
  summary = workdir_lib.read_summary(workdir)
  if 'nonzeros' in summary and manager.latest_step() == plan.updates:
    metrics.say(_PHASE, f'done already: {plan.updates} steps in {workdir}')
    manager.close()
    return summary

  # ---- Text.
  try:
    text = _prepare_text(config, workdir)
    train_batches, validation = _make_batches(config, text)
  except ValueError:
    # The user will mend the configuration, and must not be refused then.
    manager.close()
    if manager.latest_step() is None:
      workdir_lib.release(workdir)
    raise
  workdir_lib.write_json(
    pathlib.Path(workdir) / 'model.json', dataclasses.asdict(plan.model)
  )
  _save_sample(config, text, workdir)

  # ---- Model and optimizer; the state is born on the devices it lives on.
  model = GPT(plan.model, plan.products)
  optimizer = optimizer_lib.make_optimizer(
    plan.optimizer, plan.learning_rate, plan.targets
  )
  init = state_lib.make_init(model, optimizer)
  key = jax.random.key(config.seed)
  abstract_state = jax.eval_shape(init, key)
  shardings = sharding.state_shardings(mesh, abstract_state)
  train_step = jax.jit(
    state_lib.make_train_step(
      model, optimizer, tuple(plan.targets), plan.regrow_every
    ),
    donate_argnums=0,
    out_shardings=(shardings, None),
  )

  # ---- Begin, or go on from the latest checkpoint.
  restored = checkpoints.restore(
    manager,
    jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=where
      ),
      abstract_state,
      shardings,
    ),
  )
  hashes = {'corpus': text.corpus_hash, 'tokenizer': text.tokenizer.hash}
  if restored is None:
    state = jax.jit(init, out_shardings=shardings)(key)
    losses, seconds = [], 0.0
  else:
    state, progress = restored
    _check_same_text(hashes, progress['hashes'])
    train_batches.set_state(progress['batches'])
    losses, seconds = progress['losses'], progress['wall_seconds']
    metrics.say(_PHASE, f'continues from step {int(state.step)}')

  # ---- The loop. The host runs ahead and looks at numbers when a row is due.
  step, total = int(state.step), plan.updates
  measure = measure_lib.Measure(plan, model, mesh, validation)
  clock = metrics.Clock(step, config.data.batch_size * config.data.length)
  writer = metrics.MetricsWriter(workdir, step)
  stopping = _all_agree(stop, True)
  while step < total and not stopping:
    batch = sharding.put_batch(mesh, next(train_batches))
    state, numbers = train_step(state, batch)
    step += 1
    losses.append(numbers['train_loss'])
    clock.start_after_compilation(step, numbers)
    last = step == total
    eval_due = last or step % config.train.eval_every == 0
    row_due = eval_due or step % config.train.log_every == 0
    stopping = _all_agree(stop, row_due)
    save_due = last or stopping or step % config.train.checkpoint_every == 0
    if row_due or save_due:
      losses = _finite(losses, step, manager)
    if row_due:
      numbers = numbers | {'train_loss': np.mean(losses)}
      row = measure.row(step, numbers, state.params, eval_due)
      speed, left = clock.lap(step, total)
      writer.write(row | {'tokens_per_second': speed})
      loss = row['train_loss']
      metrics.say(_PHASE, metrics.progress_line(step, total, loss, speed, left))
      losses = []
    if save_due:
      progress = {
        'batches': train_batches.get_state(),
        'losses': losses,
        'wall_seconds': seconds + time.monotonic() - begun,
        'hashes': hashes,
      }
      checkpoints.save(manager, state, progress)
  manager.wait_until_finished()
  manager.close()
  writer.close()
  if step < total:
    metrics.say(_PHASE, f'stopped by SIGTERM after step {step}, saved')
    return None

  # ---- What came out.
  entries = {
    'asked': {'config': config.to_dict(), 'seed': config.seed},
    'corpus_hash': text.corpus_hash,
    'left_out': text.left_out,
    'tokenizer_hash': text.tokenizer.hash,
    'code_version': workdir_lib.code_version(),
    'device': sharding.device_name(),
    'wall_seconds': seconds + time.monotonic() - begun,
    'pretrain': metrics.read_rows(pathlib.Path(workdir) / 'metrics.jsonl')[-1],
    'nonzeros': _nonzeros(state.params, plan),
  }
  metrics.say(_PHASE, f'done: {total} steps in {workdir}')
  return workdir_lib.add_to_summary(workdir, entries)


def load_model(workdir: str | pathlib.Path) -> tuple[GPTConfig, dict[str, Any]]:
  """Reads (architecture, parameters) of a workdir, for the stages after.

  Raises:
    ValueError: nothing was pretrained there, or a checkpoint is damaged.
  """
  path = pathlib.Path(workdir) / 'model.json'
  if not path.exists():
    raise ValueError(
      f'workdir must hold a pretrained model, got no {path}; run a pretrain '
      'configuration in this workdir first.'
    )
  fields = json.loads(path.read_text())
  fields['activation_sites'] = tuple(fields['activation_sites'])
  return GPTConfig(**fields), checkpoints.load_params(workdir)


def _prepare_text(
  config: config_dict.ConfigDict, workdir: str
) -> text_lib.Text:
  return text_lib.prepare(
    workdir,
    [(spec, float(weight)) for spec, weight in config.data.corpora],
    config.seed,
    config.data.max_bytes,
    config.data.vocab_size,
    config.data.validation_fraction,
    lambda line: metrics.say(_PHASE, line),
  )


def _make_batches(
  config: config_dict.ConfigDict, text: text_lib.Text
) -> tuple[Any, list[Any]]:
  """(iterator over this process's training batches, validation batches)."""
  data = config.data
  processes = (jax.process_index(), jax.process_count())
  train = batches_lib.make_batches(
    text.train,
    text.weights,
    data.batch_size,
    data.length,
    config.seed,
    *processes,
    names=text.names,
  )
  if not data.validation_fraction:
    return iter(train), []
  validation = batches_lib.validation_batches(
    text.validation,
    text.weights,
    data.batch_size,
    data.length,
    config.train.eval_batches,
    *processes,
    names=text.names,
  )
  return iter(train), validation


def _save_sample(
  config: config_dict.ConfigDict, text: text_lib.Text, workdir: str
) -> None:
  """Writes the first windows of the training order, in one step."""
  path = pathlib.Path(workdir) / SAMPLE
  if jax.process_index() != 0 or path.exists():
    return
  data = config.data
  batches = iter(
    batches_lib.make_batches(
      text.train,
      text.weights,
      data.batch_size,
      data.length,
      config.seed,
      names=text.names,
    )
  )
  count = max(1, _SAMPLE_TOKENS // data.length)
  taken = [next(batches) for _ in range(-(-count // data.batch_size))]
  rows = np.concatenate(taken)[:count]
  with whole_file.writing(path) as part, part.open('wb') as file:
    np.save(file, rows)


def _check_same_text(hashes: dict[str, str], before: dict[str, str]) -> None:
  for what, value in hashes.items():
    if value != before[what]:
      raise ValueError(
        f'data.corpora must hold the text this run began with, got a {what} '
        f'with hash {value[:12]} instead of {before[what][:12]}; restore the '
        'text or choose another workdir.'
      )


def _finite(losses: Sequence[Any], step: int, manager: Any) -> list[float]:
  """Fetches the losses of the updates up to `step`.

  Raises:
    ValueError: one is not finite.
  """
  losses = [float(loss) for loss in jax.device_get(losses)]
  for i, loss in enumerate(losses):
    if not math.isfinite(loss):
      manager.wait_until_finished()
      good = manager.latest_step()
      where = (
        'there is no checkpoint yet'
        if good is None
        else f'the last good checkpoint is {manager.directory / str(good)}'
      )
      manager.close()
      raise ValueError(
        f'train_loss must be finite, got {loss} at step '
        f'{step - len(losses) + i + 1}; {where}; lower '
        'optimizer.learning_rate in another workdir.'
      )
  return losses


def _nonzeros(params: Any, plan: plan_lib.Plan) -> dict[str, dict[str, int]]:
  """Per tensor: nonzeros asked for, nonzeros found, and size."""
  asked = statistics.asked_counts(params, plan.targets)
  found = jax.device_get(jax.jit(statistics.nonzero_counts)(params))
  return {
    name: {
      'asked': asked[name],
      'found': int(found[name]),
      'size': int(tensor.size),
    }
    for name, tensor in statistics.named_tensors(params).items()
  }


@contextlib.contextmanager
def _stop_on_sigterm() -> Iterator[threading.Event]:
  """Yields an event that SIGTERM sets (main thread only, as Python asks)."""
  stop = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return
  before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
  try:
    yield stop
  finally:
    signal.signal(signal.SIGTERM, before)


def _all_agree(stop: threading.Event, row_due: bool) -> bool:
  """Whether to stop; several processes ask each other, but only at rows."""
  if jax.process_count() == 1:
    return stop.is_set()
  if not row_due:
    return False
  told = np.array(stop.is_set())
  return bool(np.any(multihost_utils.process_allgather(told)))
