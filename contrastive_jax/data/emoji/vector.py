"""Emoji of Iconify's npm packages of SVG icons, joined to Emojibase by code points or by name."""

import io
import json
import pathlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

PRESETS = ('cldr', 'emojibase', 'emojibase-legacy', 'github', 'iamcal', 'joypixels')


def _read(path: pathlib.Path) -> Any:
  return json.loads(path.read_text(encoding='utf-8'))


def spelling(hexcode: str) -> str:
  """Normalizes a hexcode: lower case, no variation selector, no leading zeros.

  >>> spelling('0031-FE0F-20E3')
  '31-20e3'
  """
  points = hexcode.lower().split('-')
  return '-'.join(point.lstrip('0') for point in points if point != 'fe0f')


def squash(name: str) -> str:
  """Reduces a name to its letters and digits.

  >>> squash('farmer: dark skin tone') == squash('farmer-dark-skin-tone')
  True
  >>> squash('flag: Japan') == squash('flag-for-flag-japan') == squash('flag-for-japan')
  True
  """
  name = re.sub(r'[\W_]', '', name.lower().replace('&', 'and'))
  return re.sub('^flagfor(flag)?', 'flag', name)


def read_shortcodes(package: pathlib.Path) -> dict[str, list[str]]:
  """Reads the shortcodes of Emojibase by spelling, preset by preset."""
  shortcodes: dict[str, list[str]] = {}
  for preset in PRESETS:
    for hexcode, names in _read(package / 'en' / 'shortcodes' / f'{preset}.json').items():
      names = [names] if isinstance(names, str) else names
      shortcodes.setdefault(spelling(hexcode), []).extend(names)
  return shortcodes


def index_names(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
  """Indexes emoji by squashed name.

  Args:
    names: the names of each emoji by spelling, the most official first.

  Returns:
    The spelling by squashed name. Of several emoji with one name, the one where it is the most
    official counts, then the first.
  """
  ranked = sorted(
    (rank, number, squash(name), key)
    for number, (key, own) in enumerate(names.items())
    for rank, name in enumerate(own)
  )
  index: dict[str, str] = {}
  for _, _, name, key in ranked:
    index.setdefault(name, key)
  return index


def read_icons(
  package: pathlib.Path, spellings: Collection[str], index: Mapping[str, str]
) -> dict[str, str]:
  """Reads the icons of a package that are emoji.

  Args:
    package: the unpacked package, with icons.json and chars.json.
    spellings: spellings of all emoji.
    index: the spelling by squashed name, for icons without code points.

  Returns:
    The SVG of each emoji by spelling.
  """
  icons = _read(package / 'icons.json')
  svg = {name: _svg(icon, icons) for name, icon in icons['icons'].items()}
  svg |= {name: svg[alias['parent']] for name, alias in icons.get('aliases', {}).items()}
  points = {spelling(code): svg[name] for code, name in _read(package / 'chars.json').items()}
  drawn = {key: picture for key, picture in points.items() if key in spellings}
  for name, picture in svg.items():
    if key := index.get(squash(name)):
      drawn.setdefault(key, picture)
  return drawn


def _svg(icon: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
  box = ' '.join(
    str(icon.get(field, defaults.get(field, default)))
    for field, default in (('left', 0), ('top', 0), ('width', 16), ('height', 16))
  )
  return (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    f'viewBox="{box}">{icon["body"]}</svg>'
  )


def render(svg: str, size: int) -> io.BytesIO:
  """Renders an SVG as PNG, size x size pixels; without the fonts of the machine."""
  import resvg_py  # only this needs it

  return io.BytesIO(
    resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
  )
