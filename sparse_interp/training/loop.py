"""The loop that trains anything: a step, a state, batches, and a directory.

    with loop.opened(workdir, config, 'regression') as work:
      trained = loop.run(step, init, batches, work, steps=1000)

What is trained differs in its step, its state and what is measured on it; all
the rest of training is here. Everything that decides the result must follow
from `init` and `batches`, and everything that the run knows is in its workdir:
killed at any moment and started again in the same way, it ends with the same
bits as if it had never been interrupted (on the same devices).
"""

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from sparse_interp.files import interrupts, versions
from sparse_interp.files import workdir as workdir_lib
from sparse_interp.training import checkpoints, finite, hosts, metrics, sharding

Numbers = Mapping[str, Any]  # scalars, on the devices or not


@runtime_checkable
class Batches(Protocol):
  """Batches without end, which can go on where they were."""

  def __next__(self) -> Any:
    """The next batch, of whatever the step takes."""

  def get_state(self) -> Any:
    """JSON values that say which batch was taken last."""

  def set_state(self, state: Any) -> None:
    """Goes on behind the batch that was taken last."""


@dataclasses.dataclass(frozen=True)
class Work:
  """A directory that a training run holds, from `opened`.

  Attributes:
    workdir: the directory.
    phase: what the run is called on the console and in its versions.
    keep: number of latest checkpoints that are kept.
    claim: says that the directory is this run's.
    manager: of its checkpoints.
    stop: whether a signal has asked for the end.
    begun: when it was opened, by the monotonic clock.
  """

  workdir: str | pathlib.Path
  phase: str
  keep: int
  claim: workdir_lib.Claim
  manager: Any
  stop: interrupts.Stop
  begun: float

  def say(self, line: str) -> None:
    """Prints one line of progress."""
    metrics.say(self.phase, line)


class Trained(NamedTuple):
  """What came out.

  Attributes:
    state: after the last step.
    versions: of code and libraries, with the steps they took over at.
    wall_seconds: of all processes that took part, one after the other.
  """

  state: Any
  versions: list[dict[str, Any]]
  wall_seconds: float


@contextlib.contextmanager
def opened(
  workdir: str | pathlib.Path,
  config: Mapping[str, Any],
  phase: str,
  keep: int = 1,
) -> Iterator[Work]:
  """Makes a directory a run's own while the context lasts.

  Args:
    workdir: made if missing; holds config.json, and what `run` writes.
    config: nested mapping of JSON values: all that decides the result.
    phase: see `Work`.
    keep: see `Work`.

  Raises:
    ValueError: see `files.workdir.claimed`; or `keep` is below 1.
    SystemExit: with status 0, after SIGINT or SIGTERM and a last checkpoint;
      see `files.interrupts` for who handles these signals.
  """
  _check_positive(keep=keep)
  with (
    interrupts.handled(),
    interrupts.deferring() as stop,
    hosts.claimed(workdir, config, phase) as claim,
  ):
    claim.record('checkpoints', directory=True)
    manager = checkpoints.open_manager(workdir, keep)
    begun = time.monotonic()
    if jax.process_count() > 1:
      # None may leave the others alone, before the loop, either.
      stop.unsaved, stop.patience = True, None
    work = Work(workdir, phase, keep, claim, manager, stop, begun)
    with contextlib.closing(manager):
      yield work
    if late := stop.is_set():  # for the loop
      work.say(f'stopped by {stop.signal}; the same command goes on')
  if late:
    sys.exit(0)


def numbers_alone(
  step: int, numbers: Numbers, state: Any, thorough: bool
) -> dict[str, float]:
  """The least that can be measured: the numbers of the step itself."""
  del step, state, thorough
  return {name: float(value) for name, value in numbers.items()}


def _check_same(hashes: Mapping[str, str], before: Mapping[str, str]) -> None:
  """Raises ValueError unless the data is what a run began with."""
  for what in {**before, **hashes}:
    now, then = hashes.get(what, 'none'), before.get(what, 'none')
    if now != then:
      raise ValueError(
        f'batches must be of the data this run began with, got a {what} with '
        f'hash {now[:12]} instead of {then[:12]}; restore the data or choose '
        'another workdir.'
      )


