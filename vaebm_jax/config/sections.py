"""The settings of an experiment: what each means, its default and its range."""

import dataclasses
import re
from dataclasses import field
from typing import Any

from vaebm_jax.config.settings import ROW, Range, Settings, one_of, setting

AT_LEAST_1 = Range('at least 1', lambda n: n >= 1)
COUNT = Range('0 or more', lambda n: n >= 0)
POSITIVE = Range('a positive number', lambda value: 0 < value < float('inf'))
NOT_NEGATIVE = Range('0 or a positive number', lambda value: 0 <= value < float('inf'))
BELOW_1 = Range('in [0, 1)', lambda value: 0 <= value < 1)
SHARE = Range('in [0, 1]', lambda value: 0 <= value <= 1)
SEED = Range('from 0 to 2**32 - 1', lambda n: 0 <= n < 2**32)


def _table(order: str, **rows: int) -> tuple[Range, Range]:
    """Of a table of layers: the rows, each with how many sizes, and their order."""
    allowed = ', '.join(f'{kind} and {count} sizes' for kind, count in rows.items())
    in_order = lambda table: re.fullmatch(order, ''.join(f'{row[0]} ' for row in table))
    return (
        Range(
            f'a tuple of rows such as ("dense", 64) (here: {allowed})',
            lambda table: all(_is_row(row, rows) for row in table),
        ),
        Range(f'in the order {order}', in_order),
    )


def _is_row(row: Any, rows: dict[str, int]) -> bool:
    if not isinstance(row, tuple) or not row or row[0] not in rows:
        return False
    kind, *sizes = row
    if len(sizes) != rows[kind]:
        return False
    if kind == 'dropout':
        return isinstance(sizes[0], float) and 0 <= sizes[0] < 1
    return all(isinstance(size, int) and size >= 1 for size in sizes)


def _is_balanced(table: tuple) -> bool:
    kinds = [row[0] for row in table]
    return 'down' not in kinds or kinds.count('up') == kinds.count('down')


TRUNK = _table('((conv|res) )*(dense )*', conv=3, res=2, dense=1)
ENCODER = _table('((conv|res|dropout) )*((dense|dropout) )*', conv=3, res=2, dense=1, dropout=1)
DECODER = (
    *_table(
        '(dense )*(map ((up|conv) )*)?|down ((down|conv) )*((up|conv) )*',
        dense=1,
        map=1,
        down=2,
        up=2,
        conv=2,
    ),
    Range('of as many up rows as down rows', _is_balanced),
)


@dataclasses.dataclass(eq=False)
class DataConfig(Settings):
    """Where images come from."""

    name: str = setting(
        'digits',
        'digits (embedded), mnist, fashion_mnist, cifar10 (through TFDS), or a folder of images: '
        'facades, paris_streetview, or folder for any other; or array, an .npy file of uint8 '
        'images [N, H, W, C] or [N, H, W]; or points of the plane, as images of one pixel and two '
        'channels, in units of their own: eight_gaussians, ring, two_moons, checkerboard.',
        ROW,
    )
    dir: str = setting(
        '',
        "TFDS's data directory ('': its own default, or TFDS_DATA_DIR), or the folder of images "
        "('': facades has FACADES_DIR, paris_streetview PARIS_STREETVIEW_DIR), or the .npy file; "
        "docs/reliability.md says which of a folder's files are images, and which of its folders "
        'are splits.',
    )
    image_size: int = setting(
        8,
        "pixels a side; a folder's images are resized to it. Of other sets the size of their own "
        'or a divisor of it: a pixel is then the mean of a block.',
        AT_LEAST_1,
    )
    load_size: int = setting(
        0,
        'training images of a folder are resized to so many pixels a side, and at each use a '
        'random part of image_size is taken; 0: the whole image.',
    )
    crop: str = setting(
        'center',
        'what of a file is the image: center, its largest centred square; left or right, that of '
        "its left or right half (pix2pix's files have a photograph on the left, labels on the "
        'right).',
        one_of('center', 'left', 'right'),
    )
    val_share: float = setting(
        0.0,
        "of a folder's images, by a hash of their names, where it has no train, val and test "
        'folders below it; at least one image each. Of an array the last images are test, those '
        'before them val. Both 0: every split is all of them.',
        BELOW_1,
    )
    test_share: float = setting(0.0, 'as val_share, of the images of test.', BELOW_1)
    skip_unreadable: bool = setting(
        False,
        'leave out the files of a folder that are damaged, animated or no images, and count them, '
        'in place of stopping at the first.',
    )
    white_level: int = setting(
        0,
        "the value that is white in a folder's files of 16 bits: 1023 for 10 bits, 4095 for 12, "
        'the largest depth of a depth camera; larger values are white, too. 0: 65535.',
        Range('0, or from 255 to 65535', lambda n: n == 0 or 255 <= n < 2**16),
    )
    num_channels: int = setting(1, '1 or 3; 2 of points.')
    flip: bool = setting(False, 'mirror each training image left to right with probability 1/2.')
    dequantize: bool = setting(False, 'spread each 8-bit value over its bin by uniform noise.')
    headroom: float = setting(
        0.0,
        'pixels of 0 and 255, where 8 bits end, stand so far below -1 and above 1; every picture '
        'clips them again.',
        NOT_NEGATIVE,
    )
    resident_bytes: int = setting(
        2 * 1024**3,
        'a set of at most so many bytes is held on every device, a larger folder is streamed from '
        'disk.',
        COUNT,
    )


