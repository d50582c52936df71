"""Draw a run's log: ``python training/curves.py --log RUN/log.jsonl --output model_cards/NAME/curves.png``."""

import argparse
import json
import sys
from pathlib import Path

from fer_hf.figures import curves_figure, save_figure


def read_log(path: Path) -> list[dict]:
    """The epochs of a ``log.jsonl``, in order. Raises ValueError where there is none."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; give the log.jsonl that training wrote into its --output")
    epochs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not epochs:
        raise ValueError(f"{path} holds no epoch yet; draw it when training has finished one")
    return epochs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", required=True, type=Path, help="log.jsonl of a run")
    parser.add_argument("--output", required=True, type=Path, help="the picture to write")
    parser.add_argument("--title", help="default: the name of the run's folder")
    arguments = parser.parse_args(argv)
    epochs = read_log(arguments.log)
    title = arguments.title or arguments.log.resolve().parent.name
    save_figure(curves_figure(epochs, f"{title}: {len(epochs)} epochs"), arguments.output)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"curves.py: {error}")
