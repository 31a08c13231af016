"""The objective is data: a weighted sum of losses by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from contrastive_jax import losses

# A method is a pure function and its name here.
LOSSES: dict[str, Callable[..., jax.Array]] = {
  'alignment': losses.alignment,
  'captioning': losses.captioning,
  'captioning_streamed': losses.captioning_streamed,
  'cross_uniformity': losses.cross_uniformity,
  'hard_negative': losses.hard_negative,
  'info_nce': losses.info_nce,
  'nt_xent': losses.nt_xent,
  'reweighted_info_nce': losses.reweighted_info_nce,
  'sigmoid': losses.sigmoid,
  'uniformity': losses.uniformity,
}


class Objective:
  """A weighted sum of losses: `objective(outputs, batch) -> (loss, metrics)`.

  Each loss gets by argument name what it asks for, from the model's outputs, the batch, `mesh` and
  the options; an argument with a default may be absent. Losses of tokens are means over them, and
  so add up over the parts of a batch; the others compare all pairs of it, and take it whole.
  """

  def __init__(
    self,
    weights: Mapping[str, float | Mapping[str, Any]],
    mesh: Mesh | None = None,
    **options,
  ):
    """Checks the names.

    Args:
      weights: the weight of each loss by its name in `LOSSES`; or its `weight` and what it takes
        by keyword, as in {'weight': 1.0, 'scale': 10.0}, rather than from the model or the batch.
        An option of None stands for the loss's own default.
      mesh: the mesh over which the batch is sharded, or None for one device.
      **options: further arguments of all losses, such as `block_size` or `kernel='pallas'`. No
        config gives them: the defaults serve every mesh, and the kernel has not run on an
        accelerator.

    Raises:
      ValueError: if a name or an option is unknown, or a weight is missing. When called, if a loss
        asks for what the model does not give.
    """
    if not weights:
      raise ValueError(f'config.objective is empty; weigh some of {sorted(LOSSES)}')
    for name in weights:
      if name not in LOSSES:
        raise ValueError(f'config.objective.{name} is unknown; use some of {sorted(LOSSES)}')
    self._options = {name: _options(name, given) for name, given in weights.items()}
    self._weights = {name: given.pop('weight') for name, given in self._options.items()}
    self._shared = options | {'mesh': mesh}
    self._of_tokens = [name for name in weights if {'logits', 'hidden'} & _parameters(name).keys()]

  @property
  def of_views(self) -> list[str]:
    """The losses that compare two views of a picture."""
    return [name for name in self._weights if 'second' in _parameters(name)]

  def __call__(self, outputs, batch):
    """The loss of a whole batch, and each loss by name where there are several."""
    return self.join(self.of_tokens(outputs, batch), outputs, batch)

  def count_tokens(self, batch) -> dict[str, jax.Array]:
    """The number of tokens that each loss of tokens is a mean over, by its name."""

    def count(name):
      pad_id = (self._shared | self._options[name]).get('pad_id') or 0
      return losses.count_tokens(_labels(batch), pad_id)

    return {name: count(name) for name in self._of_tokens}

  def of_tokens(
    self, outputs, batch, counts: Mapping[str, jax.Array] | None = None
  ) -> dict[str, jax.Array]:
    """The losses of tokens, by name.

    Args:
      outputs: the model's, for the batch or a part of it.
      batch: that batch or part.
      counts: `count_tokens` of the whole batch, with which the losses of the parts add up to the
        whole's.
    """
    return self._losses(self._of_tokens, outputs, batch, counts or {})

  def join(self, of_tokens: Mapping[str, jax.Array], outputs, batch):
    """The loss and the metrics, given the losses of tokens and the whole batch's embeddings."""
    of_pairs = [name for name in self._weights if name not in self._of_tokens]
    terms = self._losses(of_pairs, outputs, batch, {}) | of_tokens
    loss = sum(weight * terms[name] for name, weight in self._weights.items())
    return loss, {'loss': loss} | ({} if len(terms) == 1 else terms)

  def _losses(self, names, outputs, batch, counts):
    given = vars(outputs) | batch | self._shared
    # The batch's pictures are pixels; the losses' are embeddings.
    given |= {'image': outputs.image, 'text': outputs.text, 'first': outputs.image}
    given |= {'logits': outputs.caption_logits, 'labels': _labels(batch)}

    def loss(name):
      own = {'count': counts.get(name)} | self._options[name]
      return LOSSES[name](**_arguments(name, given | own))

    return {name: loss(name) for name in names}


def _labels(batch):
  return batch['tokens'][:, 1:]


def _parameters(name: str):
  return inspect.signature(LOSSES[name]).parameters


def _options(name: str, given: float | Mapping) -> dict[str, Any]:
  """The weight of a loss, and its own options."""
  if not isinstance(given, Mapping):
    return {'weight': given}
  if 'weight' not in given:
    raise ValueError(f'config.objective.{name} = {dict(given)} has no weight; give it one')
  parameters = _parameters(name).values()
  known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {'mesh'}
  for option in given:
    if option not in known | {'weight'}:
      raise ValueError(
        f'config.objective.{name}.{option} is unknown; use weight and some of {sorted(known)}'
      )
  return dict(given)


def _arguments(name: str, given: Mapping):
  arguments = {}
  for argument, parameter in _parameters(name).items():
    if given.get(argument) is not None:
      arguments[argument] = given[argument]
    elif parameter.default is inspect.Parameter.empty:
      raise ValueError(f'config.objective.{name} needs {argument!r}, which the model does not give')
  return arguments
