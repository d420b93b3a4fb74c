"""Converts a PyTorch port of FID's Inception-v3 to the file that --inception_weights takes.

    pip install -e '.[inception]'
    python tools/inception_weights.py pt_inception-2015-12-05-6726825d.pth inception.npz

The port is the one that the pytorch-fid project publishes with its releases (the ImageNet network
of TensorFlow's inception-2015-12-05, 1008 classes). It is read by `torch.load(weights_only=True)`,
which runs no code of the file. Batch norm is folded into the convolutions, in float64.
"""

import io
import re
import sys

import numpy as np

from vaebm_jax.evaluation.inception import load_inception
from vaebm_jax.runtime.atomic_files import write_atomically
from vaebm_jax.runtime.errors import UserError

BATCH_NORM_EPSILON = 1e-3

STEM = {
    'Conv2d_1a_3x3': 'conv',
    'Conv2d_2a_3x3': 'conv_1',
    'Conv2d_2b_3x3': 'conv_2',
    'Conv2d_3b_1x1': 'conv_3',
    'Conv2d_4a_3x3': 'conv_4',
}
BLOCKS = ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c')
BLOCK_35 = {
    'branch1x1': 'conv',
    'branch5x5_1': 'tower_conv',
    'branch5x5_2': 'tower_conv_1',
    'branch3x3dbl_1': 'tower_1_conv',
    'branch3x3dbl_2': 'tower_1_conv_1',
    'branch3x3dbl_3': 'tower_1_conv_2',
    'branch_pool': 'tower_2_conv',
}
REDUCTION_17 = {
    'branch3x3': 'conv',
    'branch3x3dbl_1': 'tower_conv',
    'branch3x3dbl_2': 'tower_conv_1',
    'branch3x3dbl_3': 'tower_conv_2',
}
BLOCK_17 = {
    'branch1x1': 'conv',
    'branch7x7_1': 'tower_conv',
    'branch7x7_2': 'tower_conv_1',
    'branch7x7_3': 'tower_conv_2',
    'branch7x7dbl_1': 'tower_1_conv',
    'branch7x7dbl_2': 'tower_1_conv_1',
    'branch7x7dbl_3': 'tower_1_conv_2',
    'branch7x7dbl_4': 'tower_1_conv_3',
    'branch7x7dbl_5': 'tower_1_conv_4',
    'branch_pool': 'tower_2_conv',
}
REDUCTION_8 = {
    'branch3x3_1': 'tower_conv',
    'branch3x3_2': 'tower_conv_1',
    'branch7x7x3_1': 'tower_1_conv',
    'branch7x7x3_2': 'tower_1_conv_1',
    'branch7x7x3_3': 'tower_1_conv_2',
    'branch7x7x3_4': 'tower_1_conv_3',
}
BLOCK_8 = {
    'branch1x1': 'conv',
    'branch3x3_1': 'tower_conv',
    'branch3x3_2a': 'tower_mixed_conv',
    'branch3x3_2b': 'tower_mixed_conv_1',
    'branch3x3dbl_1': 'tower_1_conv',
    'branch3x3dbl_2': 'tower_1_conv_1',
    'branch3x3dbl_3a': 'tower_1_mixed_conv',
    'branch3x3dbl_3b': 'tower_1_mixed_conv_1',
    'branch_pool': 'tower_2_conv',
}
LAYERS = 3 * [BLOCK_35] + [REDUCTION_17] + 4 * [BLOCK_17] + [REDUCTION_8] + 2 * [BLOCK_8]


def layer_names() -> dict[str, str]:
    """The port's name of every convolution to TensorFlow's."""
    names = dict(STEM)
    for index, block in enumerate(BLOCKS):
        prefix = f'mixed_{index}' if index else 'mixed'
        for theirs, ours in LAYERS[index].items():
            names[f'Mixed_{block}.{theirs}'] = f'{prefix}_{ours}'
    return names


def converted(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of `load_inception`'s file from those of the port's state dict.

    Raises:
      UserError: if an array is missing.
    """
    arrays = {}
    try:
        for theirs, ours in layer_names().items():
            get = lambda name, layer=theirs: np.asarray(state[f'{layer}.{name}'], np.float64)
            scale = get('bn.weight') / np.sqrt(get('bn.running_var') + BATCH_NORM_EPSILON)
            kernel = get('conv.weight').transpose(2, 3, 1, 0) * scale
            arrays[f'{ours}/w'] = kernel.astype(np.float32)
            shift = get('bn.bias') - get('bn.running_mean') * scale
            arrays[f'{ours}/b'] = shift.astype(np.float32)
        arrays['softmax/w'] = np.asarray(state['fc.weight'], np.float32).T
        arrays['softmax/b'] = np.asarray(state['fc.bias'], np.float32)
    except KeyError as error:
        raise UserError(f'not the Inception-v3 of pytorch-fid: it has no {error}') from error
    return arrays


def read_port(path: str) -> dict[str, np.ndarray]:
    import torch

    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from error
    except Exception as error:
        reason = re.sub(r'\s+', ' ', str(error)).split('. ')[0]
        raise UserError(f'{path} is not a state dict of PyTorch ({reason})') from error
    return {name: tensor.numpy() for name, tensor in state.items()}


def main(argv: list[str]) -> None:
    if len(argv) != 3:
        raise UserError(f'usage: {argv[0]} STATE_DICT.pth WEIGHTS.npz')
    content = io.BytesIO()
    np.savez(content, **converted(read_port(argv[1])))
    write_atomically(argv[2], content.getvalue())
    load_inception(argv[2])
    print(f'{argv[2]}: {len(content.getvalue()) / 1e6:.0f} MB')


if __name__ == '__main__':
    try:
        main(sys.argv)
    except UserError as error:
        sys.exit(f'error: {error}')
