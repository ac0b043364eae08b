"""Numbers among the options of the scripts, refused where they are read if nothing can be done with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(smallest: int) -> Callable[[str], int]:
    """The `type` of an option of argparse: a whole number, `smallest` or more. Others end the script with a message."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < smallest:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number, {smallest} or more")
        return number

    return read
