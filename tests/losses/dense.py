"""The losses from whole matrices of scores, written out: in float64 under jax.enable_x64.

Losses of pairs and views give one value per example.
"""

import jax
import jax.numpy as jnp


def pair_scores(image, text, scale, same=None, bias=0.0):
  """Scores [B, B], and which pairs count."""
  scores = scale * image @ text.T + bias
  counts = jnp.ones_like(scores, bool)
  if same is not None:
    counts = (same[:, None] != same) | jnp.eye(len(scores), dtype=bool)
  return scores, counts


def alignment(image, text):
  return jnp.sum((image - text) ** 2, 1)


def barlow_twins(first, second, off_diagonal=5e-3):
  x, y = ((v - jnp.mean(v, 0)) / jnp.sqrt(jnp.var(v, 0) + 1e-5) for v in (first, second))
  squares = jnp.square(x.T @ y / len(x) - jnp.eye(x.shape[1]))
  return jnp.sum(jnp.where(jnp.eye(len(squares), dtype=bool), 1.0, off_diagonal) * squares)


def cosine(prediction, target):
  target = jax.lax.stop_gradient(target)
  cosines = jnp.sum(prediction * target, 1)
  return 2 - 2 * cosines / jnp.linalg.norm(prediction, axis=1) / jnp.linalg.norm(target, axis=1)


def info_nce(image, text, scale, same=None):
  scores, counts = pair_scores(image, text, scale, same)
  scores = jnp.where(counts, scores, -jnp.inf)
  rows, columns = (jax.nn.log_softmax(scores, axis) for axis in (1, 0))
  return -(jnp.diagonal(rows) + jnp.diagonal(columns)) / 2


def sinkhorn(scores, iterations=3):
  """Assigns rows to columns: columns and rows are normalized in turn."""
  assigned = jnp.exp(scores)
  for _ in range(iterations):
    assigned /= jnp.sum(assigned, 0, keepdims=True)
    assigned /= jnp.sum(assigned, 1, keepdims=True)
  return assigned


def swapped_assignment(image, text, image_target, text_target, scale, epsilon=0.05, iterations=3):
  scores = scale * image @ text.T
  targets = jax.lax.stop_gradient(image_target @ text_target.T / epsilon)
  one_way = [
    -jnp.sum(sinkhorn(goals, iterations) * jax.nn.log_softmax(logits), 1)
    for logits, goals in ((scores, targets), (scores.T, targets.T))
  ]
  return (one_way[0] + one_way[1]) / 2


def swav(views, prototypes, scale, assigned=2, epsilon=0.05, iterations=3):
  scores = jnp.einsum('bvd,kd->vbk', views, prototypes)
  logs, found = jax.nn.log_softmax(scale * scores), []
  for own in range(assigned):
    goals = sinkhorn(jax.lax.stop_gradient(scores[own]) / epsilon, iterations)
    found += [-jnp.sum(goals * logs[v], 1) for v in range(len(logs)) if v != own]
  return sum(found) / len(found)


def vicreg(first, second, invariance=25.0, variance=25.0, covariance=1.0):
  loss = invariance * jnp.mean((first - second) ** 2)
  for view in (first, second):
    C = jnp.cov(view.T)
    deviations = jnp.sqrt(jnp.diagonal(C) + 1e-4)
    loss += variance * jnp.mean(jnp.maximum(0, 1 - deviations)) / 2
    loss += covariance * jnp.sum(jnp.where(jnp.eye(len(C), dtype=bool), 0, C) ** 2) / len(C)
  return loss


def hard_negative(image, text, scale, k=64, hard_fraction=None, same=None):
  """With all pairs as candidates, a fraction of a whole number of negatives."""
  k = k if hard_fraction is None else round(hard_fraction * (len(image) - 1))
  scores, counts = pair_scores(image, text, scale, same)
  own = jnp.eye(len(scores), dtype=bool)
  negatives = jnp.where(counts & ~own, scores, -jnp.inf)
  positive = jnp.diagonal(scores)[:, None]
  one_way = []
  for rows in (negatives, negatives.T):
    hardest = jnp.sort(rows, 1)[:, -min(k, len(rows)) :]
    candidates = jnp.concatenate([positive, hardest], 1)
    one_way.append(-jax.nn.log_softmax(candidates, 1)[:, 0])
  return (one_way[0] + one_way[1]) / 2


