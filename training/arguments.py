"""Types of command-line arguments; argparse says what was given, and for which, where they refuse."""

import argparse


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed; {text} was given") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1; {text} was given")
    return number
