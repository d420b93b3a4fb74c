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
AUGMENTS = Range(
    "a tuple of different names of 'flip', 'shift', 'cutout'",
    lambda names: (
        all(name in ('flip', 'shift', 'cutout') for name in names) and len({*names}) == len(names)
    ),
)
VALUE_RANGE = Range(
    'a tuple of two numbers, the lower first, such as (0, 4095), or ()',
    lambda ends: (
        ends == ()
        or (
            len(ends) == 2
            and all(type(end) in (int, float) and abs(end) < float('inf') for end in ends)
            and ends[0] < ends[1]
        )
    ),
)
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


def _is_gated(table: tuple) -> bool:
    gated = [row for row in table if row[0] == 'gated']
    return len({row[1] for row in gated}) == 1 and all(row[2] % 2 for row in gated)


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
LIKELIHOOD = (
    *_table('gated (gated )+(dense )*', gated=2, dense=1),
    Range('of gated rows with equal features and odd kernels', _is_gated),
)


@dataclasses.dataclass(eq=False)
class DataConfig(Settings):
    """Where images come from."""

    name: str = setting(
        'digits',
        'digits (embedded), mnist, fashion_mnist, cifar10 (through TFDS), or a folder of images: '
        'facades, paris_streetview, or folder for any other; or array, an .npy or .npz file of '
        'images [N, H, W, C] or [N, H, W], numbers of any type in any number of channels; or '
        'points of the plane, as images of one pixel and two channels, in units of their own: '
        'eight_gaussians, ring, two_moons, checkerboard.',
        ROW,
    )
    dir: str = setting(
        '',
        "TFDS's data directory ('': its own default, or TFDS_DATA_DIR), or the folder of images "
        "('': facades has FACADES_DIR, paris_streetview PARIS_STREETVIEW_DIR), or the file of an "
        "array; docs/reliability.md says which of a folder's files are images, and which of its "
        'folders are splits.',
    )
    image_size: int = setting(
        8,
        "pixels per side. A folder's images are resized to it. Other data sets: their own size or "
        'a divisor of it, where a pixel is the mean of a block.',
        AT_LEAST_1,
    )
    load_size: int = setting(
        0,
        'training images of a folder are resized to this many pixels per side, and a random crop '
        'of image_size is taken at each use; 0: no crop.',
    )
    crop: str = setting(
        'center',
        'which part of a file is the image: center, its largest centred square; left or right, '
        "the same of its left or right half (pix2pix's files have a photograph on the left and "
        'labels on the right).',
        one_of('center', 'left', 'right'),
    )
    val_share: float = setting(
        0.0,
        'share of validation images. In a folder without train, val and test folders a hash of the '
        'file name decides, with at least one image per split. Of an array the last images are '
        'test, those before them val. Both shares 0: every split has all images.',
        BELOW_1,
    )
    test_share: float = setting(0.0, 'share of test images; see val_share.', BELOW_1)
    skip_unreadable: bool = setting(
        False,
        'skip and count files that are damaged, animated or no images, instead of stopping at the '
        'first.',
    )
    white_level: int = setting(
        0,
        'the value that is white in 16-bit files: 1023 for 10 bits, 4095 for 12, or the largest '
        'depth of a depth camera. Larger values are white too. 0: 65535.',
        Range('0, or from 255 to 65535', lambda n: n == 0 or 255 <= n < 2**16),
    )
    array_name: str = setting('', "which array of an .npz file; '': the only one that it holds.")
    value_range: tuple = setting(
        (),
        'the values of an array that become -1 and 1, such as (0, 4095). (): 0 and 255 of uint8; '
        'of floating-point numbers 0 and 1 if all are in [0, 1], else -1 and 1. Another array is '
        'refused without it, and any that has values outside of it.',
        VALUE_RANGE,
    )
    num_channels: int = setting(
        1, '1 or 3 for images, 2 for points; for an array the number that it has.', AT_LEAST_1
    )
    flip: bool = setting(False, 'mirror each training image left to right with probability 1/2.')
    dequantize: bool = setting(False, 'spread each 8-bit value over its bin by uniform noise.')
    headroom: float = setting(
        0.0,
        'offset of saturated pixels: 0 becomes -1 - headroom and 255 becomes 1 + headroom. Saved '
        'images are clipped to [-1, 1].',
        NOT_NEGATIVE,
    )
    resident_bytes: int = setting(
        2 * 1024**3,
        'data sets up to this size are stored on every device; a larger folder or array is read '
        'from disk during training.',
        COUNT,
    )


