"""The kinds of towers of open_clip that have a form here."""

from collections.abc import Sequence

from contrastive_jax.interop.open_clip.convnext import CONVNEXT
from contrastive_jax.interop.open_clip.fastvit import FASTVIT
from contrastive_jax.interop.open_clip.hugging_face_text import HUGGING_FACE
from contrastive_jax.interop.open_clip.kind import Kind, Section
from contrastive_jax.interop.open_clip.resnet import RESNET
from contrastive_jax.interop.open_clip.text import TRANSFORMER
from contrastive_jax.interop.open_clip.timm_vit import TIMM_VIT
from contrastive_jax.interop.open_clip.vit import VIT
from contrastive_jax.interop.open_clip.vitamin import VITAMIN

# Kinds by section of a model_cfg. The first one that matches reads the section; a model that was
# not read from open_clip is written as the first one that can.
IMAGE: tuple[Kind, ...] = (VIT, RESNET, CONVNEXT, FASTVIT, VITAMIN, TIMM_VIT)
TEXT: tuple[Kind, ...] = (TRANSFORMER, *HUGGING_FACE)


def kind_of(kinds: Sequence[Kind], section: Section) -> Kind:
  """The kind that reads a section; the first kind, which names the entry, if none matches."""
  return next((kind for kind in kinds if kind.matches(section)), kinds[0])


def kinds_to_write(kinds: Sequence[Kind], tower: str, before: Section) -> list[Kind]:
  """Kinds to try, in order, for writing our tower.

  Args:
    kinds: `IMAGE` or `TEXT`.
    tower: name of our tower.
    before: the section as read, whose kind is kept; {} if the model is not from open_clip.
  """
  if before:
    return [kind_of(kinds, before)]
  return [kind for kind in kinds if kind.tower == tower] or [kinds[0]]
