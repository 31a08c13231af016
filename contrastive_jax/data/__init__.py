"""Sources, tokenizers, image transforms, and the pipeline that turns them into batches."""

from contrastive_jax.data.batch_shapes import BatchShape, BatchShapes, shapes_of_budget
from contrastive_jax.data.captions import parse_captions
from contrastive_jax.data.decoded import DecodedImages, DecodedPatches
from contrastive_jax.data.images import preprocess
from contrastive_jax.data.patches import Patches, patchify
from contrastive_jax.data.pipeline import evaluation_images, training_batches
from contrastive_jax.data.sources import Source, open_source
from contrastive_jax.data.text.augmentation import TextAugmentation
from contrastive_jax.data.tokenizers import (
  ClipTokenizer,
  SentencePieceTokenizer,
  Tokenizer,
  open_tokenizer,
)

__all__ = [
  'BatchShape',
  'BatchShapes',
  'ClipTokenizer',
  'DecodedImages',
  'DecodedPatches',
  'Patches',
  'SentencePieceTokenizer',
  'Source',
  'TextAugmentation',
  'Tokenizer',
  'evaluation_images',
  'open_source',
  'open_tokenizer',
  'parse_captions',
  'patchify',
  'preprocess',
  'shapes_of_budget',
  'training_batches',
]