@dataclasses.dataclass(eq=False)
class LangevinConfig(Settings):
    """The chain x <- x - (δ²/2) ∇U(x) + δ · noise."""

    num_steps: int = setting(20, 'T, the number of steps.', AT_LEAST_1)
    step_size: float = setting(
        0.006,
        'δ. With a reference term x is drawn to m by δ²/(2 σ²) a step; stable below 2 σ.',
        POSITIVE,
    )
    noise_scale: float = setting(1.0, "1 is the poster's chain, 0 the authors' code.", NOT_NEGATIVE)
    max_drift: float = setting(
        0.0,
        'bound on the length of (δ²/2) ∇U(x), an image and step; 0: none, as the poster.',
        NOT_NEGATIVE,
    )


@dataclasses.dataclass(eq=False)
class EnergyConfig(Settings):
    """U(x) = |x - m|²/(2 σ²) - scale · f(x) and its Adam."""

    reference_std: float = setting(
        0.016, 'σ of the Gaussian reference term; 0: no such term.', NOT_NEGATIVE
    )
    reference_mean: float = setting(
        0.0, 'm of it, in every pixel; 0 is grey, -1 (less `data.headroom`) black.'
    )
    scale: float = setting(
        0.0,
        "the factor of the network; 0: 1 / σ², the normalised form; 1: the authors' form.",
        NOT_NEGATIVE,
    )
    learning_rate: float = setting(1e-3, "Adam's, at its highest.", POSITIVE)
    adam_b1: float = setting(0.5, "Adam's decay of the first moment.", BELOW_1)
    adam_b2: float = setting(0.999, "Adam's decay of the second moment.", BELOW_1)
    max_grad_norm: float = setting(
        0.0,
        'a gradient longer than this, in units of `scale`, is shortened to it; 0: none.',
        NOT_NEGATIVE,
    )
    spectral_norm: float = setting(
        0.0,
        "every kernel's largest singular value is scaled to it; 0: kernels as they are.",
        NOT_NEGATIVE,
    )
    l2: float = setting(
        0.0,
        "factor of `f(x)²`, its mean over data and over samples, in the energy's loss divided by "
        '`scale`: it holds f near 0, where the loss alone would let it drift.',
        NOT_NEGATIVE,
    )
    data_noise: float = setting(
        0.0,
        "standard deviation of the noise that the energy's data are given. The chain leaves "
        '`step_size * sqrt(num_steps)` on its samples, by which an energy could tell them.',
        NOT_NEGATIVE,
    )


