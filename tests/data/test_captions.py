"""Laws of an example's texts: what is drawn, what is kept, and that nothing else is random."""

import numpy as np
import pytest

from contrastive_jax.data.captions import (
  caption_id,
  check_captions,
  draw_caption,
  keep_captions,
  parse_captions,
  prompt_caption,
)

FIVE = [f'caption {number}' for number in range(5)]
# The five captions of an image as TFDS's COCO, Hugging Face's Flickr30k and Karpathy's files have
# them, and what config.data.captions is for each.
FORMS = [
  ('captions.text', {'captions': {'id': [*range(5)], 'text': FIVE}}),
  ('caption', {'caption': FIVE}),
  ('caption', {'caption': tuple(FIVE)}),
  ('sentences.raw', {'sentences': [{'raw': text, 'tokens': text.split()} for text in FIVE]}),
  ('a.b.c', {'a': [{'b': {'c': FIVE[:2]}}, {'b': {'c': FIVE[2:]}}, {'b': None}, {}, 'other']}),
]


class NoDraws:
  """In place of a generator, where nothing may be random."""

  def __getattr__(self, name):
    raise AssertionError(f'rng.{name} was asked for')


def test_drawn_captions_are_of_the_fields_in_their_shares():
  rng = np.random.default_rng(0)
  example = {'caption': 'name', 'tags': ['a', 'b', 'c'], 'empty': []}
  weights = {'caption': 3, 'join(tags)': 1, 'empty': 9}
  drawn = [draw_caption(example, weights, rng) for _ in range(2000)]
  assert 0.7 < np.mean([text == 'name' for text in drawn]) < 0.8
  tags = {text for text in drawn if text != 'name'}
  assert all(set(text.split(', ')) <= {'a', 'b', 'c'} for text in tags) and len(tags) == 15
  with pytest.raises(ValueError, match='empty'):
    draw_caption(example, {'empty': 1}, rng)


@pytest.mark.parametrize(('field', 'example'), FORMS)
def test_of_several_captions_each_is_drawn_as_often(field, example):
  rng = np.random.default_rng(0)
  drawn = [draw_caption(example, {field: 1.0}, rng) for _ in range(2000)]
  texts, counts = np.unique(drawn, return_counts=True)
  assert texts.tolist() == FIVE
  assert counts.min() > 340 and counts.max() < 460  # 400 each, three standard deviations


@pytest.mark.parametrize(('field', 'example'), FORMS)
def test_all_captions_of_every_form_are_kept(field, example):
  assert keep_captions(example, {field: 1.0}, len(FIVE), NoDraws()) == FIVE


def test_the_default_recipe_draws_nothing():
  example = {'caption': ' name ', 'tags': ['a', 'b']}
  assert draw_caption(example, {'caption': 1.0, 'tags': 0.0}, NoDraws()) == 'name'
  assert draw_caption({'caption': ['', 'name', None]}, {'caption': 1}, NoDraws()) == 'name'


@pytest.mark.parametrize('count', [1, 2, 4])
def test_captions_left_out_are_drawn_and_the_others_stay_in_order(count):
  rng, weights = np.random.default_rng(0), {'caption': 1}
  kept = [keep_captions({'caption': FIVE}, weights, count, rng) for _ in range(200)]
  assert all(texts == sorted(set(texts)) and len(texts) == count for texts in kept)
  assert {text for texts in kept for text in texts} == set(FIVE)


@pytest.mark.parametrize(('count', 'numbers'), [(5, [0, 1, 2, 3, 4]), (7, [0, 1, 2, 3, 4, 0, 1])])
def test_all_kept_captions_repeat_where_there_are_fewer(count, numbers):
  kept = keep_captions({'caption': FIVE}, {'caption': 1}, count, NoDraws())
  assert kept == [FIVE[number] for number in numbers]