def volumes(anchor, *others):
  """[B, B] volumes of the anchor of row i and the others of row j."""
  corner = jnp.sum(anchor**2, 1)[:, None]
  edges = [anchor @ other.T for other in others]
  inner = [[jnp.sum(x * y, 1)[None] for y in others] for x in others]
  rows = [[edge, *row] for edge, row in zip(edges, inner, strict=True)]
  return jnp.sqrt(jnp.maximum(determinant([[corner, *edges], *rows]), 0) + 1e-7)


def determinant(rows):
  """Along the first row, of a list of lists of arrays that broadcast."""
  if not rows:
    return 1.0
  minors = [[row[:n] + row[n + 1 :] for row in rows[1:]] for n in range(len(rows))]
  return sum((-1) ** n * rows[0][n] * determinant(minor) for n, minor in enumerate(minors))


def volume(*vectors):
  stacked = jnp.stack(vectors, 1)
  return jnp.sqrt(jnp.maximum(jnp.linalg.det(stacked @ jnp.swapaxes(stacked, 1, 2)), 0) + 1e-7)


def gram(anchor, *others, scale, same=None, label_smoothing=0.1):
  counts = pair_scores(anchor, anchor, scale, same)[1]
  scores = -scale * volumes(anchor, *others)
  losses = []
  for logits, count in ((scores, counts), (scores.T, counts.T)):
    log_probability = jax.nn.log_softmax(jnp.where(count, logits, -jnp.inf), 1)
    spread = jnp.sum(jnp.where(count, log_probability, 0.0), 1) / jnp.sum(count, 1)
    own = jnp.diagonal(log_probability)
    losses.append(-(1 - label_smoothing) * own - label_smoothing * spread)
  return (losses[0] + losses[1]) / 2


def debiased_info_nce(image, text, scale, prior, beta, same=None):
  scores, counts = pair_scores(image, text, scale, same)
  counts &= ~jnp.eye(len(scores), dtype=bool)
  positive = jnp.exp(jnp.diagonal(scores))
  losses = 0.0
  for rows in (scores, scores.T):
    hard = jnp.where(counts, jnp.exp(beta * rows), 0.0)
    mean = jnp.sum(hard * jnp.exp(rows), 1) / jnp.sum(hard, 1)
    true = jnp.maximum((mean - prior * positive) / (1 - prior), jnp.exp(-scale))
    losses += jnp.log1p(jnp.sum(counts, 1) * true / positive) / 2
  return losses


def soft_target_info_nce(image, text, scale, alpha=1.0, targets=None, target_scale=None, same=None):
  """By default the targets are the texts."""
  scores, counts = pair_scores(image, text, scale, same)
  if targets is None:
    targets, target_scale = jax.lax.stop_gradient((text, scale))
  soft, _ = pair_scores(targets, targets, target_scale)
  wanted = alpha * jax.nn.softmax(jnp.where(counts, soft, -jnp.inf), 1)
  wanted += (1 - alpha) * jnp.eye(len(scores))
  one_way = [
    -jnp.sum(jnp.where(counts, wanted * jax.nn.log_softmax(rows, 1), 0.0), 1)
    for rows in (jnp.where(counts, scores, -1e9), jnp.where(counts, scores.T, -1e9))
  ]
  return (one_way[0] + one_way[1]) / 2


def mim_contrast(latents, scale=10.0):
  z = latents / jnp.linalg.norm(latents, axis=1, keepdims=True)
  others = ~jnp.eye(len(z), dtype=bool)
  negative = jnp.sum(jnp.where(others, jnp.exp(scale * z @ z.T), 0.0), 1) / (len(z) - 1)
  return jnp.log1p(negative * jnp.exp(-scale))


def mim_densities(latents, mean, log_scale, divide='none'):
  encoder = jax.scipy.stats.norm.logpdf(latents, mean, jnp.exp(log_scale))
  total = -jnp.sum(encoder + jax.scipy.stats.norm.logpdf(latents), 1) / 2
  return total / latents.shape[1] if divide == 'value' else total


def mixup_targets(partner, share):
  """[B, B]: the shares of each row's example and of its partner, added."""
  own = jnp.eye(len(share))
  return share[:, None] * own + (1 - share)[:, None] * own[partner]


def mixup_info_nce(mixed, other, partner, share, scale):
  targets = mixup_targets(partner, share)
  scores = scale * mixed @ other.T
  one_way = [
    -jnp.sum(wanted * jax.nn.log_softmax(rows, 1), 1)
    for rows, wanted in ((scores, targets), (scores.T, targets.T))
  ]
  return (one_way[0] + one_way[1]) / 2


