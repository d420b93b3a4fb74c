"""What the text of a compiled program says: all-reduces, and a TPU compiler's estimates."""

import collections
import math
import re

BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4, 'f64': 8}


def computations(text):
    """The instructions of each computation, `{name: lines}`, and the name of the entry."""
    bodies, name, entry = collections.defaultdict(list), None, None
    for line in text.splitlines():
        if head := re.match(r'(ENTRY )?%?([\w.\-]+) .*\{$', line):
            name = head[2]
            entry = name if head[1] else entry
        elif line.startswith('}'):
            name = None
        elif name:
            bodies[name].append(line)
    return bodies, entry


def cycles(text):
    """By instruction: the compiler's estimate, times the trips of the loops around it, and what."""
    bodies, entry = computations(text)
    costs = {}

    def visit(computation, times):
        for line in bodies[computation]:
            name = re.match(r'\s*(?:ROOT )?%?([\w.\-]+) =', line)
            if loop := re.search(r'\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)', line):
                visit(loop[2], times * trips(bodies[loop[1]]))
            elif estimate := re.search(r'estimated_cycles":"(\d+)"', line):
                source = re.search(r'op_name="([^"]*)"', line)
                what = re.sub(r'\{[^}]*\}', '', line.split(' = ', 1)[1].split('(')[0])
                costs[name[1]] = times * int(estimate[1]), f'{what}  {source[1] if source else ""}'

    visit(entry, 1)
    return costs


def trips(condition):
    """How often a loop runs: it counts from 0 to the one integer that its condition compares to.

    The loop over the steps of a call is told its end at run time; one step counts.
    """
    limits = {int(n) for n in re.findall(r's32\[\]\S* constant\((\d+)\)', '\n'.join(condition))}
    (limit,) = limits or {1}
    return limit


def all_reduce_bytes(text):
    """Of the arrays that the all-reduces of a step sum."""
    total = 0
    for line in text.splitlines():
        if found := re.search(r'= (.*?) all-reduce(?:-start)?\(', line):
            size = sum(
                BYTES[dtype] * math.prod(int(n) for n in shape.split(',') if n)
                for dtype, shape in re.findall(r'(\w+)\[([\d,]*)\]', found[1])
            )
            # One that is started and awaited may have its operands in its type as well.
            total += size // 2 if found[1].startswith('((') else size
    return total