def run(
  step: Callable[[Any, Any], tuple[Any, Numbers]],
  init: Callable[[], Any],
  batches: Batches,
  work: Work,
  *,
  steps: int,
  like: Any = None,
  measure: Callable[[int, Numbers, Any, bool], Numbers] = numbers_alone,
  averaged: str = 'loss',
  counted: tuple[str, int] = ('steps', 1),
  log_every: int = 100,
  eval_every: int | None = None,
  checkpoint_every: int = 1000,
  hashes: Mapping[str, str] | None = None,
  check_same: Callable[[Any, Any], None] = _check_same,
  remedy: str = checkpoints.REMEDY,
) -> Trained:
  """Trains from the latest checkpoint, or from the beginning, to the end.

  Writes rows of metrics.jsonl with a line on the console each, and checkpoints.

  Args:
    step: (state, batch) -> (state, numbers), jitted; may donate the state.
    init: makes the first state, see `checkpoints.State`; called only where
      there is no checkpoint.
    batches: what `step` is given, one after the other.
    work: from `opened`.
    steps: number of updates in all.
    like: tree of `jax.ShapeDtypeStruct` with shardings, where a state that was
      saved shall live; None for the first device.
    measure: (step, numbers, state, thorough) -> what is logged after so many
      updates; see `eval_every` for `thorough`.
    averaged: which number is checked at every step, and is in a row as the mean
      since the row before; the others are the last step's.
    counted: what speed counts, in the plural, and how many there are in a step.
    log_every: steps from row to row.
    eval_every: steps from one thorough row to the next; the last row is
      thorough in any case.
    checkpoint_every: steps from checkpoint to checkpoint.
    hashes: by name, of the data behind the batches.
    check_same: compares them with those that the run began with.
    remedy: what to do about numbers that are not finite, for the message.

  Raises:
    ValueError: an argument is out of its range, a checkpoint or metrics.jsonl
      is not what was written, the data is another one or ends too early, or a
      number is not finite.
    SystemExit: with status 0, where `work.stop` was set before the end and all
      is saved.
  """
  eval_every = steps if eval_every is None else eval_every
  _check_positive(
    steps=steps,
    log_every=log_every,
    eval_every=eval_every,
    checkpoint_every=checkpoint_every,
  )
  manager, stop, hashes = work.manager, work.stop, dict(hashes or {})

  # ---- Begin, or go on from the latest checkpoint.
  if like is None:
    like = sharding.on_first_device(jax.eval_shape(init))
  restored = checkpoints.restore(manager, like)
  if restored is None:
    state = init()
    losses, seconds, rows, history = [], 0.0, None, []
  else:
    state, progress = restored
    check_same(hashes, progress['hashes'])
    batches.set_state(progress['batches'])
    losses, seconds = progress['losses'], progress['wall_seconds']
    rows, history = progress['rows'], progress['versions']
    checkpoints.drop_surplus(manager, work.keep)
    work.say(f'continues from step {int(state.step)}')

  # ---- The loop. The host runs ahead and looks at numbers when a row is due.
  done = int(state.step)
  if done < steps:
    history = _with_this_version(history, done, work)
  unit, per_step = counted
  clock = metrics.Clock(done, per_step)
  if metrics.tensorboard is not None:
    work.claim.record('tensorboard', directory=True)
  writer = metrics.MetricsWriter(work.workdir, done, rows)
  stopping = hosts.any_stops(stop, True)
  while done < steps and not stopping:
    state, numbers = step(state, _next(batches, done, steps))
    done, stop.unsaved = done + 1, True
    losses.append(numbers[averaged])
    clock.start_after_compilation(done, numbers)
    last = done == steps
    eval_due = last or done % eval_every == 0
    row_due = eval_due or done % log_every == 0
    stopping = hosts.any_stops(stop, row_due)
    save_due = last or stopping or done % checkpoint_every == 0
    if row_due or save_due:
      losses = finite.fetch(averaged, losses, done, manager, remedy)
    if row_due:
      numbers = {**numbers, averaged: np.mean(losses)}
      row = {'step': done, **measure(done, numbers, state, eval_due)}
      for name, value in row.items():
        finite.check(name, value, done, manager, remedy)
      speed, left = clock.lap(done, steps)
      writer.write(row | {f'{unit}_per_second': speed})
      loss = float(numbers[averaged])
      work.say(metrics.progress_line(done, steps, loss, speed, left, unit))
      losses = []
    if save_due:
      progress = {
        'batches': batches.get_state(),
        'losses': losses,
        'wall_seconds': seconds + time.monotonic() - work.begun,
        'hashes': hashes,
        'rows': writer.save(),
        'versions': history,
      }
      work.claim.settle()
      checkpoints.save(manager, state, progress, remedy)
  manager.wait_until_finished()
  writer.close()
  if done < steps:
    work.say(
      f'stopped by {stop.signal or "a signal to another process"} after step '
      f'{done}, saved; the same command goes on'
    )
    sys.exit(0)
  return Trained(state, history, seconds + time.monotonic() - work.begun)


def _with_this_version(
  history: list[dict[str, Any]], step: int, work: Work
) -> list[dict[str, Any]]:
  """The versions that the run was made by so far, and those of this process."""
  now = versions.current()
  if changed := versions.difference(history, now):
    work.say(f'other versions from step {step} on: {changed}')
  return versions.add(history, now, phase=work.phase, from_step=step)


def _next(batches: Batches, done: int, steps: int) -> Any:
  try:
    return next(batches)
  except StopIteration:
    raise ValueError(
      f'batches must be at least as many as steps, {steps}, got their end '
      f'after {done}; repeat them, or choose fewer steps.'
    ) from None


def _check_positive(**arguments: int) -> None:
  for name, value in arguments.items():
    if value < 1:
      raise ValueError(f'{name} must be at least 1, got {value}; choose more.')
