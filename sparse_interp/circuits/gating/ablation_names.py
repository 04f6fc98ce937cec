"""Names of what removed parts are replaced by, explained in `ablation`."""

ABLATIONS = (
  'mean',
  'task_mean',
  'zero',
  'resample',
  'counterfactual',
  'subsets',
)
CONSTANT = ('mean', 'task_mean', 'zero')
OF_OTHER_PROMPTS = ('resample', 'counterfactual')
# Those that can be asked for together, with commas between: all that do not
# need other constants than the means over text.
TOGETHER = ('mean', 'subsets', 'resample', 'counterfactual')


def kinds_of(ablation: str) -> tuple[str, ...]:
  """The names in an ablation, one or several with commas between."""
  return tuple(kind.strip() for kind in ablation.split(','))


def needs_means(ablation: str) -> bool:
  """Whether it cannot do without means over text."""
  return not {'mean', 'subsets'}.isdisjoint(kinds_of(ablation))


def check_ablation(ablation: str) -> None:
  """Raises ValueError if there is no such ablation, or not together."""
  kinds = kinds_of(ablation)
  if len(kinds) == 1 and ablation in ABLATIONS:
    return
  if len(kinds) > len(set(kinds)) or not set(kinds) <= set(TOGETHER):
    raise ValueError(
      f'ablation must be one of {", ".join(ABLATIONS)}, or several of '
      f'{", ".join(TOGETHER)} with commas between, got {ablation!r}; choose '
      f'e.g. {ABLATIONS[0]!r}.'
    )