def composition_aware(image, text, negatives, scale, valid=None, same=None):
  scores, counts = pair_scores(image, text, scale, same)
  scores = jnp.where(counts, scores, -jnp.inf)
  wrong = scale * jnp.einsum('id,ikd->ik', image, negatives)
  wrong = wrong if valid is None else jnp.where(valid, wrong, -jnp.inf)
  rows = jax.nn.log_softmax(jnp.concatenate([scores, wrong], 1), 1)
  columns = jax.nn.log_softmax(scores, 0)
  return -(jnp.diagonal(rows) + jnp.diagonal(columns)) / 2


def modular(image, texts, negatives, scale, valid=None, same=None):
  size, count, _ = texts.shape
  if same is None:
    same = jnp.arange(size * count).reshape(size, count)
  scores = scale * jnp.einsum('id,jpd->ijp', image, texts)
  alike = (same[:, None] == same) & ~jnp.eye(size, dtype=bool)[..., None]
  right = jnp.einsum('iip->ip', scores)
  scores = jnp.where(alike, -jnp.inf, scores)
  earlier = [jnp.any(same[:, :p] == same[:, p : p + 1], 1) for p in range(count)]
  own = jnp.where(jnp.stack(earlier, 1), -jnp.inf, right)
  wrong = scale * jnp.einsum('id,ikd->ik', image, negatives)
  wrong = wrong if valid is None else jnp.where(valid, wrong, -jnp.inf)
  candidates = jnp.concatenate([scores[:, :, 0], own[:, 1:], wrong], 1)
  to_text = jax.nn.logsumexp(candidates, 1)[:, None] - right
  to_image = jax.nn.logsumexp(scores, 0) - right
  found = jnp.isfinite(own)
  to_text, to_image = (jnp.sum(jnp.where(found, way, 0.0), 1) for way in (to_text, to_image))
  return (to_text / jnp.sum(found, 1) + to_image * size / jnp.sum(found)) / 2


def sigmoid(image, text, scale, bias, same=None):
  scores, counts = pair_scores(image, text, scale, same, bias)
  signs = 2 * jnp.eye(len(scores)) - 1
  return jnp.sum(jnp.where(counts, -jax.nn.log_sigmoid(signs * scores), 0.0), 1)


def reweighted_info_nce(image, text, scale, same=None):
  """With linupper and a temperature of 1."""
  losses = info_nce(image, text, scale, same)
  fixed = jax.lax.stop_gradient(losses)
  h = 2 * (fixed - fixed.min()) / (fixed.max() - fixed.min()) - 1
  return len(losses) * jax.nn.softmax(jnp.minimum(h + 1, 1)) * losses


def of_teachers(teacher_image, teacher_text, teacher_scale, same=None):
  """The mean softmax of each row, and of each column, of one teacher or a tuple."""
  if not isinstance(teacher_image, tuple):
    teacher_image, teacher_text = (teacher_image,), (teacher_text,)
    teacher_scale = (teacher_scale,)
  found = []
  for each in zip(teacher_image, teacher_text, teacher_scale, strict=True):
    scores, counts = pair_scores(*each, same)
    scores = jnp.where(counts, scores, -jnp.inf)
    found.append(jnp.stack([jax.nn.softmax(scores, 1), jax.nn.softmax(scores.T, 1)]))
  return jax.lax.stop_gradient(sum(found) / len(found))


def distillation(image, text, teacher_image, teacher_text, scale, teacher_scale, same=None):
  aims = of_teachers(teacher_image, teacher_text, teacher_scale, same)
  scores, counts = pair_scores(image, text, scale, same)
  logits = jnp.stack([scores, scores.T])
  totals = jax.nn.logsumexp(jnp.where(counts, logits, -jnp.inf), -1)
  return jnp.mean(totals - jnp.sum(aims * logits, -1), 0)


def teacher_entropy(teacher_image, teacher_text, teacher_scale):
  aims = of_teachers(teacher_image, teacher_text, teacher_scale)
  return jnp.mean(-jnp.sum(jax.scipy.special.xlogy(aims, aims), -1))


def interactive_distillation(image, text, teacher_image, teacher_text, scale, same=None):
  losses = []
  for anchors, others in ((image, teacher_text), (text, teacher_image)):
    scores, counts = pair_scores(anchors, jax.lax.stop_gradient(others), scale, same)
    logits = jax.nn.log_softmax(jnp.where(counts, scores, -jnp.inf), 1)
    losses.append(-jnp.diagonal(logits))
  return (losses[0] + losses[1]) / 2


