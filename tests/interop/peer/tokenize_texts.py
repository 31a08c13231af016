"""Prints the ids that open_clip gives texts, in an environment with open_clip and transformers.

    python tests/interop/peer/tokenize_texts.py FOLDER LENGTH TEXTS

FOLDER holds the files of a tokenizer and names its class, TEXTS is a JSON list.
"""

import json
import sys

import open_clip


def main(folder, length, texts):
  """Prints the ids as JSON."""
  tokenizer = open_clip.tokenizer.HFTokenizer(folder, context_length=int(length))
  print(json.dumps(tokenizer(json.loads(texts)).tolist()))


if __name__ == '__main__':
  main(*sys.argv[1:])
