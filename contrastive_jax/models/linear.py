"""Linear maps that multiply in the activations' dtype and accumulate in float32, in both passes.

Under autodiff, a bfloat16 product would give its kernel a bfloat16 gradient. Here every product has
a float32 result. XLA's CPU backend has fast bfloat16 kernels only for these forms, which halve the
time of a small CLIP's step (experiments/throughput).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


class Linear(nnx.Module):
  """A linear map between trailing axes.

  Args:
    inputs: size of the trailing axis of the inputs, or a tuple of sizes of several axes.
    outputs: likewise for the outputs.
    axes: logical axis names of the kernel, inputs first; the bias takes those of the outputs.
    std: standard deviation of the kernel's Gaussian initializer; the bias starts at zero.
    bias: whether there is a bias.
    dtype: dtype of the products and the outputs; parameters are float32.
    output_dtype: dtype of the outputs, if different: float32 keeps the sums of bfloat16 products.
    rngs: initializes the kernel.
  """

  def __init__(self, inputs, outputs, axes, std, *, bias=True, dtype, output_dtype=None, rngs):
    self.inputs = (inputs,) if isinstance(inputs, int) else tuple(inputs)
    self.outputs = (outputs,) if isinstance(outputs, int) else tuple(outputs)
    self.dtype, self.output_dtype = dtype, output_dtype or dtype
    kernel = std * jax.random.normal(rngs.params(), (*self.inputs, *self.outputs))
    self.kernel = nnx.Param(kernel, axes=tuple(axes))
    bias_axes = tuple(axes[len(self.inputs) :])
    self.bias = nnx.Param(jnp.zeros(self.outputs), axes=bias_axes) if bias else None

  def __call__(self, x):
    """Maps [..., *inputs] to [..., *outputs]."""
    leading, size = x.shape[: x.ndim - len(self.inputs)], math.prod(self.inputs)
    y = affine(
      x.astype(self.dtype).reshape(*leading, size),
      self.kernel[...].reshape(size, -1),
      None if self.bias is None else self.bias[...].reshape(-1),
      self.output_dtype,
    )
    return y.reshape(*leading, *self.outputs)


def matmul_precision(dtype) -> str:
  """Returns the precision of a model's products of `dtype`.

  That of float32 is `jax.default_matmul_precision`, and exact where none is set: accelerators would
  multiply in bfloat16 or TF32.
  """
  precision = jax.config.jax_default_matmul_precision or 'highest'
  return precision if dtype == jnp.float32 else 'default'


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, dtype=None) -> jax.Array:
  """Maps x [..., C] by kernel [C, D] and bias [D] or None to [..., D].

  The products are in the dtype of x, the result in `dtype`, by default that of x.
  """
  return _affine(x, kernel, bias, dtype)


def _affine(x, kernel, bias, dtype):
  # Rows are not flattened: where a TPU pads them, as [B, 257], that would copy the activations.
  y = _product(x, kernel.astype(x.dtype), (x.ndim - 1,), (0,))
  y = y if bias is None else y + bias
  return y.astype(dtype or x.dtype)


def _affine_forward(x, kernel, bias, dtype):
  # `_affine` instead of `affine`, so that remat policies see the product.
  return _affine(x, kernel, bias, dtype), (x, kernel, bias)


def _affine_backward(dtype, saved, gradient):
  x, kernel, bias = saved
  batch = tuple(range(x.ndim - 1))
  of_bias = None if bias is None else jnp.sum(gradient, axis=batch, dtype=bias.dtype)
  gradient = gradient.astype(x.dtype)
  of_x = _product(gradient, kernel.astype(x.dtype), (x.ndim - 1,), (1,)).astype(x.dtype)
  of_kernel = _kernel_gradient(x, gradient).astype(kernel.dtype)
  return of_x, of_kernel, of_bias


affine.defvjp(_affine_forward, _affine_backward)


def _kernel_gradient(x, gradient):
  """Returns Σ over the batch of x ⊗ gradient, [C, D] in float32, in the order fastest on a CPU.

  Contracting several axes makes XLA transpose the left side first, which makes bfloat16 fast; the
  narrower side is cheaper to transpose. The barrier keeps a transpose of the result out of the
  product: XLA's CPU backend has no such bfloat16 product.
  """
  batch = tuple(range(x.ndim - 1))
  if x.shape[-1] <= gradient.shape[-1]:
    return lax.optimization_barrier(_product(x, gradient, batch, batch))
  return lax.optimization_barrier(_product(gradient, x, batch, batch)).T


def _product(a, b, a_axes, b_axes):
  """Contracts axes of a with axes of b, with a float32 result."""
  return lax.dot_general(
    a,
    b,
    ((a_axes, b_axes), ((), ())),
    precision=matmul_precision(a.dtype),
    preferred_element_type=jnp.float32,
  )
