"""Duplicate flags, flags that are None, and paths of workdirs."""

import pathlib

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import clip
from contrastive_jax.training import command_line

CONFIG = pathlib.Path(__file__).parents[2] / 'configs' / 'clip.py'


def parse(*arguments):
  """Parses some flags of launch.py, as from a command line."""
  command_line.accept_none()
  program = ['launch.py', f'--config={CONFIG}:smoke', *arguments]
  known = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=known, sys_argv=program)
  flags.DEFINE_string('workdir', None, '', flag_values=known)
  known(program)
  return program[1:], known


@pytest.mark.parametrize(
  ('arguments', 'flag'),
  [
    # bash expands unquoted braces to these flags.
    ([f'--config.data.name=webdataset:/{n}.tar' for n in range(3)], 'config.data.name'),
    (['--workdir=runs/a', '--workdir=runs/b'], 'workdir'),
    (['--config.total_steps=3', '--config.seed=1', '-config.seed', '2'], 'config.seed'),
  ],
)
def test_adjacent_duplicate_flags_are_an_error(arguments, flag):
  given, known = parse(*arguments)
  with pytest.raises(ValueError, match=rf'--{flag} is given twice, as .* and as .*Quote braces'):
    command_line.check_flags(given, known)


def test_of_separate_duplicate_flags_the_last_is_used_with_a_warning(caplog):
  given, known = parse('--config.seed=1', '--config.total_steps=3', '--config.seed=2')
  command_line.check_flags(given, known)
  assert known.config.seed == 2
  assert "--config.seed is given twice, as '1' and as '2'; the last is used" in caplog.text


def test_equal_duplicates_and_repeated_tuple_flags_are_accepted():
  given, known = parse(
    *('--config.seed=1', '--config.seed', '1', '--workdir=a', '--config.data.replacement'),
    *('--config.evaluation.splits=one', '--config.evaluation.splits=two'),
  )
  command_line.check_flags(given, known)
  assert known.config.evaluation.splits == ('one', 'two')
  command_line.check_flags([], known)


@pytest.mark.parametrize(('text', 'value'), [('None', None), ('0', 0.0), ('0.5', 0.5)])
def test_a_float_flag_accepts_none(text, value):
  _, known = parse(f'--config.optimizer.clip_norm={text}')
  assert known.config.optimizer.clip_norm == value
  with pytest.raises(flags.IllegalFlagValueError, match='clip_norm'):
    parse('--config.optimizer.clip_norm=much')


def test_a_workdir_with_brackets_is_an_error(tmp_path, monkeypatch):
  with pytest.raises(ValueError, match=r'workdir .*lr\[1\] has a bracket'):
    command_line.check_saves(tmp_path / 'lr[1]')
  for name in ('50%', 'a?b*c', 'lr=1e-3,{b}', 'пробег'):
    command_line.check_saves(tmp_path / name)
  (tmp_path / 'old [a]').mkdir()
  monkeypatch.chdir(tmp_path / 'old [a]')
  with pytest.raises(ValueError, match='has a bracket'):
    command_line.check_saves(pathlib.Path('runs/clip-default'))


@pytest.mark.parametrize(
  ('overrides', 'in_turn'),
  [
    ({}, True),
    ({'mesh': 'data:2'}, True),
    ({'mesh': 'data:1,fsdp:2'}, False),
    ({'mesh': 'tensor:2'}, False),
    ({'model.image.stem': 'nested'}, False),
    ({'objective': ConfigDict({'info_nce': 1.0, 'reweighted_info_nce': 1.0})}, False),
  ],
)
def test_collectives_side_by_side_are_foreseen(overrides, in_turn):
  config = clip.get_config('smoke')
  config.update_from_flattened_dict(overrides)
  assert command_line.runs_collectives_in_turn(config) == in_turn


def test_towers_with_batch_norm_have_collectives_side_by_side():
  assert not command_line.runs_collectives_in_turn(clip.get_config('rn50'))
  assert not command_line.runs_collectives_in_turn(ConfigDict())