def dynamic_distillation(
  image, text, teacher_image, teacher_text, scale, teacher_scale, k, alpha=0.2, same=None
):
  student, counts = pair_scores(image, text, scale, same)
  teacher = teacher_scale * teacher_image @ teacher_text.T
  teacher = jax.lax.stop_gradient(jnp.where(counts, teacher, -jnp.inf))
  B, own = len(image), jnp.eye(len(image), dtype=bool)
  hardest = jnp.argsort(jnp.where(own, jnp.inf, teacher), 1)[:, ::-1][:, : k + 1]
  teacher, student = (jnp.take_along_axis(scores, hardest, 1) for scores in (teacher, student))
  probability = jax.nn.softmax(teacher, 1)
  entropy = -jnp.sum(jax.scipy.special.xlogy(probability, probability), 1)
  share = entropy / jnp.sum(entropy)
  aims = jnp.take_along_axis(own, hardest, 1)
  task = -jnp.mean(jax.nn.log_sigmoid(jnp.where(aims, student, -student)), 1)
  distance = jnp.mean((student - teacher) ** 2, 1)
  of_distance = jax.nn.softmax((1 - share) ** 2)
  return B * (alpha * of_distance * distance + (1 - alpha) * share * task)


def cross_uniformity(image, text, sharpness=2.0):
  """Of unit vectors, whose squared distance is 2 − 2 x · y."""
  squares = 2 - 2 * image @ text.T
  others = ~jnp.eye(len(image), dtype=bool)
  return jnp.log(jnp.mean(jnp.exp(-sharpness * squares), where=others))


def uniformity(image, text, sharpness=2.0):
  within = cross_uniformity(image, image, sharpness), cross_uniformity(text, text, sharpness)
  return (within[0] + within[1]) / 2


def view_logits(first, second, scale):
  """[2B, 2B] logits of all views with themselves left out, and the positive of each anchor."""
  views = jnp.concatenate([first, second])
  scores = scale * views @ views.T
  positive = jnp.diagonal(jnp.roll(scores, len(first), 1))
  return jnp.where(jnp.eye(len(views), dtype=bool), -jnp.inf, scores), positive


def nt_xent(first, second, scale):
  logits, positive = view_logits(first, second, scale)
  return jnp.mean((jax.nn.logsumexp(logits, 1) - positive).reshape(2, -1), 0)


def decoupled(first, second, scale, sigma=None):
  logits, positive = view_logits(first, second, scale)
  size = len(first)
  own = jnp.tile(jnp.eye(size, dtype=bool), (2, 2))
  weights = 1.0
  if sigma is not None:
    ratios = jnp.exp(jnp.sum(first * second, 1) / sigma)
    weights = jnp.tile(2 - ratios / jnp.mean(ratios), 2)
  losses = jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), 1) - weights * positive
  return jnp.mean(losses.reshape(2, size), 0)


def hard_contrastive(first, second, scale, hard_fraction):
  """With a fraction of a whole number of negatives."""
  logits, positive = view_logits(first, second, scale)
  own = jnp.tile(jnp.eye(len(first), dtype=bool), (2, 2))
  negatives = jnp.sort(jnp.where(own, -jnp.inf, logits), 1)
  hard = negatives[:, len(negatives) - round(hard_fraction * (len(negatives) - 2)) :]
  losses = jax.nn.logsumexp(jnp.concatenate([positive[:, None], hard], 1), 1) - positive
  return jnp.mean(losses.reshape(2, -1), 0)


def all_scores(views, scale):
  """[B, V, B, V]"""
  return scale * jnp.einsum('ivd,jwd->ivjw', views, views)


def own_scores(views, scale):
  """[B, V, V], and which are of two different views."""
  return scale * jnp.einsum('ivd,iwd->ivw', views, views), ~jnp.eye(views.shape[1], dtype=bool)


def mv_info_nce(views, scale, cross_view=False):
  B, V, _ = views.shape
  own, others = own_scores(views, scale)
  counts = ~jnp.eye(B * V, dtype=bool).reshape(B, V, B, V)
  if cross_view:
    counts &= others[:, None]
  total = jnp.sum(jnp.exp(all_scores(views, scale)), (1, 2, 3), where=counts)
  return jnp.log(total / jnp.sum(jnp.exp(own), (1, 2), where=others))


def mv_dhel(views, scale):
  own, _ = own_scores(views, scale)
  positive = jnp.sum(jnp.triu(jnp.exp(own), 1), (1, 2))
  exponentials = jnp.exp(scale * jnp.einsum('ivd,jvd->vij', views, views))
  negatives = jnp.sum(exponentials, 2, where=~jnp.eye(len(views), dtype=bool))
  return jnp.sum(jnp.log(negatives), 0) - jnp.log(positive)


