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
# Those that cannot do without means over text.
NEED_MEANS = ('mean', 'subsets')


def check_ablation(ablation: str) -> None:
  """Raises ValueError if there is no ablation of this name."""
  if ablation not in ABLATIONS:
    raise ValueError(
      f'ablation must be one of {", ".join(ABLATIONS)}, got '
      f'{ablation!r}; choose e.g. {ABLATIONS[0]!r}.'
    )