@dataclasses.dataclass(eq=False)
class VAEConfig(Settings):
    """Encoder and decoder."""

    learning_rate: float = setting(1e-4, "Adam's, at its highest.", POSITIVE)
    kl_weight: float = setting(
        0.3,
        "factor of the rate beside the squared error; half of it is the decoder's variance.",
        NOT_NEGATIVE,
    )
    adam_b1: float = setting(0.5, "Adam's decay of the first moment.", BELOW_1)
    adam_b2: float = setting(0.999, "Adam's decay of the second moment.", BELOW_1)
    max_grad_norm: float = setting(
        0.0, 'a gradient longer than this is shortened to it; 0: none is.', NOT_NEGATIVE
    )
    bound_weight: float = setting(
        1.0, 'factor of the loss on refined samples; 1: the poster.', NOT_NEGATIVE
    )
    known_z_weight: float = setting(
        0.0,
        'factor of the squared distance from a refined sample to what the decoder makes of the '
        'very z that its chain started from (Cui and Han, dual-MCMC teaching, 2023); 0: the '
        'poster.',
        NOT_NEGATIVE,
    )
    truth_weight: float = setting(
        0.0,
        'factor of the same loss on the data themselves, beside that on revised samples; 0: the '
        'poster, whose VAE learns from revised samples alone.',
        NOT_NEGATIVE,
    )
    guess_weight: float = setting(
        0.0,
        'with a condition, factor of the squared distance from a first guess to the truth, as the '
        'cooperative learner of conditional CoopNets has it; 0: the poster.',
        NOT_NEGATIVE,
    )


@dataclasses.dataclass(eq=False)
class NetworkConfig(Settings):
    """Tables of layers; `vaebm_jax.networks` says what a row means."""

    energy: tuple = setting(
        (('dense', 256), ('dense', 256)),
        "('conv', features, kernel, stride), ('res', features, stride), ('dense', features) rows.",
        *TRUNK,
    )
    energy_outputs: int = setting(1, 'how many outputs the energy sums.', AT_LEAST_1)
    encoder: tuple = setting(
        (('dense', 256), ('dense', 256)), "as `energy`, and ('dropout', rate).", *ENCODER
    )
    decoder: tuple = setting(
        (('dense', 256), ('dense', 256)),
        "('dense', features) rows, and after one ('map', features) row also ('up', features, "
        "kernel) and ('conv', features, kernel) rows; or, with a condition, a U-Net: ('down', "
        'features, kernel) rows, then as many `up` rows, `conv` rows between.',
        *DECODER,
    )
    activation: str = setting(
        'leaky_relu', 'leaky_relu (slope 0.2) or silu.', one_of('leaky_relu', 'silu')
    )
    decoder_norm: str = setting('group', 'group or none.', one_of('group', 'none'))
    decoder_modulated: bool = setting(
        False,
        'z scales and shifts the features of every map of the decoder, as it does in a U-Net.',
    )
    decoder_output: str = setting(
        'tanh',
        'tanh, pixels in (-1, 1) and `data.headroom`, or linear, any number; with a condition the '
        'output is its hint and a residual, linear in any case.',
        one_of('tanh', 'linear'),
    )
    init_std: float = setting(
        0.0, "standard deviation of initial kernels; 0: LeCun's.", NOT_NEGATIVE
    )


@dataclasses.dataclass(eq=False)
class ScheduleConfig(Settings):
    """How both learning rates fall."""

    name: str = setting(
        'linear',
        'constant; linear: level, then straight down over the last part of the run; exponential: '
        'a factor `decay_rate` every `decay_steps`, smoothly.',
        one_of('constant', 'linear', 'exponential'),
    )
    decay_share: float = setting(0.5, 'linear: the share of the run that the fall takes.', SHARE)
    final_share: float = setting(0.05, 'linear: what is left of the rate at the end.', SHARE)
    decay_rate: float = setting(0.98, 'exponential: the factor.', POSITIVE)
    decay_steps: int = setting(3000, 'exponential: training steps to one factor.', AT_LEAST_1)
    rise_steps: int = setting(0, "in its first so many updates a model's rate rises from 0.", COUNT)
    energy_steps: int = setting(
        0,
        "the run is so long for the energy's rate, which counts the energy's own updates; 0: "
        'num_steps, the last part of which it does not see after a warm start.',
        COUNT,
    )