def pairwise_nt_xent(views, scale):
  V = views.shape[1]
  pairs = [(v, w) for v in range(V) for w in range(v)]
  return sum(jnp.mean(nt_xent(views[:, v], views[:, w], scale)) for v, w in pairs) / len(pairs)


def averaged_nt_xent(views, scale):
  V = views.shape[1]
  others = [sum(views[:, w] for w in range(V) if w != v) / (V - 1) for v in range(V)]
  return sum(jnp.mean(nt_xent(views[:, v], others[v], scale)) for v in range(V)) / V


def poly_view(views, scale, mean='geometric'):
  own, others = own_scores(views, scale)
  negative = ~jnp.eye(len(views), dtype=bool)[:, None, :, None]
  rest = jnp.sum(jnp.exp(all_scores(views, scale)), (2, 3), where=negative)
  probability = jnp.exp(own) / (jnp.exp(own) + rest[..., None])
  if mean == 'geometric':
    return -jnp.mean(jnp.log(probability), where=others)
  return -jnp.mean(jnp.log(jnp.mean(probability, 2, where=others)))


def cacr(views, alpha=1.0, beta=1.0, tau_pos=1.0, tau_neg=0.9, tau_plus=0.0, stop_weights=False):
  """Of unit vectors, whose squared distance is 2 − 2 x · y."""
  stopped = jax.lax.stop_gradient if stop_weights else lambda a: a
  B, V, _ = views.shape
  own, others = own_scores(views, 1)
  own = 2 - 2 * own
  weights = jax.nn.softmax(jnp.where(others, stopped(tau_pos * own), -jnp.inf), 2)
  attraction = alpha * jnp.mean(jnp.sum(weights * own, 2), 1)
  repulsion, pairs = 0.0, [(v, w) for w in range(V) for v in range(w)]
  for v, w in pairs:
    squares = 2 - 2 * views[:, v] @ views[:, w].T
    logits = jnp.where(jnp.eye(B, dtype=bool), -jnp.inf, -tau_neg * stopped(squares))
    one = -beta * jnp.sum(jax.nn.softmax(logits, 1) * squares, 1)
    repulsion += (one - tau_plus * own[:, v, w]) / (1 - tau_plus) / len(pairs)
  return attraction + repulsion


def adaptive_temperature(products, bounds):
  return bounds[0] + (bounds[1] - bounds[0]) / (1 + jnp.exp(products))


def adaptive_contrast(anchors, positives, candidates, counts, k, beta, bounds):
  """Of pairs of vectors and φ; `counts` are the negatives of each anchor [N, M]."""
  scores = jnp.where(counts, anchors[0] @ candidates[0].T, -jnp.inf)
  tau = adaptive_temperature(anchors[1] @ candidates[1].T, bounds)
  hardest = jnp.argsort(-scores, 1)[:, :k]
  scores, tau = (jnp.take_along_axis(a, hardest, 1) for a in (scores, tau))
  similarity = jnp.sum(anchors[0] * positives[0], 1)
  own = adaptive_temperature(jnp.sum(anchors[1] * positives[1], 1), bounds)
  regularizer = anchors[0].shape[1] / 2 * jnp.log(own) + 1 / own
  regularizer -= jnp.sum(jnp.log(tau) + 1 / tau, 1)
  return -similarity / own + jnp.mean(scores / tau, 1) + beta * regularizer, own, tau


def adaptive_barlow_twins(first, second, phi, off_diagonal, beta, bounds):
  """The loss, and the temperatures of all pairs of features."""
  correlations = first.T @ second / len(first)
  tau = adaptive_temperature(phi(first.T) @ phi(second.T).T, bounds)
  omega = len(tau) / 2 * jnp.log(tau) + 1 / tau
  own = jnp.eye(len(tau), dtype=bool)
  positive = (1 - correlations) ** 2 / tau + beta * omega
  negative = off_diagonal * correlations**2 / tau - beta * omega
  return jnp.sum(jnp.where(own, positive, negative)), tau


def groco(views, k=10, steepness=1.0):
  """By comparisons one after the other, and binary cross entropies of both groups."""
  B, V, _ = views.shape
  cosines = jnp.einsum('ivd,jwd->vijw', views, jax.lax.stop_gradient(views))
  negatives, positives = [], []
  for v in range(V):
    others = jnp.where(jnp.eye(B, dtype=bool), -jnp.inf, cosines[v, :, :, v])
    negatives.append(jnp.sort(others)[:, B - k :])
    own = [jnp.diagonal(cosines[v, :, :, w]) for w in range(V) if w != v]
    positives.append(jnp.sort(jnp.stack(own, 1)))
  scores = jnp.concatenate([jnp.concatenate(negatives), jnp.concatenate(positives)], 1)
  permutation = soft_permutation(scores, steepness)
  of_positives, of_negatives = permutation[:, :, k:].sum(2), permutation[:, :, :k].sum(2)
  goals = jnp.arange(k + V - 1) >= k
  entropies = jnp.where(goals, jnp.log(of_positives), jnp.log(1 - of_positives))
  entropies += jnp.where(goals, jnp.log(1 - of_negatives), jnp.log(of_negatives))
  return -jnp.mean((entropies / 2).reshape(V, B, -1), (0, 2))


