"""Weights of Inception-v3 in PyTorch's port, of random numbers."""

import sys

import numpy as np

from helpers.commands import ROOT

sys.path.insert(0, str(ROOT / 'tools'))

import inception_weights  # noqa: E402, F401


def random_port(seed=0):
    """A state dict like that of the PyTorch port, of random numbers that keep the signal's size."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, (kernel, inputs, outputs) in SIZES.items():
        shape = (outputs, inputs, *kernel)
        size = np.sqrt(2.0 / np.prod(shape[1:]))
        state[f'{name}.conv.weight'] = size * rng.normal(size=shape)
        state[f'{name}.bn.weight'] = rng.uniform(0.5, 1.5, outputs)
        state[f'{name}.bn.bias'] = 0.1 * rng.normal(size=outputs)
        state[f'{name}.bn.running_mean'] = 0.1 * rng.normal(size=outputs)
        state[f'{name}.bn.running_var'] = rng.uniform(0.5, 1.5, outputs)
    state['fc.weight'] = rng.normal(size=(1008, 2048))
    state['fc.bias'] = rng.normal(size=1008)
    return {name: value.astype(np.float32) for name, value in state.items()}


def layer_sizes():
    """Kernel, inputs and outputs of every convolution, from the architecture's paper."""
    sizes = {
        'Conv2d_1a_3x3': ((3, 3), 3, 32),
        'Conv2d_2a_3x3': ((3, 3), 32, 32),
        'Conv2d_2b_3x3': ((3, 3), 32, 64),
        'Conv2d_3b_1x1': ((1, 1), 64, 80),
        'Conv2d_4a_3x3': ((3, 3), 80, 192),
    }
    one, three, five, row, column = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
    for name, inputs, pooled in (('5b', 192, 32), ('5c', 256, 64), ('5d', 288, 64)):
        sizes |= {
            f'Mixed_{name}.branch1x1': (one, inputs, 64),
            f'Mixed_{name}.branch5x5_1': (one, inputs, 48),
            f'Mixed_{name}.branch5x5_2': (five, 48, 64),
            f'Mixed_{name}.branch3x3dbl_1': (one, inputs, 64),
            f'Mixed_{name}.branch3x3dbl_2': (three, 64, 96),
            f'Mixed_{name}.branch3x3dbl_3': (three, 96, 96),
            f'Mixed_{name}.branch_pool': (one, inputs, pooled),
        }
    sizes |= {
        'Mixed_6a.branch3x3': (three, 288, 384),
        'Mixed_6a.branch3x3dbl_1': (one, 288, 64),
        'Mixed_6a.branch3x3dbl_2': (three, 64, 96),
        'Mixed_6a.branch3x3dbl_3': (three, 96, 96),
    }
    for name, inner in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
        sizes |= {
            f'Mixed_{name}.branch1x1': (one, 768, 192),
            f'Mixed_{name}.branch7x7_1': (one, 768, inner),
            f'Mixed_{name}.branch7x7_2': (row, inner, inner),
            f'Mixed_{name}.branch7x7_3': (column, inner, 192),
            f'Mixed_{name}.branch7x7dbl_1': (one, 768, inner),
            f'Mixed_{name}.branch7x7dbl_2': (column, inner, inner),
            f'Mixed_{name}.branch7x7dbl_3': (row, inner, inner),
            f'Mixed_{name}.branch7x7dbl_4': (column, inner, inner),
            f'Mixed_{name}.branch7x7dbl_5': (row, inner, 192),
            f'Mixed_{name}.branch_pool': (one, 768, 192),
        }
    sizes |= {
        'Mixed_7a.branch3x3_1': (one, 768, 192),
        'Mixed_7a.branch3x3_2': (three, 192, 320),
        'Mixed_7a.branch7x7x3_1': (one, 768, 192),
        'Mixed_7a.branch7x7x3_2': (row, 192, 192),
        'Mixed_7a.branch7x7x3_3': (column, 192, 192),
        'Mixed_7a.branch7x7x3_4': (three, 192, 192),
    }
    for name, inputs in (('7b', 1280), ('7c', 2048)):
        sizes |= {
            f'Mixed_{name}.branch1x1': (one, inputs, 320),
            f'Mixed_{name}.branch3x3_1': (one, inputs, 384),
            f'Mixed_{name}.branch3x3_2a': ((1, 3), 384, 384),
            f'Mixed_{name}.branch3x3_2b': ((3, 1), 384, 384),
            f'Mixed_{name}.branch3x3dbl_1': (one, inputs, 448),
            f'Mixed_{name}.branch3x3dbl_2': (three, 448, 384),
            f'Mixed_{name}.branch3x3dbl_3a': ((1, 3), 384, 384),
            f'Mixed_{name}.branch3x3dbl_3b': ((3, 1), 384, 384),
            f'Mixed_{name}.branch_pool': (one, inputs, 192),
        }
    return sizes


SIZES = layer_sizes()


def write(path, arrays):
    with open(path, 'wb') as file:
        np.savez(file, **arrays)
    return path
