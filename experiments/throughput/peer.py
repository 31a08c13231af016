"""open_clip for run.py and from_shards.py, in a separate interpreter.

Reads one JSON line per turn, {"dtype", "seconds", …sizes}, and answers with one: {"parameters",
"steps": seconds of each step}, on a batch in memory. With "pattern" and "workers" it trains from
shards, after "warm" steps.
"""

import functools
import json
import os
import sys
import time

import open_clip
import torch

from experiments.data_throughput.peer import open_batches


@functools.cache
def build(size, patch, width, image_layers, text_layers, heads, length, vocabulary, batch):
  """Builds the model, its optimizer, and a batch."""
  model = open_clip.model.CLIP(
    embed_dim=width,
    vision_cfg={
      'image_size': size,
      'patch_size': patch,
      'width': width,
      'layers': image_layers,
      'head_width': width // heads,
    },
    text_cfg={
      'context_length': length,
      'vocab_size': vocabulary,
      'width': width,
      'heads': heads,
      'layers': text_layers,
    },
    output_dict=True,
  )
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=True
  )
  images = torch.randn(batch, 3, size, size)
  tokens = torch.randint(1, vocabulary, (batch, length))
  return model, optimizer, images, tokens


def step(model, optimizer, images, tokens, dtype):
  """Runs one update; bfloat16 is open_clip's precision 'amp_bf16'."""
  optimizer.zero_grad()
  with torch.autocast('cpu', torch.bfloat16, enabled=dtype == 'bfloat16'):
    outputs = model(images, tokens)
    loss = open_clip.ClipLoss()(
      outputs['image_features'], outputs['text_features'], outputs['logit_scale']
    )
  loss.backward()
  optimizer.step()


def open_ready(images, tokens):
  """Repeats one batch."""
  while True:
    yield images, tokens


def take_turn(seconds, dtype, warm=1, pattern=None, workers=0, **sizes):
  """Returns the number of parameters and the seconds of each step."""
  model, optimizer, *ready = build(**sizes)
  batches = open_ready(*ready)
  if pattern:
    batches = open_batches(pattern, workers, sizes['batch'], sizes['size'], sizes['length'])
  for _ in range(warm):
    step(model, optimizer, *next(batches), dtype)
  steps = []
  while len(steps) < 2 or sum(steps) < seconds:
    start = time.perf_counter()
    step(model, optimizer, *next(batches), dtype)
    steps.append(time.perf_counter() - start)
  parameters = sum(parameter.numel() for parameter in model.parameters())
  return {'parameters': parameters, 'steps': steps}


def main():
  """Answers until the input ends."""
  torch.set_num_threads(os.cpu_count())
  answers = sys.stdout
  sys.stdout = sys.stderr  # Standard output carries only the answers.
  for line in sys.stdin:
    print(json.dumps(take_turn(**json.loads(line))), file=answers, flush=True)


if __name__ == '__main__':
  main()