def soft_permutation(scores, steepness):
  """[B, n, n] of [B, n], comparison by comparison."""
  scores = jnp.asarray(scores)
  B, n = scores.shape
  permutation = jnp.broadcast_to(jnp.eye(n), (B, n, n))
  for layer in range(n):
    for low in range(layer % 2, n - 1, 2):
      a, b = scores[:, low], scores[:, low + 1]
      alpha = (jnp.arctan(steepness * (b - a)) / jnp.pi + 0.5)[:, None]
      exchange = jnp.concatenate([alpha, 1 - alpha, 1 - alpha, alpha], 1).reshape(B, 2, 2)
      pair = slice(low, low + 2)
      scores = scores.at[:, pair].set(jnp.einsum('bp,bpq->bq', scores[:, pair], exchange))
      mixed = jnp.einsum('bip,bpq->biq', permutation[:, :, pair], exchange)
      permutation = permutation.at[:, :, pair].set(mixed)
  return permutation


def pixel_cosines(prediction, target):
  x, k = (each / jnp.linalg.norm(each, axis=-1, keepdims=True) for each in (prediction, target))
  return jnp.einsum('bid,bjd->bij', x, jax.lax.stop_gradient(k))


def pixpro(prediction, target, positive):
  cosines = pixel_cosines(prediction, target)
  return -2 * jnp.sum(cosines * positive, (1, 2)) / (jnp.sum(positive, (1, 2)) + 1e-6)


def pix_contrast(prediction, target, positive, scale):
  weights = jnp.exp(scale * pixel_cosines(prediction, target))
  share = jnp.sum(weights * positive, -1) / jnp.sum(weights, -1)
  matched = jnp.any(positive, -1)
  losses = jnp.where(matched, -jnp.log(jnp.where(matched, share, 1.0)), 0.0)
  return jnp.sum(losses, -1) / jnp.maximum(jnp.sum(matched, -1), 1)


def pcr(embeddings, classes, proxies, scale):
  """A supervised contrastive loss in which the candidates are a proxy per example."""
  log_probability = jax.nn.log_softmax(scale * embeddings @ proxies[classes].T, 1)
  positive = classes[:, None] == classes
  return -jnp.sum(jnp.where(positive, log_probability, 0.0), 1) / jnp.sum(positive, 1)


def hpcr(embeddings, classes, proxies, scale):
  """With pairs of examples."""
  anchors = jnp.concatenate([embeddings, proxies[classes]])
  return supervised(anchors, jnp.concatenate([classes, classes]), scale)


def mrl(logits, mixed, shares):
  excess = jnp.max(mixed, -1) - jnp.max(logits, -1) + 2
  return jnp.mean(jnp.where(shares < 1, jnp.maximum(0, excess), 0))


def m_ndcg(logits, mixed, shares):
  """By a sort per example."""
  confidences = jnp.max(jax.nn.softmax(jnp.concatenate([logits[None], mixed]), -1), -1)
  first = jnp.ones_like(shares[:1])
  order = jnp.argsort(-jnp.concatenate([first + 1, shares]), 0)  # the example itself is first
  discounts = 1 / jnp.log2(jnp.arange(len(order)) + 2)[:, None]
  gains = [
    jnp.sum(discounts * jnp.take_along_axis(each, order, 0), 0)
    for each in (confidences, jnp.concatenate([first, shares]))
  ]
  return 1 - jnp.mean(jnp.minimum(gains[0] / gains[1], gains[1] / gains[0]))


def patch_errors(predicted, patches):
  patches = jax.lax.stop_gradient(patches)
  spread = jnp.var(patches, -1, ddof=1, keepdims=True) + 1e-6
  aims = (patches - jnp.mean(patches, -1, keepdims=True)) / jnp.sqrt(spread)
  return jnp.mean((predicted - aims) ** 2, -1)


def patch_ranking(predicted, errors):
  larger = errors[:, :, None] > errors[:, None]
  pairs = jnp.log1p(jnp.exp(predicted[:, None] - predicted[:, :, None]))
  return jnp.sum(pairs * larger) / jnp.sum(larger)


