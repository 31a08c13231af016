"""Emoji drawn by three vendors, with names in ten languages, as a tensorflow-datasets builder.

The packages hold images (Noto, Twemoji, Fluent) and names (Emojibase). Fetch them into a folder:

    npm pack emoji-datasource-google@16.0.0
    npm pack emoji-datasource-twitter@16.0.0
    npm pack @lobehub/fluent-emoji-3d@1.1.0
    npm pack emojibase-data@17.0.0
    for archive in *.tgz; do
      mkdir "${archive%.tgz}" && tar -xzf "$archive" -C "${archive%.tgz}"
    done

Then `python -m contrastive_jax.data.emoji.build --source=FOLDER --target=FOLDER` prepares the set.

Splits go by emoji and skin tone, never by file:

    train                Noto and Twemoji, but for the pairs held out below.
    heldout_style        Fluent, a style never seen: every concept, without skin tones, and without
                         flags, which are the same in every style.
    heldout_composition  Noto and Twemoji: of every concept that comes in skin tones, one tone is
                         kept back in both. The concept and the tone are in train, the pair not.
"""

import collections
import dataclasses
import hashlib
import inspect
import io
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image, ImageOps
from tensorflow_datasets.proto import tf_example_pb2

SIZE = 64
LANGUAGES = ('de', 'es', 'fr', 'it', 'ja', 'ko', 'pt', 'ru', 'zh')
SKIN_TONES = ('light', 'medium-light', 'medium', 'medium-dark', 'dark')
NAMES = 'emojibase-data@17.0.0'
PICTURES = {
  'noto': ('emoji-datasource-google@16.0.0', 'img/google/64'),
  'twemoji': ('emoji-datasource-twitter@16.0.0', 'img/twitter/64'),
  'fluent': ('@lobehub/fluent-emoji-3d@1.1.0', 'assets'),
}
LICENSE = """\
Pictures by vendor, composited over white and encoded as WebP:
  noto: Noto Emoji, copyright Google, Apache License 2.0, https://github.com/googlefonts/noto-emoji
  twemoji: Twemoji, copyright Twitter, Inc. and other contributors, CC-BY 4.0,
    https://creativecommons.org/licenses/by/4.0, https://github.com/jdecked/twemoji
  fluent: Fluent Emoji, copyright Microsoft, MIT License, https://github.com/microsoft/fluentui-emoji,
    packaged by LobeHub, MIT License, https://github.com/lobehub/fluent-emoji
Names, tags and groups: Emojibase, copyright Miles Johnson, MIT License,
  https://github.com/milesj/emojibase
"""


@dataclasses.dataclass(frozen=True)
class Emoji:
  """An emoji, apart from its images; the fields are features of the dataset."""

  hexcode: str
  concept: str
  caption: str
  tags: tuple[str, ...]
  names: Mapping[str, str]
  group: str
  subgroup: str
  skin_tone: str


def find_packages(source: pathlib.Path) -> dict[str, pathlib.Path]:
  """Finds the unpacked npm packages anywhere below a folder.

  Args:
    source: the folder.

  Returns:
    The folder of each package, by its 'name@version'.

  Raises:
    ValueError: if a package is missing.
  """
  found = {}
  for path in source.rglob('package.json'):
    package = json.loads(path.read_text(encoding='utf-8'))
    found[f'{package.get("name")}@{package.get("version")}'] = path.parent
  wanted = [NAMES, *(name for name, _ in PICTURES.values())]
  if missing := [name for name in wanted if name not in found]:
    raise ValueError(
      f'source = {source} holds no unpacked {", ".join(missing)}; fetch with `npm pack` as '
      f'{__name__} says. Found: {", ".join(sorted(found)) or "no package"}'
    )
  return {name: found[name] for name in wanted}


def spelling(hexcode: str) -> str:
  """Normalizes a hexcode: lower case, no variation selector, no leading zeros.

  >>> spelling('0031-FE0F-20E3')
  '31-20e3'
  """
  points = hexcode.lower().split('-')
  return '-'.join(point.lstrip('0') for point in points if point != 'fe0f')


def read_emoji(package: pathlib.Path) -> dict[str, Emoji]:
  """Reads Emojibase, by spelling, without modifiers such as flag letters and skin tones."""

  def read(name):
    return json.loads((package / f'{name}.json').read_text(encoding='utf-8'))

  def with_skins(records):
    return ((base, variant) for base in records for variant in (base, *base.get('skins', ())))

  names = collections.defaultdict(lambda: dict.fromkeys(LANGUAGES, ''))
  for language in LANGUAGES:
    for _, variant in with_skins(read(f'{language}/data')):
      names[variant['hexcode']][language] = variant['label']
  meta = read('meta/groups')
  emoji = {}
  for base, variant in with_skins(read('en/data')):
    group = meta['groups'].get(str(base.get('group')), '')
    subgroup = meta['subgroups'].get(str(base.get('subgroup')), '')
    if subgroup in ('', 'skin-tone'):
      continue
    tones = variant.get('tone', ())
    tones = (tones,) if isinstance(tones, int) else tones
    emoji[spelling(variant['hexcode'])] = Emoji(
      hexcode=variant['hexcode'],
      concept=base['hexcode'],
      caption=variant['label'],
      tags=tuple(base.get('tags', ())),
      names=names[variant['hexcode']],
      group=group,
      subgroup=subgroup,
      skin_tone=', '.join(SKIN_TONES[tone - 1] for tone in tones),
    )
  return emoji


