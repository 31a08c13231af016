"""Checks of the site: every public name has an entry, and pages load nothing from elsewhere."""

import importlib
import pathlib
import pkgutil
import re
from collections.abc import Collection, Iterator

import contrastive_jax

# Packages that serve the run itself, without an interface for others.
_INTERNAL = {'report', 'runtime'}

# Elements that a browser loads with the page; links that a reader follows are free.
_LOADS = re.compile(
  r"""<(?:script|img|iframe|source|video|audio|embed|object|link)\b[^>]*?
      \b(?:src|href|data|srcset)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)""",
  re.VERBOSE | re.IGNORECASE,
)
_CSS_LOADS = re.compile(r"""(?:@import\s+|url\()\s*["']?((?:https?:)?//[^"'\s)]+)""", re.IGNORECASE)


def packages() -> list[str]:
  """Returns the packages whose public names need an entry."""
  found = pkgutil.iter_modules(contrastive_jax.__path__)
  names = [info.name for info in found if info.ispkg and info.name not in _INTERNAL]
  return ['contrastive_jax', 'contrastive_jax.losses.pairwise'] + [
    f'contrastive_jax.{name}' for name in names
  ]


def public_names(package: str) -> list[str]:
  """Returns the names in `__all__` of a package; its modules where it exports none."""
  module = importlib.import_module(package)
  names = getattr(module, '__all__', None)
  if names is None:
    names = [info.name for info in pkgutil.iter_modules(module.__path__) if info.name[0] != '_']
  return [f'{package}.{name}' for name in names]


def missing(documented: Collection[str]) -> Iterator[str]:
  """Yields what to do about each public name without an entry on an API page."""
  for package in packages():
    page = f'docs/api/{package.rpartition(".")[2]}.md'
    for name in public_names(package):
      if name not in documented:
        yield f'{name} has no entry in the API pages; add one to {page}'


def external_loads(text: str, *, css: bool = False) -> list[str]:
  """Returns the addresses elsewhere from which a page or a style sheet loads something."""
  return (_CSS_LOADS if css else _LOADS).findall(text)


def _check_names(app, env) -> None:
  if found := [*missing(env.get_domain('py').objects)]:
    raise ValueError('; '.join(found))


def _check_loads(app, exception) -> None:
  if exception is not None or app.builder.format != 'html':
    return
  folder, found = pathlib.Path(app.outdir), []
  for path in sorted((*folder.rglob('*.html'), *folder.rglob('*.css'))):
    loads = external_loads(path.read_text(encoding='utf-8'), css=path.suffix == '.css')
    found += [f'{path.relative_to(folder)} loads {address}' for address in loads]
  if found:
    raise ValueError('pages must load nothing from elsewhere: ' + '; '.join(found))


def setup(app) -> dict[str, bool]:
  """Checks the names once all pages are read, and the files once they are written."""
  app.connect('env-check-consistency', _check_names)
  app.connect('build-finished', _check_loads)
  return {'parallel_read_safe': True}
