"""Checks that the build of the site runs: entries of public names, and what pages load."""

import pytest

from docs.extensions import checks


def documented():
  return {name for package in checks.packages() for name in checks.public_names(package)}


def test_every_package_that_others_use_is_checked():
  assert {'contrastive_jax', 'contrastive_jax.losses', 'contrastive_jax.losses.pairwise'} < set(
    checks.packages()
  )
  assert {'contrastive_jax.load', 'contrastive_jax.losses.info_nce'} < documented()
  assert 'contrastive_jax.models.clip' in documented()  # the package exports no names


@pytest.mark.parametrize(
  ('name', 'page'),
  [
    ('contrastive_jax.losses.info_nce', 'docs/api/losses.md'),
    ('contrastive_jax.losses.pairwise.top_k', 'docs/api/pairwise.md'),
    ('contrastive_jax.models.coca', 'docs/api/models.md'),
  ],
)
def test_a_public_name_without_an_entry_is_told_with_its_page(name, page):
  assert not [*checks.missing(documented())]
  (message,) = checks.missing(documented() - {name})
  assert name in message and page in message


@pytest.mark.parametrize(
  'text',
  [
    '<script src="https://a.org/a.js"></script>',
    '<link rel="stylesheet" href="//a.org/a.css">',
    "<img alt='a'\n src='http://a.org/a.png'>",
    '<iframe src="https://a.org"></iframe>',
  ],
)
def test_what_a_page_loads_from_elsewhere_is_found(text):
  assert len(checks.external_loads(text)) == 1


def test_links_and_files_of_the_site_are_free():
  text = '<a href="https://a.org">a</a><img src="a.png"><script src="../b.js"></script>'
  assert not checks.external_loads(text)


def test_what_a_style_sheet_loads_from_elsewhere_is_found():
  assert checks.external_loads('@import url("//a.org/f.css");', css=True) == ['//a.org/f.css']
  assert checks.external_loads('a { background: url(https://a.org/a.png) }', css=True)
  assert not checks.external_loads('a { background: url(data:image/png;base64,AA) }', css=True)