def encode(path: pathlib.Path) -> bytes:
  """Composites an image over white and encodes it as WebP, 64x64."""
  with Image.open(path) as picture:
    picture = picture.convert('RGBA')
  # Compositing precedes resampling, so that the color of transparent pixels does not bleed in.
  flat = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture).convert('RGB')
  flat = ImageOps.pad(flat, (SIZE, SIZE), Image.Resampling.LANCZOS, color='white')
  buffer = io.BytesIO()
  flat.save(buffer, 'WEBP', quality=85, method=6)
  return buffer.getvalue()


def read_pictures(
  folder: pathlib.Path, emoji: Mapping[str, Emoji], *, plain: bool = False
) -> dict[str, bytes]:
  """Reads the images of a vendor.

  Args:
    folder: PNG or WebP files, named by hexcode.
    emoji: the emoji by spelling; files of other names are left out.
    plain: whether to skip flags and emoji with a skin tone.

  Returns:
    The encoded images, by spelling. Of two files of one emoji, the first by name counts.
  """
  pictures = {}
  for path in sorted(folder.iterdir()):
    match = emoji.get(spelling(path.stem))
    if match is None or spelling(path.stem) in pictures:
      continue
    if not (plain and (match.skin_tone or match.group == 'flags')):
      pictures[spelling(path.stem)] = encode(path)
  return pictures


def hold_out(emoji: Mapping[str, Emoji], *vendors: Mapping[str, bytes]) -> frozenset[str]:
  """Holds out one skin tone per concept, chosen by a hash.

  A tone that some vendor draws like another emoji is never held out: training would see its image.

  Args:
    emoji: the emoji by spelling.
    *vendors: the encoded images of each vendor, by spelling.

  Returns:
    The spellings of the held-out emoji.
  """
  copies = collections.Counter(picture for pictures in vendors for picture in pictures.values())
  tones = collections.defaultdict(list)
  for key in set.intersection(*(set(pictures) for pictures in vendors)):
    unique = all(copies[pictures[key]] == 1 for pictures in vendors)
    if unique and emoji[key].skin_tone in SKIN_TONES:
      tones[emoji[key].concept].append(key)
  return frozenset(
    min(keys, key=lambda key: hashlib.sha256(key.encode()).digest()) for keys in tones.values()
  )


class DeterministicWriter(tfds.core.ExampleWriter):
  """Writes equal examples as equal bytes; TFDS writes their features in random order."""

  def write(self, path, examples):
    """Writes the examples with their features in order."""

    def in_order():
      for key, example in examples:
        example = tf_example_pb2.Example.FromString(example)
        yield key, example.SerializeToString(deterministic=True)

    return super().write(path, in_order())


class Builder(tfds.core.GeneratorBasedBuilder):
  """Emoji drawn by three vendors, with names in ten languages.

  Two held-out splits ask for what training never shows: the style of a third vendor, and pairs of a
  concept and a skin tone that never met.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description=inspect.cleandoc(Builder.__doc__),
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(SIZE, SIZE, 3)),
          'vendor': text,
          'hexcode': text,
          'concept': text,
          'caption': text,
          'tags': tfds.features.Sequence(text),
          'names': dict.fromkeys(LANGUAGES, text),
          'group': text,
          'subgroup': text,
          'skin_tone': text,
        }
      ),
      supervised_keys=('image', 'caption'),
      license=LICENSE,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    packages = find_packages(pathlib.Path(dl_manager.manual_dir))
    emoji = read_emoji(packages[NAMES])
    pictures = {
      vendor: read_pictures(packages[package] / folder, emoji, plain=vendor == 'fluent')
      for vendor, (package, folder) in PICTURES.items()
    }
    style = pictures.pop('fluent')
    composition = hold_out(emoji, *pictures.values())
    train, held_out = (
      {
        vendor: {
          key: picture for key, picture in drawn.items() if (key in composition) == kept_back
        }
        for vendor, drawn in pictures.items()
      }
      for kept_back in (False, True)
    )
    return {
      'train': self._generate_examples(emoji, train),
      'heldout_style': self._generate_examples(emoji, {'fluent': style}),
      'heldout_composition': self._generate_examples(emoji, held_out),
    }

  def _example_writer(self) -> DeterministicWriter:
    return DeterministicWriter(self.info.file_format)

  def _generate_examples(
    self, emoji: Mapping[str, Emoji], vendors: Mapping[str, Mapping[str, bytes]]
  ) -> Iterator[tuple[str, dict[str, Any]]]:
    for vendor, pictures in vendors.items():
      for key, picture in pictures.items():
        features = {'image': picture, 'vendor': vendor}
        yield f'{vendor} {key}', features | dataclasses.asdict(emoji[key])
