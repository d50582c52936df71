"""What command lines refuse before they begin, in one sentence."""

import importlib

import pytest

from training.arguments import positive

COMMANDS = {
    "attention_report": "--rows",
    "compare": "--resamples",
    "cross_validate": "--resamples",
    "eval": "--batch-size",
    "export": "--calibration-rows",
    "predict": "--rows-per-shard",
    "robustness": "--rows",
    "samples": "--count",
    "tune": "--trials",
}


@pytest.mark.parametrize(("command", "flag"), COMMANDS.items())
@pytest.mark.parametrize("given", ["0", "-3", "many"])
def test_nothing_is_done_for_no_rows_at_all(command, flag, given, capsys):
    module = importlib.import_module(f"training.{command}")
    with pytest.raises(SystemExit) as end:
        (getattr(module, "parse_arguments", None) or module.main)([flag, given])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {flag}: " in said
    assert f"{given} was given" in said


def test_a_number_is_read():
    assert positive("12") == 12
