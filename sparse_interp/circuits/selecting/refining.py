"""What else can be left out of a bisected circuit, and what it still lacks."""

from sparse_interp.circuits.counting import Progress
from sparse_interp.circuits.prune_config import PruneConfig
from sparse_interp.circuits.selecting.bisection import Ranked
from sparse_interp.circuits.selecting.elimination import eliminate
from sparse_interp.circuits.selecting.necessity import add_until_necessary
from sparse_interp.circuits.selecting.parted import Split
from sparse_interp.circuits.unfinished import Unfinished
from sparse_interp.circuits.units import Mask, Units

# Elimination also starts this share of the way from the full model to the goal.
_ROOM = 0.1
# ... unless that is more units than it can try in a minute or so.
_LARGEST = 128


def refinements(
  units: Units,
  ranked: Ranked,
  keep: Mask,
  data: Split,
  goal: float,
  full_loss: float,
  config: PruneConfig,
  progress: Progress | None,
  unfinished: Unfinished,
) -> list[Mask]:
  """What elimination leaves of a bisected circuit, from one or two starts.

  Args:
    units: of the model.
    ranked: circuits of the ranking, for a second start.
    keep: the bisected circuit.
    data: from `parted.part`.
    goal: largest loss allowed on the selection pairs.
    full_loss: of the full model there.
    config: says what is tried.
    progress: called now and then with what there is to show.
    unfinished: keeps what was measured.
  """
  if not config.eliminate:
    return []
  starts = [keep]
  # Where nothing is to spare, a greedy search soon has no way to go: it also
  # starts from a circuit that is closer to the full model. Not with several
  # ablations, where every trial takes that many times as long.
  if len(units.model.kinds) == 1:
    _, _, larger = ranked.smallest(
      full_loss + _ROOM * (goal - full_loss), max(1, int(keep.sum()))
    )
    starts += [larger] if larger.sum() <= _LARGEST else []
  return [
    eliminate(
      units,
      start,
      data.chosen,
      goal,
      config,
      _show_what_is_left(progress, f'{i + 1} of {len(starts)}'),
      unfinished,
    )
    for i, start in enumerate(starts)
  ]


def complete(
  units: Units,
  keep: Mask,
  data: Split,
  config: PruneConfig,
  unfinished: Unfinished,
) -> Mask:
  """A circuit with what it lacks for the model to need it."""
  if config.min_necessity is not None:
    keep = add_until_necessary(
      *(units, keep, data.chosen, config.min_necessity),
      unfinished,
      config.bounded,
    )
  return units.settle(keep)


def _show_what_is_left(progress, which):
  """Of one elimination; there may be another, and further attempts."""

  def show(left):
    if progress is not None:
      numbers = {'phase': 'eliminate', 'start': which}
      numbers |= {'nodes': left.nodes, 'edges': left.edges}
      if left.number:
        numbers['pass'] = left.number
      if left.seconds is not None:
        numbers['about_seconds_left'] = left.seconds
      progress(numbers)

  return show
