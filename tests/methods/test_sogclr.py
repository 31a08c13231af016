import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import losses
from contrastive_jax.methods.method import Sizes
from contrastive_jax.methods.sogclr import SogClr
from tests.losses import reference

B, D, N = 6, 8, 1024
Z = reference.unit(np.random.default_rng(0), B, D)
IDS = jnp.array([3, 1, 4, 15, 9, 2])


def test_sogclr_at_gamma_one_has_the_gradient_of_decoupled_learning():
  """τ times that of DCL, whose mean over negatives is a sum: a constant apart."""
  tau = 0.5
  method = SogClr(gamma=1.0, temperature=tau, views=True)

  slots = method.memory(Sizes(batch=B, embed=D, examples=N))
  memory = {name: slot.init(jax.random.key(0)) for name, slot in slots.items()}

  def surrogate(x, y):
    return method.loss({'first': x, 'second': y, 'id': IDS}, {}, memory, None).loss

  def decoupled(x, y):
    return tau * losses.decoupled(x, y, scale=1 / tau)

  # DCL takes the log per view, and the moving average is shared: equal where both views are.
  ours, theirs = (jax.jit(jax.grad(loss))(Z, Z) for loss in (surrogate, decoupled))
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
