"""The former name of `train_tokenizer`, kept for its command."""

import runpy

if __name__ == '__main__':
  runpy.run_module('contrastive_jax.data.train_tokenizer', run_name='__main__')
