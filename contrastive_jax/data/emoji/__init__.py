"""The embedded emoji: 9,161 pictures with their names, ready to train on.

`PREPARED` is the folder of the prepared set, for `tfds.builder_from_directory`, and `TOKENIZER` the
tokenizer trained on its captions and tags. `build.py` makes both again from four npm packages.
"""

import pathlib

PREPARED = pathlib.Path(__file__).parent / 'prepared'
TOKENIZER = pathlib.Path(__file__).parent / 'tokenizer.json'
