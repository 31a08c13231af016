"""webdataset with torch for run.py, in a separate interpreter.

Reads one JSON line per turn, {"pattern", "workers", "batch_size", "seconds"}, and answers with one:
{"rate": examples per second}. The pipeline consists of the parts of open_clip's training pipeline.
"""

import json
import sys
import time

import open_clip
import torch
import webdataset


def open_batches(pattern, workers, batch_size, size=224, length=77):
  """Opens shards as endless batches of images [B, 3, S, S] and tokens [B, L]."""
  transform = open_clip.image_transform(size, is_train=True)
  tokenizer = open_clip.get_tokenizer('ViT-B-32', context_length=length)
  examples = (
    webdataset.WebDataset(pattern, resampled=True, shardshuffle=False)
    .shuffle(1000)
    .decode('pilrgb')
    .rename(image='jpg;png;jpeg;webp', text='txt')
    .map_dict(image=transform, text=lambda text: tokenizer(text)[0])
    .to_tuple('image', 'text')
    .batched(batch_size)
  )
  return iter(webdataset.WebLoader(examples, batch_size=None, num_workers=workers))


def measure(pattern, workers, batch_size, seconds, warm):
  """Returns examples per second, from shards to batches in the parent process."""
  torch.set_num_threads(1)
  batches = open_batches(pattern, workers, batch_size)
  for _ in range(warm * workers):
    next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() < start + seconds:
    image, _ = next(batches)
    count += len(image)
  return count / (time.perf_counter() - start)


if __name__ == '__main__':
  answers = sys.stdout
  sys.stdout = sys.stderr  # Standard output carries only the answers.
  for line in sys.stdin:
    print(json.dumps({'rate': measure(**json.loads(line))}), file=answers, flush=True)
