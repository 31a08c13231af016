"""Linear maps that multiply in the activations' dtype and add up in float32, both ways.

Left to autodiff, a bfloat16 product gives its kernel a bfloat16 gradient. Here every product has a
float32 result, and XLA's CPU backend has fast bfloat16 kernels for these forms alone: the step of a
small CLIP takes about half the time (experiments/throughput).
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
    inputs: size of the trailing axis of the inputs, or a tuple of the sizes of several.
    outputs: the same for the outputs.
    axes: logical axis names of the kernel, those of the inputs first; the bias takes the others.
    deviation: standard deviation of the Gaussian that draws the kernel; the bias begins at zero.
    bias: whether there is one.
    dtype: of the products, and of the outputs; parameters are float32.
    output_dtype: of the outputs, where it differs: float32 keeps the sums of a bfloat16 product.
    rngs: draws the kernel.
  """

  def __init__(
    self, inputs, outputs, axes, deviation, *, bias=True, dtype, output_dtype=None, rngs
  ):
    self.inputs = (inputs,) if isinstance(inputs, int) else tuple(inputs)
    self.outputs = (outputs,) if isinstance(outputs, int) else tuple(outputs)
    self.dtype, self.output_dtype = dtype, output_dtype or dtype
    kernel = deviation * jax.random.normal(rngs.params(), (*self.inputs, *self.outputs))
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


def matmul_precision(dtype) -> lax.Precision:
  """The precision of products of `dtype`.

  Accelerators multiply float32 in bfloat16 or TF32 by default; float32 models do not.
  """
  return lax.Precision.HIGHEST if dtype == jnp.float32 else lax.Precision.DEFAULT


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, dtype=None) -> jax.Array:
  """Maps x [..., C] by kernel [C, D] and bias [D] or None to [..., D].

  The products are in the dtype of x, and the result in `dtype`, by default that of x.
  """
  return _affine(x, kernel, bias, dtype)


def _affine(x, kernel, bias, dtype):
  y = _product(_rows(x), kernel.astype(x.dtype), (1,), (0,))
  y = y if bias is None else y + bias
  return y.astype(dtype or x.dtype).reshape(*x.shape[:-1], kernel.shape[1])


def _affine_forward(x, kernel, bias, dtype):
  # Not `affine`: a policy of rematerialisation has to see the product.
  return _affine(x, kernel, bias, dtype), (x, kernel, bias)


def _affine_backward(dtype, saved, gradient):
  x, kernel, bias = saved
  of_bias = None if bias is None else jnp.sum(_rows(gradient), axis=0, dtype=bias.dtype)
  gradient = gradient.astype(x.dtype)
  of_x = _product(_rows(gradient), kernel.astype(x.dtype), (1,), (1,)).astype(x.dtype)
  of_kernel = _kernel_gradient(x, gradient).astype(kernel.dtype)
  return of_x.reshape(x.shape), of_kernel, of_bias


affine.defvjp(_affine_forward, _affine_backward)


def _kernel_gradient(x, gradient):
  """Σ over the batch of x ⊗ gradient, [C, D] in float32; in the order that a CPU does fastest.

  Not over rows: a contraction of several axes first transposes its left side, which makes bfloat16
  fast, and the narrower side is the cheaper one to transpose. The barrier keeps the transpose out
  of the product: XLA's CPU backend has no bfloat16 product whose result is transposed.
  """
  batch = tuple(range(x.ndim - 1))
  if x.shape[-1] <= gradient.shape[-1]:
    return lax.optimization_barrier(_product(x, gradient, batch, batch))
  return lax.optimization_barrier(_product(gradient, x, batch, batch)).T


def _rows(x):
  return x.reshape(-1, x.shape[-1])


def _product(a, b, a_axes, b_axes):
  """Contracts axes of a with axes of b; the sums and the result are float32."""
  return lax.dot_general(
    a,
    b,
    ((a_axes, b_axes), ((), ())),
    precision=matmul_precision(a.dtype),
    preferred_element_type=jnp.float32,
  )
