"""open_clip for run.py, in a separate interpreter.

Reads one JSON line per turn, {"dtype", "seconds", …sizes}, and answers with one:
{"parameters", "steps": seconds of each step}.
"""

import functools
import json
import os
import sys
import time

import open_clip
import torch


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


def main():
  """Answers until the input ends."""
  torch.set_num_threads(os.cpu_count())
  for line in sys.stdin:
    turn = json.loads(line)
    seconds, dtype = turn.pop('seconds'), turn.pop('dtype')
    built = build(**turn)
    step(*built, dtype)
    steps = []
    while len(steps) < 2 or sum(steps) < seconds:
      start = time.perf_counter()
      step(*built, dtype)
      steps.append(time.perf_counter() - start)
    parameters = sum(parameter.numel() for parameter in built[0].parameters())
    print(json.dumps({'parameters': parameters, 'steps': steps}), flush=True)


if __name__ == '__main__':
  main()