@dataclasses.dataclass(eq=False)
class LangevinConfig(Settings):
    """The chain x <- x - (δ²/2) ∇U(x) + δ · noise."""

    num_steps: int = setting(20, 'T, the number of steps.', AT_LEAST_1)
    step_size: float = setting(
        0.006,
        'δ. The reference term moves x towards m by a factor δ²/(2 σ²) per step, so δ must be '
        'below 2 σ.',
        POSITIVE,
    )
    noise_scale: float = setting(
        1.0, "factor of the noise: 1 in the paper's chain, 0 in the authors' code.", NOT_NEGATIVE
    )
    max_drift: float = setting(
        0.0,
        'the longest (δ²/2) ∇U(x) of an image in a step; 0: no limit, as in the paper.',
        NOT_NEGATIVE,
    )
    max_element_drift: float = setting(
        0.0, 'the same bound for each pixel by itself, applied first; 0: no limit.', NOT_NEGATIVE
    )
    prior_steps: int = setting(
        0,
        'number of steps on z before a sample is decoded and refined, on |z|²/2 + U(g(z)) / '
        'prior_temperature. Training has none.',
        COUNT,
    )
    prior_step_size: float = setting(0.05, 'δ of these steps.', POSITIVE)
    prior_temperature: float = setting(
        1e4, 'of the energy in these steps; 1: that of p(x), which leaves few modes.', POSITIVE
    )
    latent_steps: int = setting(
        0,
        'coopnets: number of steps by which z is moved towards the refined sample before the '
        'decoder learns; 0: the z that the chain started from.',
        COUNT,
    )
    latent_step_size: float = setting(0.1, 'coopnets: δ of these steps.', POSITIVE)
    memory_size: int = setting(
        10_000, 'persistent: number of images in the replay memory, the newest.', AT_LEAST_1
    )


@dataclasses.dataclass(eq=False)
class EnergyConfig(Settings):
    """U(x) = |x - m|²/(2 σ²) - scale · f(x) and its Adam."""

    reference_std: float = setting(
        0.016, 'σ of the Gaussian reference term; 0: no such term.', NOT_NEGATIVE
    )
    reference_mean: float = setting(
        0.0, 'its mean m, the same in every pixel: 0 is grey, -1 - data.headroom black.'
    )
    scale: float = setting(
        0.0,
        "factor of the network's output; 0: 1 / σ², the normalised form; 1: the authors' form.",
        NOT_NEGATIVE,
    )
    learning_rate: float = setting(1e-3, "Adam's, at its highest.", POSITIVE)
    adam_b1: float = setting(0.5, "Adam's decay of the first moment.", BELOW_1)
    adam_b2: float = setting(0.999, "Adam's decay of the second moment.", BELOW_1)
    max_grad_norm: float = setting(
        0.0,
        'gradients are clipped to this norm, in units of scale; 0: no clipping.',
        NOT_NEGATIVE,
    )
    max_grad_element: float = setting(
        0.0,
        'each element of a gradient is clipped to this, in units of scale, and three standard '
        'deviations of its earlier values; 0: no clipping.',
        NOT_NEGATIVE,
    )
    spectral_norm: float = setting(
        0.0,
        'every kernel is scaled to have this largest singular value; 0: no normalization.',
        NOT_NEGATIVE,
    )
    l2: float = setting(
        0.0,
        'weight of the mean of f(x)² over data and samples, beside a loss in units of scale. '
        'It keeps f near 0; the loss alone leaves a constant free to drift.',
        NOT_NEGATIVE,
    )
    data_noise: float = setting(
        0.0,
        "standard deviation of noise added to the energy's data. The chain leaves noise of "
        'step_size * sqrt(num_steps) on its samples, by which the energy could recognize them.',
        NOT_NEGATIVE,
    )
    start_noise: float = setting(
        0.0,
        "standard deviation of noise added to both data and samples in the energy's first update. "
        'It falls linearly to 0 in start_noise_steps updates. Chains have no such noise.',
        NOT_NEGATIVE,
    )
    start_noise_steps: int = setting(
        1000, "number of the energy's updates with start_noise.", AT_LEAST_1
    )
    augment: tuple = setting(
        (),
        "names of random changes to both data and samples in the energy's updates, for data sets "
        'of few images: flip (left to right), shift (up to an eighth of the side), cutout (a '
        'square of half the side becomes 0). Chains run on unchanged images.',
        AUGMENTS,
    )
    updates: int = setting(
        0,
        "wgan_gp: number of the critic's updates in an iteration, each with its own part of the "
        "batch; 0: 5, the paper's.",
        COUNT,
    )


