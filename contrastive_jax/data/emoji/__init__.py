"""The embedded emoji dataset: 16,427 images with their names.

`PREPARED` is the folder of the prepared dataset, for `tfds.builder_from_directory`, `TOKENIZER` the
tokenizer trained on its captions and tags, and `BILINGUAL_TOKENIZER` that of its Chinese names too.
`build.py` rebuilds them from npm packages; the last also follows from the dataset:

    python -m contrastive_jax.data.train_tokenizer emoji tokenizer_en_zh.json \
        --fields=caption,tags,names.zh

`SYNONYMS` is a file with synonyms of words in the captions, chosen by hand.
"""

import pathlib

PREPARED = pathlib.Path(__file__).parent / 'prepared'
TOKENIZER = pathlib.Path(__file__).parent / 'tokenizer.json'
BILINGUAL_TOKENIZER = pathlib.Path(__file__).parent / 'tokenizer_en_zh.json'
BILINGUAL_FIELDS = ('caption', 'tags', 'names.zh')
SYNONYMS = pathlib.Path(__file__).parent / 'synonyms.txt'
