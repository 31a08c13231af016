"""Makes expected.json: what CLIP_benchmark 1.6.2 says of embeddings.npz, which this draws.

It needs clip-benchmark, torch, scikit-learn and a NumPy below 2.3:

  python tests/evaluation/clip_benchmark/make.py
"""

import json
import pathlib
import types

import numpy as np
import torch
from clip_benchmark.metrics import (
  image_caption_selection,
  zeroshot_classification,
  zeroshot_retrieval,
)

FOLDER = pathlib.Path(__file__).parent
IMAGES, CAPTIONS, CLASSES, TEMPLATES, WIDTH = 60, 3, 12, 4, 16


class Lookup:
  """A model whose images and texts are numbers of rows."""

  def __init__(self, image, text):
    self._image, self._text = torch.tensor(image), torch.tensor(text)

  def encode_image(self, images):
    return self._image[images.reshape(-1)]

  def encode_text(self, tokens):
    return self._text[tokens]


class Loader(list):
  """Batches; CLIP_benchmark asks their data set for the classes."""

  def __init__(self, batches, classes):
    super().__init__(batches)
    self.dataset = types.SimpleNamespace(classes=classes)


def tokenize(texts):
  return torch.tensor([int(text) for text in texts])


def draw():
  """Images, three texts an image, four prompts a class, and the class of each image."""
  random = np.random.default_rng(0)
  image = random.normal(size=(IMAGES, WIDTH))
  text = np.repeat(image, CAPTIONS, axis=0) + 2 * random.normal(size=(IMAGES * CAPTIONS, WIDTH))
  labels = random.integers(CLASSES, size=IMAGES)
  centers = np.stack([image[labels == k].mean(axis=0) for k in range(CLASSES)])
  prompts = np.repeat(centers, TEMPLATES, axis=0)
  prompts += random.normal(size=prompts.shape)
  arrays = {'image': image, 'text': text, 'prompts': prompts}
  return {name: array.astype(np.float32) for name, array in arrays.items()} | {'labels': labels}


def main():
  arrays = draw()
  np.savez_compressed(FOLDER / 'embeddings.npz', **arrays)
  image = torch.arange(IMAGES)
  captions = [[str(CAPTIONS * i + c) for c in range(CAPTIONS)] for i in range(IMAGES)]
  batches = [(image[i : i + 20], captions[i : i + 20]) for i in range(0, IMAGES, 20)]
  plain = {'device': 'cpu', 'amp': False}
  retrieval = zeroshot_retrieval.evaluate(
    Lookup(arrays['image'], arrays['text']),
    batches,
    tokenize,
    recall_k_list=[1, 5, 10],
    **plain,
  )
  names = [str(TEMPLATES * k) for k in range(CLASSES)]
  prompts = {name: [str(int(name) + t) for t in range(TEMPLATES)] for name in names}
  labels = torch.tensor(arrays['labels'])
  classification = zeroshot_classification.evaluate(
    Lookup(arrays['image'], arrays['prompts']),
    Loader([(image, labels)], names),
    tokenize,
    names,
    prompts,
    **plain,
  )
  pairs = [(i, i + 1) for i in range(0, IMAGES, 2)]
  selection = image_caption_selection.evaluate(
    Lookup(arrays['image'], arrays['text']),
    [
      (
        torch.tensor(pairs).reshape(-1, 2, 1, 1, 1),
        [[str(CAPTIONS * row) for row in pair] for pair in pairs],
      )
    ],
    tokenize,
    **plain,
  )
  expected = {'retrieval': retrieval, 'classification': classification, 'selection': selection}
  (FOLDER / 'expected.json').write_text(json.dumps(expected, indent=2) + '\n')


if __name__ == '__main__':
  main()