def test_a_joined_list_is_one_text():
  example, weights = {'caption': 'name', 'tags': ['a', 'b']}, {'caption': 1, 'join(tags)': 1}
  kept = [keep_captions(example, weights, 2, np.random.default_rng(seed)) for seed in range(50)]
  assert {tags for _, tags in kept} == {'a', 'b', 'a, b', 'b, a'}
  assert {name for name, _ in kept} == {'name'}


def test_a_head_is_the_text_up_to_its_colon():
  example = {'caption': 'woman judge: dark skin tone, at 10:30', 'tags': [' : a', 'b']}
  weights = parse_captions('head(caption)+caption+head(tags)')
  kept = keep_captions(example, weights, 4, NoDraws())
  assert kept == ['woman judge', example['caption'], ': a', 'b']


def test_prompts_are_drawn_alike_and_a_lone_one_is_not_drawn():
  assert prompt_caption('a {} b', (), NoDraws()) == 'a {} b'
  assert prompt_caption('cat', ('a photo of {}',), NoDraws()) == 'a photo of cat'
  rng, prompts = np.random.default_rng(0), ('{}', 'a {}', 'the {}')
  drawn = [prompt_caption('cat', prompts, rng) for _ in range(900)]
  texts, counts = np.unique(drawn, return_counts=True)
  assert texts.tolist() == ['a cat', 'cat', 'the cat']
  assert counts.min() > 255


@pytest.mark.parametrize(
  ('line', 'weights'),
  [
    ('caption', {'caption': 1}),
    ('caption*0.7+join(tags)*.3', {'caption': 0.7, 'join(tags)': 0.3}),
    (' captions.text * 2 + names.de*0', {'captions.text': 2, 'names.de': 0}),
    ('alt text+x-y', {'alt text': 1, 'x-y': 1}),
  ],
)
def test_a_line_names_fields_and_weights(line, weights):
  assert parse_captions(line) == weights


@pytest.mark.parametrize('line', ['', 'a+', 'a*', 'a*b', 'join(a', 'sum(a)', 'a*-1', 'a+a', 'a*0'])
def test_a_line_that_cannot_be_read_is_refused(line):
  with pytest.raises(ValueError, match=r'config\.data\.captions = '):
    parse_captions(line)


def test_a_mistake_in_the_config_is_named():
  example = {'id': 0, 'captions': {'text': FIVE}, 'tags': []}
  check_captions(example, {'captions.text': 1, 'join(tags)': 1, 'missing': 0}, ('a {}',))
  with pytest.raises(ValueError, match=r"names \['title'\]; use fields of \['captions', 'id'"):
    check_captions(example, {'title': 1, 'tags': 1})
  for weights in ({}, {'tags': 0}):
    with pytest.raises(ValueError, match='names nothing'):
      check_captions(example, weights)
  with pytest.raises(ValueError, match=r"config\.data\.prompts has \['a photo', '{}{}'\]"):
    check_captions(example, {'tags': 1}, ('{}', 'a photo', '{}{}'))


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    ({'text': FIVE, 'id': 1}, r"a dict; name one of its fields \['text', 'id'\]"),
    ([b'\xff'], 'bytes that are not UTF-8'),
    (3, 'int'),
    ('x' * 70_000, 'has 70000 letters'),
    ('\ud800', 'surrogates'),
    ([' ', '', None], 'empty'),
  ],
)
def test_what_is_no_caption_is_a_bad_example(value, message):
  rng = np.random.default_rng(0)
  for read in (
    lambda: draw_caption({'caption': value}, {'caption': 1}, rng),
    lambda: keep_captions({'caption': value}, {'caption': 1}, 3, rng),
  ):
    with pytest.raises(ValueError, match=message):
      read()


def test_caption_ids_tell_captions_apart():
  ids = {int(caption_id(f'caption {i}')) for i in range(5000)}
  assert len(ids) >= 4999
  assert caption_id('a') == caption_id('a')