def lengths(x):
  return jnp.sqrt(jnp.sum(x**2, -1) + 1e-6)


def proto_triplet(queries, labels, prototypes):
  distances = lengths(queries[:, None] - prototypes)
  own = labels[:, None] == jnp.arange(len(prototypes))
  others = jnp.min(jnp.where(own, jnp.inf, distances), 1)
  return jnp.mean(jnp.maximum(0, jnp.sum(distances * own, 1) - others + 0.5))


def icnn(embeddings, classes, k=4):
  own = jnp.eye(len(embeddings), dtype=bool)
  distances = lengths(embeddings[:, None] - embeddings)
  nearest = jnp.argsort(jnp.where(own, jnp.inf, distances), 1)[:, : k + 1]
  distances = jnp.take_along_axis(distances, nearest, 1)
  same = jnp.asarray(classes)[nearest] == classes[:, None]
  other = jnp.min(jnp.where(same, jnp.inf, distances), 1)
  distances, same = distances[:, :k], same[:, :k]
  relative = distances / (other[:, None] + 1e-7)
  relative /= jnp.maximum(1, jnp.max(relative, 1, keepdims=True))
  within, between = (
    jnp.sum(values * counted, 1) / jnp.maximum(jnp.sum(counted, 1), 1)
    for values, counted in ((relative, same), (distances, ~same))
  )
  within = 1 - jnp.sum(within) / jnp.sum(jnp.any(same, 1))
  between = jnp.sum(between) / jnp.sum(jnp.any(~same, 1)) / (jnp.max(distances * ~same) + 1e-7)
  return -jnp.log(((within + between) / 2 + jnp.mean(same)) / 2)


def tracks(anchors, positives, negatives, positive_valid, negative_valid):
  near, far = (jnp.einsum('id,ind->in', anchors, x) for x in (positives, negatives))
  pairs = jnp.exp(far[:, None] - near[..., None])
  pairs *= positive_valid[..., None] & negative_valid[:, None]
  contrast = jnp.log1p(jnp.sum(pairs, (1, 2)))
  unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
  errors = [
    (jnp.einsum('id,ind->in', unit(anchors), unit(x)) - label) ** 2 * valid
    for x, valid, label in ((positives, positive_valid, 1), (negatives, negative_valid, 0))
  ]
  counts = jnp.sum(positive_valid, 1) + jnp.sum(negative_valid, 1)
  auxiliary = sum(jnp.sum(e, 1) for e in errors) / jnp.maximum(counts, 1)
  items = jnp.any(positive_valid, 1)
  return jnp.sum((2 * contrast + 3 * auxiliary) * items) / jnp.sum(items)


def restoration(features, positives, negatives):
  def cosine(x, y):
    lengths = jnp.linalg.norm(x, axis=-1) * jnp.linalg.norm(y, axis=-1)
    return jnp.mean(jnp.sum(x * y, -1) / lengths, (-2, -1))

  near, far = (cosine(features, jax.lax.stop_gradient(x)) for x in (positives, negatives))
  others = jnp.sum(jnp.exp(far), 0)
  return jnp.mean(-jnp.log(jnp.exp(near) / (jnp.exp(near) + others)))


def supervised(embeddings, classes, scale):
  own = jnp.eye(len(classes), dtype=bool)
  scores = jnp.where(own, -jnp.inf, scale * embeddings @ embeddings.T)
  log_probability = scores - jax.nn.logsumexp(scores, 1)[:, None]
  positive = (classes[:, None] == classes) & ~own
  count = jnp.sum(positive, 1)
  losses = -jnp.sum(jnp.where(positive, log_probability, 0.0), 1) / jnp.maximum(count, 1)
  return losses * len(classes) / jnp.sum(count > 0)


def labels(classes, anchor_classes, share):
  """The labels of pairs [A, N], and which count."""
  if share is None:
    same = anchor_classes[:, None] == classes
    return same.astype(float), jnp.ones_like(same)
  first, second = (anchor_classes[:, None] == classes[:, place] for place in (0, 1))
  return share * first + (1 - share) * second, first | second


def metric_pairs(embeddings, classes, share, anchors, anchor_classes, diagonal=False):
  """Similarities and labels of pairs, and which count."""
  if anchors is None:
    anchors, anchor_classes = embeddings, classes
  y, counts = labels(classes, anchor_classes, share)
  return anchors @ embeddings.T, y, counts & (diagonal | ~jnp.eye(*y.shape, dtype=bool))


