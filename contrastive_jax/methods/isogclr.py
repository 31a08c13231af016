"""SogCLR and iSogCLR: a moving average, and a temperature, per example."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.methods import memory
from contrastive_jax.methods.method import Method, Paper, Result, Slot

PAPER = Paper(
  title='Not All Semantics are Created Equal: Contrastive Self-supervised Learning with Automatic '
  'Temperature Individualization',
  url='https://arxiv.org/abs/2305.11965',
  says='temperatures per example, by robust optimization, gain most on imbalanced data',
  grade='V',
  number=26,
)
SOGCLR = Paper(
  title='Provable Stochastic Optimization for Global Contrastive Learning: Small Batch Does Not '
  'Harm Performance',
  url='https://arxiv.org/abs/2202.12387',
  says='a moving average per example makes small batches as good as large ones',
  grade='P',
)


def isogclr(
  *,
  views: bool = False,
  temperature: float = 0.01,
  bounds: tuple[float, float] = (0.005, 0.05),
  rho: float = 6.0,
  gamma: float = 0.8,
  learning_rate: float = 0.03,
  beta: float = 0.9,
  clip: float = 5.0,
  mesh: jax.sharding.Mesh | None = None,
) -> Method:
  """ISogCLR [1]: each example's contrast is a robust objective with a temperature of its own.

      F = mean( τ_i log mean_j exp(h_ij / τ_i) + τ_i ρ ),   h_ij = a_i·z_j − a_i·p_i

  over the negatives z_j of an anchor a_i with the positive p_i. The inner mean is followed by a
  moving average per example, and the loss has the gradient of the surrogate

      mean_j w_ij h_ij,   w_ij = exp(h_ij / τ_i) / s_i
      s_i ← (1 − γ) s_i + γ mean_j exp(h_ij / τ_i)

  with w constant; τ_i follows a clipped gradient descent with momentum. Rows of one example in a
  batch are merged by the mean of log s, τ and u.

  Args:
    views: both sides are views of an image: the anchors of an example share its state, the
      negatives are both views of all other examples, and h is a·z with −a·p beside the surrogate
      (the authors' code for images); otherwise the sides are image and text, each with a state of
      its own and negatives of the other side alone. The authors' values for images are
      temperature 0.07, bounds (0.05, 1.0), learning_rate 1e-3, clip 3.
    temperature: at the start, of every example.
    bounds: of the temperatures.
    rho: ρ; the fixed point has KL(softmax, uniform) = ρ, so it lies within the bounds only where
      ρ < log of the number of negatives.
    gamma: γ, the share of the new mean in the moving average; the first one is taken whole.
    learning_rate: η of the temperatures; 0 for SogCLR [2].
    beta: β of u ← (1 − β) u + β gradient.
    clip: bound of a temperature's gradient.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if a share or a bound is out of range.

  References:
    [1] Qiu et al., https://arxiv.org/abs/2305.11965; formulas as in
      zhqiu/contrastive-learning-iSogCLR: unimodal_exps/losses.py, bimodal_exps/models/losses.py.
    [2] Yuan et al., https://arxiv.org/abs/2202.12387
  """
  _check(temperature, bounds, gamma, beta)
  sides = ('both',) if views else ('first', 'second')

  def slots(sizes):
    def table(value):
      return Slot((sizes.examples,), ('examples',), lambda key: jnp.full(sizes.examples, value))

    start = {'log_mean': -jnp.inf, 'temperature': temperature, 'momentum': 0.0}
    return {f'{side}.{name}': table(value) for side in sides for name, value in start.items()}

  def loss(inputs, heads, own, key):
    own = {name: table[inputs['id']] for name, table in own.items()}
    temperatures = [own[f'{side}.temperature'] for side in sides]
    contrast = _contrast_views if views else _contrast_sides
    terms, writes = [], {'id': inputs['id']}
    for side, (log_new, mean, positive) in zip(
      sides, contrast(inputs, temperatures, mesh), strict=True
    ):
      # An anchor without negatives has no term, and leaves its state as it was.
      counted = log_new > -jnp.inf
      log_new = jnp.where(counted, log_new, 0.0)
      new = jax.lax.stop_gradient(log_new)
      old, tau = own[f'{side}.log_mean'], own[f'{side}.temperature']
      log_mean = jnp.logaddexp(jnp.log1p(-gamma) + old, jnp.log(gamma) + new)
      log_mean = jnp.where(old == -jnp.inf, new, log_mean)
      # The ratio is the mean of w, and has the gradient of the surrogate over τ.
      ratio = jnp.exp(log_new - log_mean)
      terms.append(jnp.mean(jnp.where(counted, tau * ratio - positive, 0.0)))
      slope = jnp.clip(log_mean + rho - ratio * mean, -clip, clip)
      momentum = (1 - beta) * own[f'{side}.momentum'] + beta * slope
      moved = {
        'log_mean': log_mean,
        'momentum': momentum,
        'temperature': jnp.clip(tau - learning_rate * momentum, *bounds),
      }
      for name, values in moved.items():
        writes[f'{side}.{name}'] = jnp.where(counted, values, own[f'{side}.{name}'])
    metrics = {'temperature': jnp.mean(jnp.stack(temperatures))}
    return Result(sum(terms) / len(terms), writes, metrics)

  def update(own, writes, heads, step):
    return {
      name: memory.scatter_mean(table, writes['id'], writes[name]) for name, table in own.items()
    }

  return Method(
    reads=('first', 'second', 'id', 'same?'),
    loss=loss,
    memory=slots,
    update=update,
    flops=lambda sizes: (24.0 if views else 8.0) * sizes.batch**2 * sizes.embed,
  )


def _check(temperature, bounds, gamma, beta) -> None:
  if len(bounds) != 2 or not 0 < bounds[0] <= temperature <= bounds[1]:
    raise ValueError(
      f'temperature = {temperature} and bounds = {bounds}; use 0 < low <= temperature <= high'
    )
  for name, share in (('gamma', gamma), ('beta', beta)):
    if not 0 < share <= 1:
      raise ValueError(f'{name} = {share}; use a number in (0, 1]')


def sogclr(*, gamma: float = 0.8, temperature: float = 0.01, views: bool = False, mesh=None):
  """SogCLR: `isogclr` with one constant temperature, see there."""
  return isogclr(
    gamma=gamma,
    temperature=temperature,
    bounds=(temperature, temperature),
    learning_rate=0.0,
    views=views,
    mesh=mesh,
  )


def _contrast_sides(inputs, temperatures, mesh):
  """Per side: log mean exp(h / τ), the mean of h / τ under its softmax, and 0."""
  x, y, same = inputs['first'], inputs['second'], inputs.get('same', inputs['id'])
  scale = tuple(1 / tau for tau in temperatures)
  results = pairwise.expectation(
    x, y, _identity, scale=scale, exclude=same, diagonal=False, mesh=mesh
  )
  positive, negatives = pairwise.paired(x, y), _count_others(same)
  return [
    (total - positive * inverse - jnp.log(negatives), mean - positive * inverse, 0.0)
    for inverse, (mean, total) in zip(scale, results, strict=True)
  ]


def _contrast_views(inputs, temperatures, mesh):
  """Of both views: log mean exp(a·z / τ), the mean of a·z / τ under its softmax, and a·p."""
  x, y, scale = inputs['first'], inputs['second'], 1 / temperatures[0]
  options = {'scale': (scale, scale), 'exclude': inputs['id'], 'diagonal': False, 'mesh': mesh}
  means, totals = [], []
  for a, b in ((x, y), (x, x), (y, y)):
    rows, columns = pairwise.expectation(a, b, _identity, **options)
    for mean, total in (rows, columns)[: 1 + (b is not a)]:
      means.append(mean)
      totals.append(total)
  means, totals = jnp.stack(means), jnp.stack(totals)
  log_mean = jax.nn.logsumexp(totals, axis=0) - jnp.log(4 * _count_others(inputs['id']))
  mean = jnp.sum(jax.nn.softmax(totals, axis=0) * means, axis=0)
  return [(log_mean, mean, pairwise.paired(x, y))]


def _identity(scores):
  return scores


def _count_others(ids: jax.Array) -> jax.Array:
  """The number of rows with another integer, [B]; 1 where there is none."""
  ordered = jnp.sort(ids)
  same = jnp.searchsorted(ordered, ids, side='right') - jnp.searchsorted(ordered, ids)
  return jnp.maximum(len(ids) - same, 1)
