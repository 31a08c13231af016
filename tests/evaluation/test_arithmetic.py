"""Laws of the arithmetic of images and words."""

import numpy as np
import pytest

from contrastive_jax.evaluation.arithmetic import Edit, arithmetic_recalls, find_edits

WORDS = ('man', 'woman', 'judge', 'pilot', 'dark', 'light', 'skin')


def embed(texts):
  """Unit vectors in which texts are the sums of their words."""
  sums = np.array([[text.split().count(word) for word in WORDS] for text in texts], np.float32)
  return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def examples(*captions):
  return [('', caption) for caption in captions]


@pytest.mark.parametrize(
  ('source', 'target', 'words'),
  [
    ('man judge: dark skin', 'man judge: light skin', ('dark', 'light')),
    ('man: dark skin', 'man, light skin', ('dark', 'light')),  # punctuation does not count
    ('pilot', 'woman pilot', ('', 'woman')),
    ('woman pilot', 'pilot', ('woman', '')),
    ('man man judge', 'man judge', ('man', '')),
    ('man judge', 'man judge', None),
    ('man judge', 'judge man', None),
    ('man judge', 'woman pilot', None),
    ('man', 'woman', None),  # they share no word
    ('', 'woman', None),
  ],
)
def test_captions_that_differ_in_one_word(source, target, words):
  found = find_edits(examples(source), examples(target))
  assert found == ([Edit(0, 0, *words)] if words else [])


def test_examples_agree_in_their_keys():
  first = [('noto', 'man judge'), ('twemoji', 'man judge')]
  second = [('twemoji', 'woman judge'), ('blobs', 'woman judge')]
  assert find_edits(first, second) == [Edit(1, 0, 'man', 'woman')]


def test_words_that_add_up_retrieve_every_image():
  captions = [f'{who} {job} {tone}'.strip() for who in WORDS[:2] for job in WORDS[2:4]
              for tone in ('', 'dark', 'light')]  # fmt: skip
  given = examples(*captions)
  edits = find_edits(given, given)
  found = arithmetic_recalls(embed(captions), given, edits, embed, [1, 5])
  assert {edit.kind for edit in edits} == {'swap', 'add', 'remove'}
  assert set(found.values()) == {1.0} and len(found) == 6
  # Words without a meaning leave the image itself the nearest.
  lost = arithmetic_recalls(embed(captions), given, edits, lambda texts: 0 * embed(texts), [1])
  assert set(lost.values()) == {0.0}


def test_images_of_one_key_and_caption_are_all_correct():
  given = examples('man judge', 'woman judge', 'woman judge')
  images = embed(['man judge', 'pilot', 'woman judge'])
  found = arithmetic_recalls(images, given, [Edit(0, 1, 'man', 'woman')], embed, [1])
  assert found == {'arithmetic_swap_recall@1': 1.0}