def contrastive_margin(
  embeddings, classes, share=None, anchors=None, anchor_classes=None, negative_margin=0.5
):
  s, y, counts = metric_pairs(embeddings, classes, share, anchors, anchor_classes)
  d = jnp.sqrt(jnp.where(counts, 2 - 2 * s, 1.0))
  attract = jnp.where(counts & (y > 0), y * d, 0.0)
  repel = jnp.where(counts & (y < 1), (1 - y) * jax.nn.relu(negative_margin - d), 0.0)
  return len(s) * sum(
    jnp.sum(part, 1) / jnp.maximum(jnp.sum(part > 0), 1) for part in (attract, repel)
  )


def log_sum(scores, weights):
  """log(1 + Σ w exp(scores)) of rows."""
  return jnp.log1p(jnp.sum(jnp.where(weights > 0, weights * jnp.exp(scores), 0.0), 1))


def multi_similarity(
  embeddings, classes, share=None, anchors=None, anchor_classes=None, mining=0.1
):
  s, y, counts = metric_pairs(embeddings, classes, share, anchors, anchor_classes)
  positive, negative = counts & (y > 0), counts & (y < 1)
  if mining is not None and share is None:
    lowest = jnp.min(s, 1, where=positive, initial=jnp.inf)[:, None]
    highest = jnp.max(s, 1, where=negative, initial=-jnp.inf)[:, None]
    positive, negative = positive & (s < highest + mining), negative & (s > lowest - mining)
  attract, repel = (
    log_sum(slope * (s - 0.5), weights)
    for slope, weights in ((-2.0, positive * y), (50.0, negative * (1 - y)))
  )
  return attract / 2 + repel / 50


def proxy_anchor(embeddings, classes, proxies, share=None, scale=32.0, margin=0.1):
  y, counts = labels(classes, jnp.arange(len(proxies)), share)
  s, positive = proxies @ embeddings.T, counts & (y > 0)
  attract = log_sum(-scale * (s - margin), positive * y)
  repel = log_sum(scale * (s + margin), counts * (1 - y))
  return jnp.sum(attract) / jnp.sum(jnp.any(positive, 1)) + jnp.mean(repel)


def captioning(logits, labels, pad_id=0):
  log_probability = jax.nn.log_softmax(logits, -1)
  losses = -jnp.take_along_axis(log_probability, labels[..., None], -1)[..., 0]
  return jnp.mean(losses, where=labels != pad_id)


def captioning_streamed(hidden, vocabulary, labels, pad_id=0):
  return captioning(hidden @ vocabulary.T, labels, pad_id)


def supremix(embeddings, numbers, shares, scale, window=5, weighted=True, unit=1.0):
  """All mixtures, as vectors [B, B, D] and [B, B, B, D]."""
  z, y, N = embeddings, numbers / unit, len(embeddings)
  fixed, shares = jax.lax.stop_gradient((z, shares))
  others = ~jnp.eye(N, dtype=bool)
  distance = jnp.abs(y[:, None] - y)
  rest = 1 - shares[:, None]
  negative = shares[:, None, None] * fixed[:, None] + rest[:, :, None] * fixed
  logits = [scale * z @ z.T, scale * jnp.einsum('id,ikd->ik', z, negative)]
  weights = [1 + weighted * distance, 1 + weighted * rest * distance]
  counts, positive = [others, distance > 0], [others & (distance == 0), jnp.zeros((N, N), bool)]
  if window:
    near = (distance > 0) & (distance <= window)
    below, above = near & (y[:, None] > y), near & (y[:, None] < y)
    anchor, low, high = y[:, None, None], y[:, None], y
    share = (high - anchor) / jnp.where(high == low, 1, high - low)
    mixed = share[..., None] * fixed[:, None] + (1 - share[..., None]) * fixed
    pairs = (below[:, :, None] & above[:, None]).reshape(N, -1)
    logits.append(scale * jnp.einsum('id,ijkd->ijk', z, mixed).reshape(N, -1))
    weights.append(jnp.ones_like(logits[-1]))
    counts.append(pairs)
    positive.append(pairs)
  logits, weights, counts, positive = (
    jnp.concatenate(parts, 1) for parts in (logits, weights, counts, positive)
  )
  number = jnp.sum(positive, 1)
  total = jax.nn.logsumexp(jnp.where(counts, logits + jnp.log(weights), -jnp.inf), 1)
  loss = total - jnp.sum(jnp.where(positive, logits, 0), 1) / jnp.maximum(number, 1)
  return jnp.where(number > 0, loss, 0.0) * N / jnp.sum(number > 0)
