"""Tux Paint's stamps as JSON Lines: images of another domain whose captions are emoji's names.

  apt-get install tuxpaint-stamps-default
  python -m experiments.protocols.tux_paint --target=FOLDER

The stamps are under the GPL and not part of this repository. Instead of installing the package,
`dpkg -x` can unpack it for --stamps. A stamp is kept if its English description, without article
and full stop, is the name of an emoji.
"""

import json
import pathlib

from absl import app, flags

from contrastive_jax import data
from contrastive_jax.data.sources import stamps

STAMPS = flags.DEFINE_string('stamps', stamps.FOLDER, 'Where the stamps are.')
TARGET = flags.DEFINE_string('target', None, 'Folder for stamps.jsonl and pictures.', required=True)


def main(_):
  """Writes the file, and prints the counts by language."""
  root, target = pathlib.Path(STAMPS.value), pathlib.Path(TARGET.value)
  if not root.is_dir():
    raise app.UsageError(f'--stamps={root} is no folder; install tuxpaint-stamps-default')
  known = {name.lower() for name in data.open_source('emoji', 'train').values('caption')}
  (target / 'stamps').mkdir(parents=True, exist_ok=True)
  rows = []
  for path in sorted(root.rglob('*.png')):
    description = path.with_suffix('.txt')
    if not description.exists() or (found := stamps.describe(description))[0] not in known:
      continue
    name = f'stamps/{len(rows):04}.png'
    (target / name).write_bytes(stamps.picture(path))
    rows.append({'image': name, 'caption': found[0], 'names': found[1]})
  lines = (json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  (target / 'stamps.jsonl').write_text(''.join(lines), encoding='utf-8')
  languages = sorted({language for row in rows for language in row['names']})
  enough = [lang for lang in languages if sum(lang in row['names'] for row in rows) >= 50]
  print(
    f'{len(rows)} stamps, {len({row["caption"] for row in rows})} captions; '
    f'{len(enough)} languages with 50 or more: {" ".join(enough)}'
  )


if __name__ == '__main__':
  app.run(main)