@dataclasses.dataclass(eq=False)
class ConditionConfig(Settings):
    """What of an image is seen, where the models are of the rest."""

    RENAMED = {'side': 'hole_size', 'profiles': 'edge_profiles', 'moves': 'updates'}

    kind: str = setting(
        'none',
        'none: the models are of whole images; center_hole, random_hole (a square anywhere), '
        'free_form (brush strokes) and lower_half hide pixels; gray and low_resolution hide '
        'colours and detail of them all.',
        ROW,
    )
    hole_size: float = setting(
        0.5,
        "the side of a hole, as a share of the image's; strokes hide the area of such a hole.",
        Range('in (0, 1)', lambda size: 0 < size < 1),
    )
    jitter: float = setting(
        0.0,
        'center_hole, in training: how far the hole strays from the centre each way, as a share '
        "of the image's side.",
        Range('in [0, 0.5]', lambda jitter: 0 <= jitter <= 0.5),
    )
    edge_profiles: float = setting(
        0.0,
        "center_hole, random_hole, and a box that --mode=recover masks: factor of the edges' "
        'profiles in the hint. Rows of windows go on behind a hole: so much of what quickly '
        'changes along the strips beside, above and below it is added to the harmonic fill.',
        NOT_NEGATIVE,
    )
    factor: int = setting(
        4,
        'low_resolution: how many pixels a side become one.',
        Range('at least 2', lambda factor: factor >= 2),
    )
    updates: str = setting(
        'hidden',
        'what the chain updates, hidden pixels or all; what is seen is put back at its end.',
        one_of('hidden', 'all'),
    )


@dataclasses.dataclass(eq=False)
class DivergenceConfig(Settings):
    """What becomes of a run whose numbers explode.

    It goes back to its last checkpoint, and on from there with other noise and lower rates.
    """

    max_energy: float = setting(
        1e10,
        'mean energies of data or samples beyond +- this (nats) count as exploded, as do metrics '
        'that are not finite; 0: the latter alone.',
        NOT_NEGATIVE,
    )
    max_rollbacks: int = setting(3, 'the run goes back so many times, and then stops.', COUNT)
    rate_factor: float = setting(
        0.5,
        'both learning rates are multiplied by it each time.',
        Range('in (0, 1]', lambda factor: 0 < factor <= 1),
    )


@dataclasses.dataclass(eq=False)
class Config(Settings):
    """An experiment."""

    name: str = setting('digits', 'a word for the experiment.')
    seed: int = setting(0, 'of initial parameters, order of data and every draw.', SEED)
    num_steps: int = setting(2500, 'training iterations in all.', AT_LEAST_1)
    batch_size: int = setting(128, 'data images an iteration, over all devices.', AT_LEAST_1)
    num_chains: int = setting(
        0, 'Langevin chains an iteration, over all devices; 0: as `batch_size`.', COUNT
    )
    latent_dim: int = setting(16, 'size of z.', AT_LEAST_1)
    log_every: int = setting(50, 'in iterations; 0: never (the last step always).', COUNT)
    sample_every: int = setting(500, 'in iterations; 0: never (the last step always).', COUNT)
    checkpoint_every: int = setting(500, 'in iterations; 0: never (the last step always).', COUNT)
    keep_checkpoints: int = setting(3, 'the newest so many are kept; 0: all.', COUNT)
    steps_per_call: int = setting(1, 'iterations in one compiled call.', AT_LEAST_1)
    ema_decay: float = setting(
        0.99, 'of the averaged parameters that samples are drawn with.', BELOW_1
    )
    init_from: str = setting(
        '', "a workdir whose newest parameters this run starts from; '': fresh ones."
    )
    method: str = setting(
        'vaebm',
        "vaebm, or a baseline's name: vae learns from the data, without an energy.",
        ROW,
    )
    warmup_steps: int = setting(
        0, "so many of the first steps are the vae's, a start near the data.", COUNT
    )
    dtype: str = setting(
        'float32',
        'float32 or bfloat16, of computation; parameters and energies stay float32.',
        one_of('float32', 'bfloat16'),
    )
    generator: str = setting(
        'threefry2x32',
        'of noise: threefry2x32, the same numbers on every backend and number of devices, or rbg, '
        "the accelerator's own and cheaper, which promises neither.",
        one_of('threefry2x32', 'rbg'),
    )
    convolution: str = setting(
        'auto',
        "auto: the form that is fastest on the platform, which on a CPU is this package's own; "
        "plain: XLA's convolution and JAX's gradients of it everywhere, the same but for rounding, "
        'to compare numbers with.',
        one_of('auto', 'plain'),
    )
    data: DataConfig = field(default_factory=DataConfig)
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    divergence: DivergenceConfig = field(default_factory=DivergenceConfig)