@dataclasses.dataclass(eq=False)
class VAEConfig(Settings):
    """Encoder and decoder."""

    learning_rate: float = setting(1e-4, "Adam's, at its highest.", POSITIVE)
    kl_weight: float = setting(
        0.3,
        "factor of the KL term beside the squared error; half of it is the decoder's variance.",
        NOT_NEGATIVE,
    )
    adam_b1: float = setting(0.5, "Adam's decay of the first moment.", BELOW_1)
    adam_b2: float = setting(0.999, "Adam's decay of the second moment.", BELOW_1)
    max_grad_norm: float = setting(
        0.0, 'gradients are clipped to this norm; 0: no clipping.', NOT_NEGATIVE
    )
    bound_weight: float = setting(
        1.0, 'factor of the VAE loss on refined samples; 1: the paper.', NOT_NEGATIVE
    )
    known_z_weight: float = setting(
        0.0,
        'factor of the squared distance from a refined sample to the ancestral sample that its '
        'chain started from, decoded from the same z (Cui and Han, dual-MCMC teaching, 2023); 0: '
        'the paper.',
        NOT_NEGATIVE,
    )
    truth_weight: float = setting(
        0.0,
        'factor of the VAE loss on the data; 0: the paper, whose VAE learns only from refined '
        'samples.',
        NOT_NEGATIVE,
    )
    guess_weight: float = setting(
        0.0,
        'with a condition, factor of the squared distance from an ancestral sample to the true '
        'image, as in cooperative conditional learning; 0: the paper. It makes recoveries of one '
        'image alike; mean_weight does not. ccoopnets: of the absolute distance.',
        NOT_NEGATIVE,
    )
    mean_weight: float = setting(
        0.0,
        'with a condition, factor of the squared distance from the mean of all ancestral samples '
        'to the true image, estimated without bias from two samples; 0: the paper.',
        NOT_NEGATIVE,
    )
    l1_weight: float = setting(
        0.0,
        'pix2pix, cvae_gan, cvae_gan_pp, bicycle_gan: factor of the mean absolute error of a '
        "missing pixel, beside the critic's loss; 0: the papers', 100 of pix2pix, else 10.",
        NOT_NEGATIVE,
    )


