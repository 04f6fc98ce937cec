"""The pretraining run: from text to a weight-sparse model, in one pass.

Everything that decides the result is in the configuration and the seed, and
everything the run knows is in its workdir: killed at any moment and started
again with the same command, it ends with the same bits as if it had never been
interrupted (on the same devices).
"""

import dataclasses
import pathlib
from typing import Any

import jax
from ml_collections import config_dict

from sparse_interp.data import corpora
from sparse_interp.files import metric_rows, model_files
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.models import GPT, GPTConfig
from sparse_interp.training import (
  checkpoints,
  free_memory,
  hosts,
  inputs,
  loop,
  metrics,
  sharding,
)
from sparse_interp.training import measure as measure_lib
from sparse_interp.training import optimizer as optimizer_lib
from sparse_interp.training import plan as plan_lib
from sparse_interp.training import state as state_lib

_REMEDY = 'lower optimizer.learning_rate in another workdir'


def run(config: config_dict.ConfigDict, workdir: str) -> dict[str, Any]:
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
  keep = config.train.keep_checkpoints
  with loop.opened(workdir, config.to_dict(), 'pretrain', keep) as work:
    summary = workdir_lib.read_summary(workdir)
    if _is_complete(workdir, summary, work.manager, plan):
      work.say(f'done already: {plan.updates} steps in {workdir}')
      return summary
    return _train(config, plan, work)


def _train(
  config: config_dict.ConfigDict, plan: plan_lib.Plan, work: loop.Work
) -> dict[str, Any]:
  """The method, from beginning to end; returns the content of summary.json."""
  # ---- Text: tokens in an order that follows from the seed, in windows.
  text = hosts.leader_first(
    lambda: inputs.prepare(config, work.workdir, work.say)
  )
  train_batches, validation = inputs.make_batches(config, text)
  if hosts.leads():
    inputs.save_sample(config, text, work.workdir)
    model_files.write(work.workdir, dataclasses.asdict(plan.model))

  # ---- Model and optimizer, whose last act is the projection that leaves as
  # many weights as the schedule has for the step. The state is born on the
  # devices it lives on.
  mesh = sharding.make_mesh(config.train.fsdp)
  model = GPT(plan.model, plan.products)
  optimizer = optimizer_lib.make_optimizer(
    plan.optimizer, plan.learning_rate, plan.targets
  )
  init = state_lib.make_init(model, optimizer)
  key = jax.random.key(config.seed)
  abstract_state = jax.eval_shape(init, key)
  shardings = sharding.state_shardings(mesh, abstract_state)
  init = jax.jit(init, out_shardings=shardings)
  train_step = jax.jit(
    state_lib.make_train_step(
      model, optimizer, tuple(plan.targets), plan.regrow_every
    ),
    donate_argnums=0,
    out_shardings=(shardings, None),
  )

  # ---- Training: every row is also the proof that the weights are as sparse as
  # was asked for.
  trained = loop.run(
    lambda state, rows: train_step(state, sharding.put_batch(mesh, rows)),
    lambda: init(key),
    train_batches,
    work,
    steps=plan.updates,
    like=sharding.placed(abstract_state, shardings),
    measure=measure_lib.Measure(plan, model, mesh, validation).row,
    averaged='train_loss',
    counted=('tokens', config.data.batch_size * config.data.length),
    log_every=config.train.log_every,
    eval_every=config.train.eval_every,
    checkpoint_every=config.train.checkpoint_every,
    hashes={'corpus': text.corpus_hash, 'tokenizer': text.tokenizer.hash},
    check_same=inputs.check_same,
    remedy=_REMEDY,
  )

  # ---- What came out.
  entries = {
    'asked': {'config': config.to_dict(), 'seed': config.seed},
    'corpus_hash': text.corpus_hash,
    'left_out': text.left_out,
    'tokenizer_hash': text.tokenizer.hash,
    'code_version': trained.versions[-1]['versions']['code'],
    'versions': trained.versions,
    'device': sharding.device_name(),
    'wall_seconds': trained.wall_seconds,
    'nonzeros': measure_lib.nonzeros(trained.state.params, plan),
  }
  if not hosts.leads():
    return entries
  rows = metric_rows.read(pathlib.Path(work.workdir) / metric_rows.NAME)
  work.say(f'done: {plan.updates} steps in {work.workdir}')
  return workdir_lib.add_to_summary(
    work.workdir, entries | {'pretrain': rows[-1]}
  )


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
    progress = checkpoints.latest_progress(manager)
    assert progress is not None  # there is the checkpoint of the last step
    metrics.check(workdir, progress['rows'])
  return True


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
