"""The training recipe in PyTorch, as someone would write it there.

Only for comparison: nothing else needs torch. The same model (RMSNorm, AbsTopK
at the eight sites, attention with a sink, bigram table), the same update
(gradient over its RMS, Adam, projection, decay) and the same tables of rates
and counts, with what torch offers for each: fused attention, RMSNorm and Adam,
torch.topk for every selection. Tensors have the names and layouts of ours,
kernels (inputs, outputs).

`compiled=True` compiles forward and backward. Selection of weights stays as it
is: its k changes at every step, and there is nothing in it to fuse. Equal
magnitudes at a threshold are kept as torch.topk pleases.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

# By name, since the package and its tests must do without it.
torch = importlib.import_module('torch')
functional = torch.nn.functional


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
  """What is trained, and how.

  Attributes:
    model: fields of `models.GPTConfig` that this knows: n_layer, n_heads,
      d_head, kept ({site: k} of AbsTopK), norm_epsilon, bigram_table, dtype.
    learning_rate: rate per update.
    counts: {tensor: nonzeros per update}; the last entry holds from then on.
    alive: {tensor: (axis, least number of nonzeros along it)}.
    beta1: decay of Adam's first moment.
    beta2: decay of Adam's second moment.
    eps: added to the root of the second moment.
    weight_decay: share of a weight removed per step, times the rate.
  """

  model: Mapping[str, Any]
  learning_rate: Any
  counts: Mapping[str, Any]
  alive: Mapping[str, tuple[int, int]]
  beta1: float
  beta2: float
  eps: float
  weight_decay: float


def abs_topk(x: Any, k: int | None) -> Any:
  """The k largest magnitudes of the last axis; the rest is zero."""
  if k is None:
    return x
  index = x.abs().topk(k, dim=-1, sorted=False).indices
  return torch.zeros_like(x).scatter(-1, index, x.gather(-1, index))


def _linear(params, name, x, dtype):
  kernel = params[f'{name}/kernel'].to(dtype)
  y = x.to(dtype) @ kernel
  bias = params.get(f'{name}/bias')
  return y if bias is None else y + bias.to(dtype)


def _norm(params, name, x, eps):
  scale = params[f'{name}/scale']
  return functional.rms_norm(x.float(), scale.shape, scale, eps)


def _attention(q, k, v, sink):
  """Causal attention; a sink is one more key and value, both zero."""
  if sink is None:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
  batch, heads, time, _ = q.shape
  k, v = (functional.pad(t, (0, 0, 0, 1)) for t in (k, v))
  causal = torch.full((time, time), -torch.inf, device=q.device).triu(1)
  bias = torch.cat(
    [causal.expand(heads, time, time), sink[:, None, None].expand(-1, time, 1)],
    dim=-1,
  )
  bias = bias.to(q.dtype).expand(batch, heads, time, time + 1)
  return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _block(params, name, x, model):
  kept, dtype = model['kept'], model['dtype']
  eps = model['norm_epsilon']
  read = abs_topk(_norm(params, f'{name}/ln_1', x, eps), kept['attn_in'])
  parts = _linear(params, f'{name}/attn/c_attn', read, dtype).chunk(3, dim=-1)
  q, k, v = (
    abs_topk(part, kept[site])
    .unflatten(-1, (model['n_heads'], model['d_head']))
    .transpose(1, 2)
    for site, part in zip(('attn_q', 'attn_k', 'attn_v'), parts, strict=True)
  )
  y = _attention(q, k, v, params.get(f'{name}/attn/sink_logit'))
  y = y.transpose(1, 2).flatten(-2)
  delta = _linear(params, f'{name}/attn/c_proj', y, dtype)
  x = x + abs_topk(delta, kept['attn_out']).float()
  read = abs_topk(_norm(params, f'{name}/ln_2', x, eps), kept['mlp_in'])
  neurons = _linear(params, f'{name}/mlp/c_fc', read, dtype)
  neurons = abs_topk(functional.gelu(neurons), kept['mlp_neuron'])
  delta = _linear(params, f'{name}/mlp/c_proj', neurons, dtype)
  return x + abs_topk(delta, kept['mlp_out']).float()


def loss_of(params: Mapping[str, Any], tokens: Any, model: Mapping) -> Any:
  """Mean cross-entropy, in nats, of each token given those before it."""
  x = functional.embedding(tokens, params['wte/embedding'])
  for layer in range(model['n_layer']):
    x = _block(params, f'h_{layer}', x, model)
  x = _norm(params, 'ln_f', x, model['norm_epsilon'])
  logits = _linear(params, 'lm_head', x, model['dtype']).float()
  if model['bigram_table']:
    table = params['bigram_table']
    rows = functional.embedding(tokens, table)
    last = (tokens == table.shape[0] - 1)[..., None]
    logits = logits + torch.where(last, rows.detach(), rows)
  return functional.cross_entropy(
    logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
  )


class Trainer:
  """Parameters, Adam and the step."""

  def __init__(
    self,
    recipe: Recipe,
    params: Mapping[str, Any],
    device: str = 'cpu',
    compiled: bool = False,
  ):
    """Copies the parameters.

    Args:
      recipe: what is trained.
      params: {name: numpy array, float32}.
      device: 'cpu' or 'cuda'.
      compiled: compile forward and backward.
    """
    self.recipe = recipe
    self.params = {
      name: torch.tensor(value, device=device, requires_grad=True)
      for name, value in params.items()
    }
    model = dict(recipe.model)
    model['dtype'] = getattr(torch, model['dtype'])
    self._adam = torch.optim.Adam(
      self.params.values(),
      betas=(recipe.beta1, recipe.beta2),
      eps=recipe.eps,
      fused=True,
    )
    self._step = 0
    self._loss = lambda tokens: loss_of(self.params, tokens, model)
    if compiled:
      self._loss = torch.compile(self._loss)

  def step(self, tokens: Any) -> Any:
    """One update on (batch, time) int64 tokens; returns the loss before it."""
    self._adam.zero_grad(set_to_none=True)
    loss = self._loss(tokens)
    loss.backward()
    with torch.no_grad():
      self._scale_gradient()
      rate = float(self.recipe.learning_rate[self._step])
      self._adam.param_groups[0]['lr'] = rate
      self._adam.step()
      self._project()
      decayed = [
        p
        for name, p in self.params.items()
        if p.ndim > 1 and name != 'bigram_table'
      ]
      torch._foreach_mul_(decayed, 1 - self.recipe.weight_decay * rate)
    self._step += 1
    return loss.detach()

  def _scale_gradient(self):
    gradients = [p.grad for p in self.params.values()]
    size = sum(g.numel() for g in gradients)
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    torch._foreach_div_(gradients, norm / size**0.5 + 1e-5)

  def _project(self):
    for name, table in self.recipe.counts.items():
      weights = self.params[name]
      magnitude = weights.abs()
      if name in self.recipe.alive:
        axis, least = self.recipe.alive[name]
        index = magnitude.topk(least, dim=axis, sorted=False).indices
        magnitude.scatter_(axis, index, torch.inf)
      count = int(table[min(self._step, len(table) - 1)])
      index = magnitude.flatten().topk(count, sorted=False).indices
      mask = torch.zeros_like(magnitude).flatten()
      mask[index] = 1
      weights.mul_(mask.view_as(weights))
