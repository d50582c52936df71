"""Every model in model_cards/ goes to the stand-in and answers the same from there, without fer_hf."""

from pathlib import Path

import pytest

from training import push_to_hub

FOLDERS = sorted(path.parent for path in Path("model_cards").glob("*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_it_loads_back_the_same(hub, folder, capsys):
    push_to_hub.main(["--model", str(folder), "--repo-id", f"user/{folder.name}"])
    assert capsys.readouterr().out.splitlines()[-1].endswith("the model loads and answers the same")
