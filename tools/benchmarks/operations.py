"""Counts the operations of a compiled program."""

import math
import re


def matrix_operations(program: str) -> float:
    """Floating-point operations of the matrix products in a program that XLA has compiled for CPU.

    What XLA found to be the same counts once; a loop of known length, as often as it is passed through; one whose
    length is an argument, once. (XLA's own count leaves out how often any loop is passed through.)

    Args:
      program: `Compiled.as_text()`.
    """
    blocks = re.split(r'\n(?=%|ENTRY )', program)
    computations = {match[1]: block for block in blocks if (match := re.match(r'(?:ENTRY )?%([\w.-]+) \(', block))}
    (entry,) = (name for name, block in computations.items() if block.startswith('ENTRY'))
    return _operations(entry, computations)


def _operations(name: str, computations: dict[str, str]) -> float:
    block = computations[name]
    shapes = {x: [int(n) for n in shape.split(',') if n] for x, shape in _SHAPE.findall(block)}
    total = 0.0
    for line in block.splitlines():
        if product := _PRODUCT.search(line):
            result, left, axes = product.groups()
            contracted = math.prod(shapes[left][int(axis)] for axis in axes.split(',') if axis)
            total += 2 * math.prod(shapes[result]) * contracted
        times = _TIMES.search(line)
        for called in _CALLED.findall(line):
            total += (int(times[1]) if times else 1) * _operations(called, computations)
    return total


_SHAPE = re.compile(r'%([\w.-]+) = \w+\[([\d,]*)\]')
_PRODUCT = re.compile(r'%([\w.-]+) = \S+ dot\(%([\w.-]+), .*lhs_contracting_dims=\{([\d,]*)\}')
_CALLED = re.compile(r'(?:calls|body|to_apply|true_computation|false_computation)=%([\w.-]+)')
_TIMES = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
