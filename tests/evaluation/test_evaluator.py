"""Laws of the final evaluation's captions."""

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.captioning import score_captions
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.models.generation import generate
from contrastive_jax.sharding.mesh import make_mesh
from tests.models.towers import drawn, tiny, tiny_coca

SPLIT = 'heldout_composition[vendor=twemoji,skin_tone=dark]'
IMAGE = {'size': 32, 'patch': 16}
TEXT = {'vocabulary': 4096, 'length': 8}


def make_evaluator(definition, **captions):
  return Evaluator(
    definition,
    data.open_tokenizer('emoji', TEXT['length']),
    {SPLIT: data.open_source('emoji', SPLIT)},
    make_mesh('data:8'),
    image_size=IMAGE['size'],
    batch_size=64,
    classes={},
    templates=(),
    captions=captions,
    candidates=data.open_source('emoji', SPLIT.replace('twemoji', 'noto')),
  )


def test_captions_are_generated_scored_and_compared_with_retrieved_ones():
  definition = tiny_coca(image=IMAGE, text=TEXT, decoder={'layers': 1})
  parameters = drawn(definition, deviation=0.6)
  evaluator = make_evaluator(definition, beams=2, max_length=6)
  figures, [split] = evaluator.finish(parameters)

  tokenizer = data.open_tokenizer('emoji', TEXT['length'])
  rules = {'beams': 2, 'max_length': 6, 'start_id': tokenizer.start_id, 'end_id': tokenizer.end_id}
  model = definition.bind(parameters)
  tokens = generate(model, normalize(jnp.array(split.images)), **rules).tokens
  assert split.generated == [tokenizer.decode(row) for row in np.asarray(tokens)]
  assert len(set(split.generated)) > 1
  # Of its own split every caption is offered, by another vendor's pictures.
  candidates = sorted(set(split.captions))
  rows = [split.captions.index(caption) for caption in candidates]
  nearest = np.argmax(split.image_embeddings @ split.text_embeddings[rows].T, axis=1)
  expected = {
    'caption': split.generated,
    'retrieved_caption': [candidates[row] for row in nearest],
  }
  references = [[caption] for caption in split.captions]
  for kind, captions in expected.items():
    for measure, value in score_captions(captions, references).items():
      assert figures[f'{SPLIT}/{kind}_{measure}'] == pytest.approx(value), (kind, measure)
  assert figures[f'{SPLIT}/retrieved_caption_bleu_4'] > 0
  assert not any('caption' in name for name in evaluator(parameters))


@pytest.mark.parametrize(
  ('definition', 'captions', 'message'),
  [
    (tiny(image=IMAGE, text=TEXT), {'beams': 1}, 'Clip, which has no captioner'),
    (tiny_coca(image=IMAGE, text=TEXT), {'beam': 4}, "unexpected keyword argument 'beam'"),
    (tiny_coca(image=IMAGE, text=TEXT), {'max_length': 9}, 'max_length = 9'),
  ],
  ids=['clip', 'unknown', 'long'],
)
def test_captions_that_cannot_be_are_refused_before_the_training(definition, captions, message):
  with pytest.raises(ValueError, match=rf'config\.evaluation\.captions = .*{message}'):
    make_evaluator(definition, **captions)
