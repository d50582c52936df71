"""Twenty kills at random moments of one run, checkpoints after every batch."""

import random

from tests.test_resuming import killed_and_resumed
from tests.tiny_recipe import last_weights, same, write


def test_twenty_kills(tiny_data_path, tmp_path):
    recipe = write(tmp_path, epochs=60)
    killed_and_resumed(recipe, tiny_data_path, tmp_path / "whole", [])
    moments = random.Random(0)
    delays = [moments.uniform(0, 0.8) for _ in range(20)]
    assert killed_and_resumed(recipe, tiny_data_path, tmp_path / "killed", delays) == 20
    assert same(last_weights(tmp_path / "killed"), last_weights(tmp_path / "whole"))
