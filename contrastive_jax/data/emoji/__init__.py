"""The embedded emoji dataset: 16,427 images with their names.

`PREPARED` is the folder of the prepared dataset, for `tfds.builder_from_directory`, and `TOKENIZER`
the tokenizer trained on its captions and tags. `build.py` rebuilds both from npm packages.
"""

import pathlib

PREPARED = pathlib.Path(__file__).parent / 'prepared'
TOKENIZER = pathlib.Path(__file__).parent / 'tokenizer.json'
