"""The state of training, and the two functions that make and advance it.

The step number exists once, in the optimizer's state, so that nothing can
disagree about it after a restart.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from sparse_interp.models import GPT
from sparse_interp.sparsity import statistics
from sparse_interp.training import optimizer as optimizer_lib


class TrainState(NamedTuple):
  """All that a training step changes.

  Attributes:
    params: parameter tree, float32.
    opt_state: state of the optimizer; holds the number of updates made.
  """

  params: Any
  opt_state: Any

  @property
  def step(self) -> Any:
    """Number of updates made so far, int32."""
    return optimizer_lib.step_of(self.opt_state)


def next_token_loss(
  model: GPT, params: Any, tokens: Int[Array, 'batch time']
) -> Float[Array, '']:
  """Mean cross-entropy, in nats, of each token given those before it."""
  logits, _ = model.apply({'params': params}, tokens)
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits[:, :-1].astype(jnp.float32), tokens[:, 1:]
  )
  return losses.mean()


def init_params(model: GPT, key: Array) -> Any:
  """Draws the parameter tree; no shape depends on the tokens shown here."""
  return model.init(key, jnp.zeros((1, 2), jnp.int32))['params']


def make_init(
  model: GPT, optimizer: optax.GradientTransformationExtraArgs
) -> Callable[[Array], TrainState]:
  """Returns init(key) -> TrainState; jit it with `out_shardings`."""

  def init(key: Array) -> TrainState:
    params = init_params(model, key)
    return TrainState(params, optimizer.init(params))

  return init


def make_train_step(
  model: GPT,
  optimizer: optax.GradientTransformationExtraArgs,
  sparse_names: Collection[str] = (),
  regrow_every: int | None = None,
) -> Callable[
  [TrainState, Int[Array, 'batch time']],
  tuple[TrainState, dict[str, Float[Array, '']]],
]:
  """Returns step(state, tokens) -> (state, numbers); jit it with donation.

  Args:
    model: what is trained.
    optimizer: e.g. from `optimizer.make_optimizer`.
    sparse_names: tensors over which the churn of masks is measured.
    regrow_every: only every so many steps, from the first on, do weights of the
      layers that are zero get a gradient, so that they can come back (the idea
      of RigL, arXiv 1911.11134); in between the others alone do, which costs
      less. None: at every step.

  Returns:
    The step. Its numbers are `train_loss`, `gradient_rms` (before scaling)
    and `mask_churn` (share of the nonzeros that were zero before the step).
  """
  sparse_names = tuple(sparse_names)

  def loss_and_gradient(model, params, tokens):
    return jax.value_and_grad(
      lambda params: next_token_loss(model, params, tokens)
    )(params)

  dense = functools.partial(loss_and_gradient, model)
  kept = functools.partial(
    loss_and_gradient,
    model.clone(
      products=dataclasses.replace(model.products, kept_gradient=True)
    ),
  )

  def step(
    state: TrainState, tokens: Int[Array, 'batch time']
  ) -> tuple[TrainState, dict[str, Float[Array, '']]]:
    if regrow_every is None:
      loss, gradient = dense(state.params, tokens)
    else:
      regrows = state.step % regrow_every == 0
      loss, gradient = jax.lax.cond(regrows, dense, kept, state.params, tokens)
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params, step=state.step
    )
    params = optax.apply_updates(state.params, updates)
    numbers = {
      'train_loss': loss,
      'gradient_rms': optimizer_lib.root_mean_square(gradient),
      'mask_churn': statistics.mask_churn(state.params, params, sparse_names),
    }
    return TrainState(params, opt_state), numbers

  return step
