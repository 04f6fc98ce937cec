"""Sentences of the page, each made of what an artifact says."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparse_interp.viewer.artifacts import StoredCircuit
from sparse_interp.viewer.results import is_finite, section

# What a removed part takes, by kind of ablation; {mean} is the mean and what
# it is over.
_VALUES = {
  'mean': '{mean}',
  'task_mean': 'its mean over train prompts of the task',
  'zero': '0',
  'resample': 'its value on another prompt of the task',
  'counterfactual': 'its value on the other prompt of the pair',
  'subsets': '{mean}, a random half at a time',
}
_OF_OTHER_PROMPTS = ('resample', 'counterfactual')


def title(summary: Mapping[str, Any], circuits: Sequence[StoredCircuit]) -> str:
  """Returns the heading of the page."""
  if circuits or section(summary, 'tasks'):
    return 'Circuits of a transformer'
  run = section(summary, 'asked', 'config').get('run')
  return f'A run of {text(run)}' if run else 'A run'


def lead(summary: Mapping[str, Any], circuits: Sequence[StoredCircuit]) -> str:
  """Returns whose circuits these are, as far as the artifacts know."""
  config = section(summary, 'asked', 'config')
  imported = section(summary, 'imported')
  sentences = []
  model = section(circuits[0].document, 'model') if circuits else {}
  model = model or section(config, 'model')
  if model.get('n_layer') and model.get('d_model'):
    sentences.append(
      f'A transformer of {text(model["n_layer"])} layers and '
      f'{text(model["d_model"])} residual channels.'
    )
  corpora = section(config, 'data').get('corpora')
  if imported.get('source'):
    sentences.append(f'It was imported from {text(imported["source"])}.')
  elif config.get('model_workdir'):
    sentences.append(f'Its workdir is {text(config["model_workdir"])}.')
  elif isinstance(corpora, list) and corpora and summary.get('corpus_hash'):
    names = ', '.join(
      text(one[0] if isinstance(one, list) and one else one) for one in corpora
    )
    sentences.append(f'It was trained on: {names}.')
  if circuits:
    sentences.append(
      'It was cut down, one behaviour at a time, to the nodes and edges that '
      'are drawn below.'
    )
  return ' '.join(sentences)


def facts(
  summary: Mapping[str, Any], circuits: Sequence[StoredCircuit]
) -> list[list[str]]:
  """Returns [name, value] of what identifies the run."""
  asked = dict(section(summary, 'asked'))
  config = asked.pop('config', None)
  seed = section({'config': config}, 'config').get('seed')
  if seed is not None:
    asked.setdefault('seed', seed)
  found = {'seed of the run' if k == 'seed' else k: v for k, v in asked.items()}
  imported = section(summary, 'imported')
  names = ('kind', 'sha256', 'means_over', 'mean_tokens')
  found |= {
    f'imported {name}': imported[name]
    for name in names
    if imported.get(name) is not None
  }
  names = ('device', 'code_version', 'corpus_hash', 'tokenizer_hash')
  found |= {name: summary[name] for name in names if name in summary}
  seeds = _distinct(
    section(c.document, 'provenance').get('seed') for c in circuits
  )
  if seeds:
    found['seed of pruning'] = ', '.join(seeds)
  return [[key.replace('_', ' '), text(value)] for key, value in found.items()]


def method(
  summary: Mapping[str, Any], circuits: Sequence[StoredCircuit]
) -> list[list[str]]:
  """Returns [name, sentence]: how the numbers of the table were made."""
  sentences = dict(section(summary, 'formulas'))
  entries = section(summary, 'tasks').values()
  for name in ('train_pairs', 'test_pairs'):
    counts = {section({'e': e}, 'e').get(name) for e in entries}
    counts = sorted(count for count in counts if is_finite(count))
    if counts:
      sentences[f'{name}_per_task'] = counts
  ablations = _distinct(
    ablation(c.document) for c in circuits if section(c.document, 'ablation')
  )
  if ablations:
    sentences['ablation'] = ' / '.join(ablations)
  return [[k.replace('_', ' '), text(value)] for k, value in sentences.items()]


def outside(circuits: Sequence[StoredCircuit]) -> str:
  """Returns what happens outside of the circuits, for the guide."""
  told = [ablation(c.document) for c in circuits]
  told = _distinct(words for words in told if words)
  return f'Outside a circuit, {"; or ".join(told)}.' if told else ''


def ablation(document: Mapping[str, Any]) -> str:
  """Returns what a removed node or edge of a circuit takes."""
  fields = section(document, 'ablation')
  values = [_VALUES.get(kind) for kind in _kinds(document)]
  if not values or None in values:
    return text(fields)
  mean = f'its mean over {text(fields.get("over") or "text")}'
  if fields.get('over') == 'pretraining':
    # An imported model brings no text that it was trained on.
    mean = "its mean over the model's text sample"
  if is_finite(fields.get('tokens')) and fields['tokens'] > 0:
    mean += f' ({text(fields["tokens"])} tokens)'
  edges = document.get('gates') == 'edges'
  removed = 'a removed edge carries' if edges else 'a removed node is held at'
  told = ', or '.join(value.format(mean=mean) for value in values)
  if len(values) > 1:
    told += ' (numbers are of the first, where nothing else is said)'
  if fields.get('closed'):
    told += '; so it is wherever it is read'
  return f'{removed} {told}'


def _kinds(document: Mapping[str, Any]) -> list[str]:
  """Returns the ablations of a circuit, the first of which it is shown in."""
  kind = section(document, 'ablation').get('kind')
  return [name.strip() for name in str(kind).split(',')] if kind else []


def mean_of_node(document: Mapping[str, Any]) -> str:
  """Returns what the number is that is stored as the mean of a node."""
  kinds = _kinds(document)
  if kinds and kinds[0] in _OF_OTHER_PROMPTS:
    return 'mean (ablated, it takes its value on another prompt)'
  if kinds[:1] == ['subsets']:
    return 'when ablated, half of the time'
  return 'when ablated'


def whose_activations(document: Mapping[str, Any]) -> str:
  """Returns what the stored activations are of."""
  if 'activation' in section(document, 'formula'):
    return 'in the circuit, everything else ablated'
  # Until circuits said it, they held those of the full model.
  return 'in the full model, nothing ablated, unlike the percentages'


def search_loss(document: Mapping[str, Any]) -> str:
  """Returns what the loss is that gates were learned with."""
  share = section(document, 'prune_config').get('kl_weight')
  if not is_finite(share) or not share:
    return 'Task loss'
  return 'KL' if share == 1 else f'{1 - share:g} task loss + {share:g} KL'


def target(document: Mapping[str, Any]) -> str:
  """Returns the target of a circuit; nothing where it had none."""
  fields = section(document, 'prune_config')
  if not is_finite(fields.get('target_loss')):
    return ''
  name = 'test_kl' if fields.get('target_on') == 'kl' else 'test_loss'
  return f'{name} at most {fields["target_loss"]}'


def text(value: Any) -> str:
  """Returns a value as a person would write it."""
  if isinstance(value, Mapping):
    return ', '.join(f'{key}: {text(item)}' for key, item in value.items())
  if isinstance(value, list | tuple):
    return ', '.join(map(text, value))
  if isinstance(value, str | bool | None):
    return str(value)
  return f'{value:,}' if isinstance(value, int) else f'{value:.4g}'


def _distinct(values: Iterable[Any]) -> list[str]:
  return sorted({text(value) for value in values if value is not None})
