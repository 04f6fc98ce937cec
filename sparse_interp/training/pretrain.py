"""The pretraining run: from text to a weight-sparse model, in one pass.

Everything that decides the result is in the configuration and the seed, and
everything the run knows is in its workdir: killed at any moment and started
again with the same command, it ends with the same bits as if it had never been
interrupted (on the same devices).
"""

import contextlib
import dataclasses
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from sparse_interp.data import corpora
from sparse_interp.files import interrupts, model_files, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.training import (
  checkpoints,
  free_memory,
  hosts,
  inputs,
  metrics,
  sharding,
)
from sparse_interp.training import measure as measure_lib
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib

_PHASE = 'pretrain'


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
    SystemExit: with status 0, after SIGINT or SIGTERM and a last checkpoint;
      see `files.interrupts` for who handles these signals.
  """
  # Nothing is written before all that is asked is known to fit.
  plan = check(config, workdir)
  with (
    interrupts.handled(),
    interrupts.deferring() as stop,
    hosts.claimed(workdir, config.to_dict(), _PHASE) as claim,
  ):
    claim.record('checkpoints', directory=True)
    manager = checkpoints.open_manager(workdir, config.train.keep_checkpoints)
    with contextlib.closing(manager):
      summary = _pretrain(config, workdir, plan, claim, manager, stop)
    if summary is not None and stop.is_set():  # too late for the loop
      metrics.say(_PHASE, f'stopped by {stop.signal}; the same command goes on')
      summary = None
  if summary is None:
    sys.exit(0)
  return summary


def check(config: config_dict.ConfigDict, workdir: str) -> plan_lib.Plan:
  """What a configuration comes to; does no work.

  Args:
    config: see `pretrain`.
    workdir: where it was begun, text need not be there any more.

  Raises:
    ValueError: a field is wrong, or it would take more memory than there is.
  """
  plan = plan_lib.make_plan(config, free_memory.of_devices())
  mesh = sharding.make_mesh(config.train.fsdp)
  sharding.check_batch_size(mesh, config.data.batch_size)
  if not workdir_lib.is_begun(workdir):
    for spec, _ in config.data.corpora:
      corpora.check_corpus(spec, config.data.max_bytes)
  return plan


def _pretrain(
  config: config_dict.ConfigDict,
  workdir: str,
  plan: plan_lib.Plan,
  claim: workdir_lib.Claim,
  manager: Any,
  stop: interrupts.Stop,
) -> dict[str, Any] | None:
  """See `pretrain`; None when `stop` was set before the end."""
  begun = time.monotonic()
  if jax.process_count() > 1:
    # None may leave the others alone, before the loop, either.
    stop.unsaved, stop.patience = True, None
  mesh = sharding.make_mesh(config.train.fsdp)
  summary = workdir_lib.read_summary(workdir)
  if _is_complete(workdir, summary, manager, plan):
    metrics.say(_PHASE, f'done already: {plan.updates} steps in {workdir}')
    return summary

  # ---- Text.
  text = hosts.leader_first(lambda: inputs.prepare(config, workdir, _say))
  train_batches, validation = inputs.make_batches(config, text)
  if hosts.leads():
    inputs.save_sample(config, text, workdir)
    model_files.write(workdir, dataclasses.asdict(plan.model))

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
    losses, seconds, rows, history = [], 0.0, None, []
  else:
    state, progress = restored
    inputs.check_same(hashes, progress['hashes'])
    train_batches.set_state(progress['batches'])
    losses, seconds = progress['losses'], progress['wall_seconds']
    rows, history = progress['rows'], progress['versions']
    checkpoints.drop_surplus(manager, config.train.keep_checkpoints)
    metrics.say(_PHASE, f'continues from step {int(state.step)}')

  # ---- The loop. The host runs ahead and looks at numbers when a row is due.
  step, total = int(state.step), plan.updates
  if step < total:
    history = _with_this_version(history, step)
  measure = measure_lib.Measure(plan, model, mesh, validation)
  clock = metrics.Clock(step, config.data.batch_size * config.data.length)
  if metrics.tensorboard is not None:
    claim.record('tensorboard', directory=True)
  writer = metrics.MetricsWriter(workdir, step, rows)
  stopping = hosts.any_stops(stop, True)
  while step < total and not stopping:
    batch = sharding.put_batch(mesh, next(train_batches))
    state, numbers = train_step(state, batch)
    step, stop.unsaved = step + 1, True
    losses.append(numbers['train_loss'])
    clock.start_after_compilation(step, numbers)
    last = step == total
    eval_due = last or step % config.train.eval_every == 0
    row_due = eval_due or step % config.train.log_every == 0
    stopping = hosts.any_stops(stop, row_due)
    save_due = last or stopping or step % config.train.checkpoint_every == 0
    if row_due or save_due:
      losses = measure_lib.finite(losses, step, manager)
    if row_due:
      numbers = numbers | {'train_loss': np.mean(losses)}
      row = measure.row(step, numbers, state, eval_due)
      for name, value in row.items():
        measure_lib.check_finite(name, value, step, manager)
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
        'rows': writer.save(),
        'versions': history,
      }
      claim.settle()
      checkpoints.save(manager, state, progress)
  manager.wait_until_finished()
  writer.close()
  if step < total:
    metrics.say(
      _PHASE,
      f'stopped by {stop.signal or "a signal to another process"} after step '
      f'{step}, saved; the same command goes on',
    )
    return None

  # ---- What came out.
  entries = {
    'asked': {'config': config.to_dict(), 'seed': config.seed},
    'corpus_hash': text.corpus_hash,
    'left_out': text.left_out,
    'tokenizer_hash': text.tokenizer.hash,
    'code_version': history[-1]['versions']['code'],
    'versions': history,
    'device': sharding.device_name(),
    'wall_seconds': seconds + time.monotonic() - begun,
    'nonzeros': measure_lib.nonzeros(state.params, plan),
  }
  if not hosts.leads():
    return entries
  rows = metrics.read_rows(pathlib.Path(workdir) / 'metrics.jsonl')
  metrics.say(_PHASE, f'done: {total} steps in {workdir}')
  return workdir_lib.add_to_summary(workdir, entries | {'pretrain': rows[-1]})


def _say(line: str) -> None:
  metrics.say(_PHASE, line)


def _is_complete(
  workdir: str, summary: dict[str, Any], manager: Any, plan: plan_lib.Plan
) -> bool:
  """Whether all that later stages read is there.

  Raises:
    ValueError: it is, but the rows of metrics are not those of the run.
  """
  if not (
    model_files.is_whole(workdir)
    and 'nonzeros' in summary
    and checkpoints.is_at(manager, plan.updates)
  ):
    return False
  if hosts.leads():
    metrics.check(workdir, checkpoints.latest_progress(manager)['rows'])
  return True


def _with_this_version(
  history: list[dict[str, Any]], step: int
) -> list[dict[str, Any]]:
  """The versions that the run was made by so far, and those of this process."""
  now = versions.current()
  if changed := versions.difference(history, now):
    metrics.say(_PHASE, f'other versions from step {step} on: {changed}')
  return versions.add(history, now, phase=_PHASE, from_step=step)


def load_model(workdir: str | pathlib.Path) -> tuple[GPTConfig, dict[str, Any]]:
  """Reads (architecture, parameters) of a workdir, for the stages after.

  Raises:
    ValueError: nothing was pretrained there, or a file is damaged or of
      another version.
  """
  fields = model_files.read(workdir)
  try:
    fields['activation_sites'] = tuple(fields['activation_sites'])
    config = GPTConfig(**fields)
  except (KeyError, TypeError) as error:
    raise ValueError(
      f'{pathlib.Path(workdir) / model_files.MODEL} must have the fields of a '
      f'model, got {error}; read it with the version that wrote it.'
    ) from error
  return config, checkpoints.load_params(workdir)