@dataclasses.dataclass(eq=False)
class NetworkConfig(Settings):
    """Tables of layers; `vaebm_jax.models.networks` explains the rows."""

    energy: tuple = setting(
        (('dense', 256), ('dense', 256)),
        "('conv', features, kernel, stride), ('res', features, stride), ('dense', features) rows.",
        *TRUNK,
    )
    energy_outputs: int = setting(1, 'number of outputs, which are summed.', AT_LEAST_1)
    encoder: tuple = setting(
        (('dense', 256), ('dense', 256)), "as `energy`, and ('dropout', rate).", *ENCODER
    )
    decoder: tuple = setting(
        (('dense', 256), ('dense', 256)),
        "('dense', features) rows; after one ('map', features) row also ('up', features, kernel) "
        "and ('conv', features, kernel) rows. With a condition, a U-Net: ('down', features, "
        'kernel) rows, then as many `up` rows, with `conv` rows between.',
        *DECODER,
    )
    activation: str = setting(
        'leaky_relu', 'leaky_relu (slope 0.2) or silu.', one_of('leaky_relu', 'silu')
    )
    decoder_norm: str = setting('group', 'group or none.', one_of('group', 'none'))
    decoder_modulated: bool = setting(
        False,
        "z scales and shifts the features of each of the decoder's maps, as in a U-Net.",
    )
    decoder_output: str = setting(
        'tanh',
        'tanh: pixels within 1 + data.headroom of 0; linear: any number. With a condition the '
        'output is the initial fill plus a linear residual.',
        one_of('tanh', 'linear'),
    )
    init_std: float = setting(
        0.0, "standard deviation of initial kernels; 0: LeCun's.", NOT_NEGATIVE
    )
    likelihood: tuple = setting(
        (*(('gated', 32, 3),) * 6, ('dense', 64)),
        "of pixelcnn and pixeliqn: ('gated', features, kernel) rows, at least two, then ('dense', "
        'features) rows.',
        *LIKELIHOOD,
    )


@dataclasses.dataclass(eq=False)
class ScheduleConfig(Settings):
    """The learning rates over time."""

    name: str = setting(
        'linear',
        'constant; linear: constant, then a linear decay over the last part of the run; '
        'exponential: a factor decay_rate every decay_steps, smoothly.',
        one_of('constant', 'linear', 'exponential'),
    )
    decay_share: float = setting(0.5, 'linear: the share of the run that decays.', SHARE)
    final_share: float = setting(0.05, 'linear: the rate at the end, as a share.', SHARE)
    decay_rate: float = setting(0.98, 'exponential: the factor.', POSITIVE)
    decay_steps: int = setting(3000, 'exponential: steps per factor.', AT_LEAST_1)
    rise_steps: int = setting(0, "number of a model's first updates with a rising rate.", COUNT)
    energy_steps: int = setting(
        0,
        "length of the energy's schedule, in the energy's own updates; 0: num_steps. After "
        'warmup_steps without energy updates, num_steps is too long: the decay does not end.',
        COUNT,
    )


@dataclasses.dataclass(eq=False)
class ConditionConfig(Settings):
    """Which part of an image is observed; the models recover the rest."""

    RENAMED = {'side': 'hole_size', 'profiles': 'edge_profiles', 'moves': 'updates'}

    kind: str = setting(
        'none',
        'none: complete images are modelled. In center_hole, random_hole (a square anywhere), '
        'free_form (brush strokes) and lower_half pixels are missing; in gray the colours, in '
        'low_resolution the detail of all pixels.',
        ROW,
    )
    hole_size: float = setting(
        0.5,
        "side of the hole, as a share of the image's side; strokes cover the area of such a hole.",
        Range('in (0, 1)', lambda size: 0 < size < 1),
    )
    jitter: float = setting(
        0.0,
        'center_hole, in training: the largest random shift of the hole in each direction, as a '
        "share of the image's side.",
        Range('in [0, 0.5]', lambda jitter: 0 <= jitter <= 0.5),
    )
    edge_profiles: float = setting(
        0.0,
        'rectangular holes: factor of the high frequencies of the strips around the hole, which '
        'are continued into it and added to the harmonic fill: rows of windows continue.',
        NOT_NEGATIVE,
    )
    factor: int = setting(
        4,
        'low_resolution: a block of factor x factor pixels is observed as its mean.',
        Range('at least 2', lambda factor: factor >= 2),
    )
    updates: str = setting(
        'hidden',
        'hidden: the chain updates the missing pixels; all: it updates all, and observed pixels '
        'are restored at its end.',
        one_of('hidden', 'all'),
    )


