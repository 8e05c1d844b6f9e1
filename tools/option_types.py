"""Types of options of command lines: from text to a value, or one line that says what it must be."""

import argparse
import re
from collections.abc import Callable


def at_least(low: int) -> Callable[[str], int]:
    """The type of an option that is a whole number, at least `low`."""

    def whole_number(text: str) -> int:
        if not re.fullmatch(r'-?\d+', text):
            raise argparse.ArgumentTypeError(f'must be a whole number, got {text}')
        if int(text) < low:
            raise argparse.ArgumentTypeError(f'must be at least {low}, got {text}')
        return int(text)

    return whole_number


def integers(text: str) -> list[int]:
    """The type of an option that is several positive whole numbers, `100,200`, each of which counts once."""
    if not re.fullmatch(r'0*[1-9]\d*(,0*[1-9]\d*)*', text):
        raise argparse.ArgumentTypeError(f'must be positive numbers with commas between them, got {text}')
    return list(dict.fromkeys(map(int, text.split(','))))


def address(text: str) -> str:
    """The type of an option that is `HOST:PORT`, or `auto`."""
    if text != 'auto' and not re.fullmatch(r'[^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}', text):
        raise argparse.ArgumentTypeError(f'must be HOST:PORT, or auto on SLURM and TPUs, got {text}')
    return text


def devices(text: str) -> list[str]:
    """The type of an option that is devices by axis, `seeds=2,environments=4`; the gin lines that bind them."""
    axis = r'(seeds|lifetimes|environments)=0*[1-9]\d*'
    if not re.fullmatch(f'{axis}(,{axis})*', text):
        raise argparse.ArgumentTypeError(f'must be such as seeds=2,lifetimes=1,environments=4, got {text}')
    fields = [f'placement.Placement.{entry.replace("=", " = ")}' for entry in text.split(',')]
    return ['from agents import placement', 'experiment.Experiment.placement = @placement.Placement()', *fields]


def share(text: str) -> float:
    """The type of an option that is a share of something, above 0 and at most 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f'must be a share of the rows above 0 and at most 1, got {text}')
    return number
