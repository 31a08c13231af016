"""Sources, tokenizers, image transforms, and the pipeline that turns them into batches."""

from contrastive_jax.data.captions import parse_captions
from contrastive_jax.data.decoded import DecodedImages
from contrastive_jax.data.images import preprocess
from contrastive_jax.data.pipeline import evaluation_images, training_batches
from contrastive_jax.data.sources import Source, open_source
from contrastive_jax.data.tokenizers import (
  ClipTokenizer,
  SentencePieceTokenizer,
  Tokenizer,
  open_tokenizer,
)

__all__ = [
  'ClipTokenizer',
  'DecodedImages',
  'SentencePieceTokenizer',
  'Source',
  'Tokenizer',
  'evaluation_images',
  'open_source',
  'open_tokenizer',
  'parse_captions',
  'preprocess',
  'training_batches',
]
