"""Draw a run's log: ``python training/curves.py --log RUN/log.jsonl --output model_cards/NAME/curves.png``."""

import argparse
import sys
from pathlib import Path

from fer_hf.figures import curves_figure, save_figure
from training.run_log import read_log


def open_log(path: Path) -> list[dict]:
    """The epochs of a ``log.jsonl``, in order. Raises ValueError where there is none."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; give the log.jsonl that training wrote into its --output")
    epochs = read_log(path)
    if not epochs:
        raise ValueError(f"{path} holds no epoch yet; draw it when training has finished one")
    return epochs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True, type=Path, help="log.jsonl of a run")
    parser.add_argument("--output", required=True, type=Path, help="the picture to write")
    parser.add_argument("--title", help="default: the name of the run's folder")
    arguments = parser.parse_args(argv)
    epochs = open_log(arguments.log)
    title = arguments.title or arguments.log.resolve().parent.name
    save_figure(curves_figure(epochs, f"{title}: {len(epochs)} epochs"), arguments.output)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"curves.py: {error}")
