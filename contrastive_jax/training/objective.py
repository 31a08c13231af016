"""The objective is data: a weighted sum of losses by name."""

import inspect
from collections.abc import Callable, Mapping

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
  'sigmoid': losses.sigmoid,
  'uniformity': losses.uniformity,
}


def make_objective(weights: Mapping[str, float], mesh: Mesh | None = None, **options):
  """Combines losses: `objective(outputs, batch) -> (loss, metrics)`.

  Each loss gets by argument name what it asks for, from the model's outputs, the batch, `mesh` and
  the options; an argument with a default may be absent.

  Args:
    weights: the weight of each loss by its name in `LOSSES`.
    mesh: the mesh over which the batch is sharded, or None for one device.
    **options: further arguments, such as `block_size` or `kernel='pallas'`. No config gives them:
      the defaults serve every mesh, and the kernel has not run on an accelerator.

  Raises:
    ValueError: if a name is unknown, or a loss asks for what the model does not give.
  """
  if not weights:
    raise ValueError(f'config.objective is empty; weigh some of {sorted(LOSSES)}')
  for name in weights:
    if name not in LOSSES:
      raise ValueError(f'config.objective.{name} is unknown; use some of {sorted(LOSSES)}')

  def objective(outputs, batch):
    given = vars(outputs) | batch
    # The batch's pictures are pixels; the losses' are embeddings.
    given |= {'image': outputs.image, 'text': outputs.text, 'mesh': mesh} | options
    given |= {'logits': outputs.caption_logits, 'labels': batch['tokens'][:, 1:]}
    terms = {name: LOSSES[name](**_arguments(name, given)) for name in weights}
    loss = sum(weight * terms[name] for name, weight in weights.items())
    return loss, {'loss': loss} | ({} if len(terms) == 1 else terms)

  return objective


def _arguments(name: str, given: Mapping):
  arguments = {}
  for argument, parameter in inspect.signature(LOSSES[name]).parameters.items():
    if given.get(argument) is not None:
      arguments[argument] = given[argument]
    elif parameter.default is inspect.Parameter.empty:
      raise ValueError(f'config.objective.{name} needs {argument!r}, which the model does not give')
  return arguments