@dataclasses.dataclass(eq=False)
class DivergenceConfig(Settings):
    """Roll-back of a run that diverges.

    It returns to its last checkpoint and continues with other noise and lower learning rates.
    """

    max_energy: float = setting(
        1e10,
        'a mean energy of data or samples beyond +- this (nats) counts as divergence, as does any '
        'metric that is not finite; 0: only the latter.',
        NOT_NEGATIVE,
    )
    max_rollbacks: int = setting(3, 'number of roll-backs before the run stops.', COUNT)
    rate_factor: float = setting(
        0.5,
        'factor of all learning rates after each roll-back.',
        Range('in (0, 1]', lambda factor: 0 < factor <= 1),
    )


@dataclasses.dataclass(eq=False)
class Config(Settings):
    """An experiment."""

    name: str = setting('digits', 'name of the experiment.')
    seed: int = setting(0, 'of initial parameters, data order and all sampling.', SEED)
    num_steps: int = setting(2500, 'total number of training iterations.', AT_LEAST_1)
    batch_size: int = setting(128, 'images per iteration, over all devices.', AT_LEAST_1)
    num_chains: int = setting(
        0, 'Langevin chains per iteration, over all devices; 0: batch_size.', COUNT
    )
    latent_dim: int = setting(16, 'size of z.', AT_LEAST_1)
    log_every: int = setting(50, 'in iterations; 0: never (the last step always).', COUNT)
    sample_every: int = setting(500, 'in iterations; 0: never (the last step always).', COUNT)
    checkpoint_every: int = setting(500, 'in iterations; 0: never (the last step always).', COUNT)
    keep_checkpoints: int = setting(3, 'number of newest checkpoints kept; 0: all.', COUNT)
    steps_per_call: int = setting(1, 'iterations per compiled call.', AT_LEAST_1)
    ema_decay: float = setting(
        0.99, 'of the averaged parameters, which draw the samples; 0: no average.', BELOW_1
    )
    init_from: str = setting(
        '', "a workdir whose newest parameters this run starts from; '': random ones."
    )
    method: str = setting(
        'vaebm',
        'vaebm, or a baseline: vae learns from the data, without an energy; coopnets has an energy '
        'and a decoder, without an encoder; short_run and persistent have an energy alone, whose '
        'chains start from noise, or from a replay memory; in dcgan and wgan_gp the decoder learns '
        'from a critic, which is the network of the energy; pixelcnn and pixeliqn draw the values '
        'of an image one after another. With a condition alone: ccoopnets, and with critics of '
        'patches pix2pix, cvae_gan, cvae_gan_pp and bicycle_gan.',
        ROW,
    )
    warmup_steps: int = setting(
        0, 'number of first steps in which only the VAE learns, from the data.', COUNT
    )
    dtype: str = setting(
        'float32',
        'data type of computation, float32 or bfloat16; parameters and energies are float32.',
        one_of('float32', 'bfloat16'),
    )
    generator: str = setting(
        'threefry2x32',
        'of random numbers: threefry2x32 gives the same on every backend and number of devices; '
        'rbg is cheaper on accelerators and does not.',
        one_of('threefry2x32', 'rbg'),
    )
    convolution: str = setting(
        'auto',
        "auto: the fastest measured form on the platform, on a CPU this package's own; plain: "
        "XLA's convolution and JAX's gradients of it; patches: few channels, and strides, as "
        'products that suit a GPU (not yet measured, slow on a CPU). They differ by rounding; '
        'plain is for comparing numbers.',
        one_of('auto', 'plain', 'patches'),
    )
    data: DataConfig = field(default_factory=DataConfig)
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    divergence: DivergenceConfig = field(default_factory=DivergenceConfig)
