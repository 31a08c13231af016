from configs import text
from contrastive_jax.report import results
from contrastive_jax.training.logger import open_logger

NAME = 'train[90%:][vendor=noto]/recall@1'


def test_a_selection_is_printed_whole(tmp_path, capsys, monkeypatch):
  """Its brackets are no markup."""
  monkeypatch.setenv('COLUMNS', '120')
  found = {NAME: 0.5, 'parameters': 1, 'images_seen': 1, 'seconds': 1.0}
  results.write(tmp_path, text.get_config('smoke'), found, [], [])
  assert NAME in capsys.readouterr().out


def test_a_selection_is_logged_whole(tmp_path, capsys):
  with open_logger(tmp_path, step=0, total_steps=2) as logger:
    logger.write(1, {NAME: 0.5})
  assert f'{NAME} 0.500' in capsys.readouterr().out
