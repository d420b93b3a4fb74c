"""An experiment's settings. A file in `configs/` fills them in; `validate` checks them.

Only the standard library is imported, so a config file can be read anywhere. Command-line flags
write to a config; a compiled function takes it as a static argument. So it can be changed until it
is first used, and never afterwards. Sequences are tuples.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Self

from vaebm_jax.errors import UserError


class Settings:
    """What a config and its sections have in common: once used, they never change.

    JAX keeps a static argument as the key of a compiled program. Were it changed in place, that
    program would go on serving the old settings. So `hash`, which JAX takes, and `freeze`, which
    the functions of this package call, are a first use: from then on an assignment is an error at
    any depth. `dataclasses.replace` makes a config with other settings, which can be changed again;
    so can a deep copy.
    """

    def freeze(self) -> Self:
        """Ends the time in which settings can be assigned; returns the same object."""
        for value in vars(self).values():
            if isinstance(value, Settings):
                value.freeze()
        vars(self)['_is_frozen'] = True
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).__name__
        if name not in self.__dataclass_fields__:
            raise AttributeError(f'{kind} has no setting {name!r}')
        if '_is_frozen' in vars(self):
            raise dataclasses.FrozenInstanceError(
                f'{kind}.{name} cannot be set any more: this config was used, and compiled '
                f'functions keep it as it is; dataclasses.replace(config, ...) makes another'
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f'{type(self).__name__}.{name} cannot be deleted')

    def __post_init__(self):
        # Sections of one's own, or `dataclasses.replace` would share them with the original.
        for name, value in vars(self).items():
            if isinstance(value, Settings):
                vars(self)[name] = dataclasses.replace(value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash((type(self), *self.freeze().__getstate__().values()))


@dataclasses.dataclass(eq=False)
class DataConfig(Settings):
    """Where images come from.

    Attributes:
      name: digits (embedded), mnist, fashion_mnist, cifar10 (through TFDS), or a folder of images:
        facades, paris_streetview, or folder for any other; or array, an .npy file of uint8 images
        [N, H, W, C] or [N, H, W]; or points of the plane, as images of one pixel and two channels,
        in units of their own: eight_gaussians, ring, two_moons, checkerboard.
      dir: TFDS's data directory ('': its own default, or TFDS_DATA_DIR), or the folder of images
        ('': facades has FACADES_DIR, paris_streetview PARIS_STREETVIEW_DIR), or the .npy file;
        docs/reliability.md says which of a folder's files are images, and which of its folders are
        splits.
      image_size: pixels a side; a folder's images are resized to it.
      load_size: training images of a folder are resized to so many pixels a side, and at each use
        a random part of image_size is taken; 0: the whole image.
      crop: what of a file is the image: center, its largest centred square; left or right, that of
        its left or right half (pix2pix's files have a photograph on the left, labels on the right).
      val_share, test_share: of a folder's images, by a hash of their names, where it has no train,
        val and test folders below it; at least one image each. Of an array the last images are
        test, those before them val. Both 0: every split is all of them.
      skip_unreadable: leave out the files of a folder that are damaged, animated or no images, and
        count them, in place of stopping at the first.
      white_level: the value that is white in a folder's files of 16 bits: 1023 for 10 bits, 4095
        for 12, the largest depth of a depth camera; larger values are white, too. 0: 65535.
      num_channels: 1 or 3; 2 of points.
      flip: mirror each training image left to right with probability 1/2.
      dequantize: spread each 8-bit value over its bin by uniform noise.
      headroom: pixels of 0 and 255, where 8 bits end, stand so far below -1 and above 1; every
        picture clips them again.
      resident_bytes: a set of at most so many bytes is held on every device, a larger folder is
        streamed from disk.
    """

    name: str = 'digits'
    dir: str = ''
    image_size: int = 8
    load_size: int = 0
    crop: str = 'center'
    val_share: float = 0.0
    test_share: float = 0.0
    skip_unreadable: bool = False
    white_level: int = 0
    num_channels: int = 1
    flip: bool = False
    dequantize: bool = False
    headroom: float = 0.0
    resident_bytes: int = 2 * 1024**3


@dataclasses.dataclass(eq=False)
class LangevinConfig(Settings):
    """The chain x <- x - (δ²/2) ∇U(x) + δ · noise.

    Attributes:
      num_steps: T, the number of steps.
      step_size: δ. With a reference term x is drawn to m by δ²/(2 σ²) a step; stable below 2 σ.
      noise_scale: 1 is the poster's chain, 0 the authors' code.
      max_drift: bound on the length of (δ²/2) ∇U(x), an image and step; 0: none, as the poster.
    """

    num_steps: int = 20
    step_size: float = 0.006
    noise_scale: float = 1.0
    max_drift: float = 0.0


@dataclasses.dataclass(eq=False)
class EnergyConfig(Settings):
    """U(x) = |x - m|²/(2 σ²) - scale · f(x) and its Adam.

    Attributes:
      reference_std: σ of the Gaussian reference term; 0: no such term.
      reference_mean: m of it, in every pixel; 0 is grey, -1 (less `data.headroom`) black.
      scale: the factor of the network; 0: 1 / σ², the normalised form; 1: the authors' form.
      learning_rate: Adam's, at its highest.
      adam_b1, adam_b2: Adam's decay of the first and the second moment.
      max_grad_norm: a gradient longer than this, in units of `scale`, is shortened to it; 0: none.
      spectral_norm: every kernel's largest singular value is scaled to it; 0: kernels as they are.
      l2: factor of `f(x)²`, its mean over data and over samples, in the energy's loss divided by
        `scale`: it holds f near 0, where the loss alone would let it drift.
      data_noise: standard deviation of the noise that the energy's data are given. The chain leaves
        `step_size * sqrt(num_steps)` on its samples, by which an energy could tell them.
    """

    reference_std: float = 0.016
    reference_mean: float = 0.0
    scale: float = 0.0
    learning_rate: float = 1e-3
    adam_b1: float = 0.5
    adam_b2: float = 0.999
    max_grad_norm: float = 0.0
    spectral_norm: float = 0.0
    l2: float = 0.0
    data_noise: float = 0.0


@dataclasses.dataclass(eq=False)
class VAEConfig(Settings):
    """Encoder and decoder.

    Attributes:
      learning_rate: Adam's, at its highest.
      kl_weight: factor of the rate beside the squared error; half of it is the decoder's variance.
      adam_b1, adam_b2: Adam's decay of the first and the second moment.
      max_grad_norm: a gradient longer than this is shortened to it; 0: none is.
      bound_weight: factor of the loss on refined samples; 1: the poster.
      known_z_weight: factor of the squared distance from a refined sample to what the decoder makes
        of the very z that its chain started from (Hill et al., Dual-MCMC teaching, 2023); 0: the
        poster.
      truth_weight: factor of the same loss on the data themselves, beside that on revised samples;
        0: the poster, whose VAE learns from revised samples alone.
      guess_weight: with a condition, factor of the squared distance from a first guess to the
        truth, as the cooperative learner of conditional CoopNets has it; 0: the poster.
    """

    learning_rate: float = 1e-4
    kl_weight: float = 0.3
    adam_b1: float = 0.5
    adam_b2: float = 0.999
    max_grad_norm: float = 0.0
    bound_weight: float = 1.0
    known_z_weight: float = 0.0
    truth_weight: float = 0.0
    guess_weight: float = 0.0


@dataclasses.dataclass(eq=False)
class NetworkConfig(Settings):
    """Tables of layers; `vaebm_jax.networks` says what a row means.

    Attributes:
      energy: ('conv', features, kernel, stride), ('res', features, stride), ('dense', features)
        rows.
      energy_outputs: how many outputs the energy sums.
      encoder: as `energy`, and ('dropout', rate).
      decoder: ('dense', features) rows, and after one ('map', features) row also
        ('up', features, kernel) and ('conv', features, kernel) rows; or, with a condition, a U-Net:
        ('down', features, kernel) rows, then as many `up` rows, `conv` rows between.
      activation: leaky_relu (slope 0.2) or silu.
      decoder_norm: group or none.
      decoder_modulated: z scales and shifts the features of every map of the decoder, as it does in
        a U-Net.
      decoder_output: tanh, pixels in (-1, 1) and `data.headroom`, or linear, any number; with a
        condition the output is its hint and a residual, linear in any case.
      init_std: standard deviation of initial kernels; 0: LeCun's.
    """

    energy: tuple = (('dense', 256), ('dense', 256))
    energy_outputs: int = 1
    encoder: tuple = (('dense', 256), ('dense', 256))
    decoder: tuple = (('dense', 256), ('dense', 256))
    activation: str = 'leaky_relu'
    decoder_norm: str = 'group'
    decoder_modulated: bool = False
    decoder_output: str = 'tanh'
    init_std: float = 0.0


@dataclasses.dataclass(eq=False)
class ScheduleConfig(Settings):
    """How both learning rates fall.

    Attributes:
      name: constant; linear: level, then straight down over the last part of the run;
        exponential: a factor `decay_rate` every `decay_steps`, smoothly.
      decay_share: linear: the share of the run that the fall takes.
      final_share: linear: what is left of the rate at the end.
      decay_rate: exponential: the factor.
      decay_steps: exponential: training steps to one factor.
      rise_steps: in its first so many updates a model's rate rises from 0.
      energy_steps: the run is so long for the energy's rate, which counts the energy's own updates;
        0: num_steps, the last part of which it does not see after a warm start.
    """

    name: str = 'linear'
    decay_share: float = 0.5
    final_share: float = 0.05
    decay_rate: float = 0.98
    decay_steps: int = 3000
    rise_steps: int = 0
    energy_steps: int = 0


@dataclasses.dataclass(eq=False)
class ConditionConfig(Settings):
    """What of an image is seen, where the models are of the rest.

    Attributes:
      kind: none: the models are of whole images; center_hole, random_hole (a square anywhere),
        free_form (brush strokes) and lower_half hide pixels; gray and low_resolution hide colours
        and detail of them all.
      side: of a hole, as a share of the image's; strokes hide the area of such a hole.
      jitter: center_hole, in training: how far the hole strays from the centre each way, as a
        share of the image's side.
      profiles: center_hole, random_hole: factor of the edges' profiles in the hint. Rows of windows
        go on behind a hole: so much of what quickly changes along the strips beside, above and
        below it is added to the harmonic fill.
      factor: low_resolution: how many pixels a side become one.
      moves: what the chain moves, hidden pixels or all; what is seen is put back at its end.
    """

    kind: str = 'none'
    side: float = 0.5
    jitter: float = 0.0
    profiles: float = 0.0
    factor: int = 4
    moves: str = 'hidden'


@dataclasses.dataclass(eq=False)
class DivergenceConfig(Settings):
    """What becomes of a run whose numbers explode.

    It goes back to its last checkpoint, and on from there with other noise and lower rates.

    Attributes:
      max_energy: mean energies of data or samples beyond +- this (nats) count as exploded, as do
        metrics that are not finite; 0: the latter alone.
      max_rollbacks: the run goes back so many times, and then stops.
      rate_factor: both learning rates are multiplied by it each time.
    """

    max_energy: float = 1e10
    max_rollbacks: int = 3
    rate_factor: float = 0.5


@dataclasses.dataclass(eq=False)
class Config(Settings):
    """An experiment.

    Attributes:
      name: a word for the experiment.
      seed: of initial parameters, order of data and every draw.
      num_steps: training iterations in all.
      batch_size: data images an iteration, over all devices.
      num_chains: Langevin chains an iteration, over all devices; 0: as `batch_size`.
      latent_dim: size of z.
      log_every, sample_every, checkpoint_every: in iterations; 0: never (the last step always).
      keep_checkpoints: the newest so many are kept; 0: all.
      steps_per_call: iterations in one compiled call.
      ema_decay: of the averaged parameters that samples are drawn with.
      init_from: a workdir whose newest parameters this run starts from; '': fresh ones.
      method: vaebm, or a baseline's name: vae learns from the data, without an energy.
      warmup_steps: so many of the first steps are the vae's, a start near the data.
      dtype: float32 or bfloat16, of computation; parameters and energies stay float32.
      generator: of noise: threefry2x32, the same numbers on every backend and number of devices,
        or rbg, the accelerator's own and cheaper, which promises neither.
    """

    name: str = 'digits'
    seed: int = 0
    num_steps: int = 2500
    batch_size: int = 128
    num_chains: int = 0
    latent_dim: int = 16
    log_every: int = 50
    sample_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    steps_per_call: int = 1
    ema_decay: float = 0.99
    init_from: str = ''
    method: str = 'vaebm'
    warmup_steps: int = 0
    dtype: str = 'float32'
    generator: str = 'threefry2x32'
    data: DataConfig = field(default_factory=DataConfig)
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    divergence: DivergenceConfig = field(default_factory=DivergenceConfig)


def mnist_paper_network() -> NetworkConfig:
    """The authors' networks for 28x28x1: energy 1,625,188 and encoder 759,688 parameters."""
    return NetworkConfig(
        energy=(('conv', 64, 5, 2), ('conv', 128, 3, 2), ('conv', 256, 3, 1)),
        energy_outputs=100,
        encoder=(('conv', 64, 4, 2), ('conv', 64, 4, 2), ('conv', 64, 4, 1), ('dropout', 0.2)),
        decoder=(('map', 256), ('up', 128, 3), ('up', 64, 3)),
        init_std=0.005,
    )


def cifar10_paper_network() -> NetworkConfig:
    """The authors' networks for 32x32x3: energy 1,710,465 and encoder 4,393,800 parameters."""
    return NetworkConfig(
        energy=(('conv', 64, 3, 1), ('conv', 128, 4, 2), ('conv', 256, 4, 2), ('conv', 256, 4, 2)),
        encoder=(('conv', 64, 3, 1), ('conv', 128, 4, 2), ('conv', 256, 4, 2), ('conv', 512, 4, 2)),
        decoder=(('map', 256), ('up', 128, 3), ('up', 64, 3), ('up', 64, 3)),
        init_std=0.005,
    )


def recovery_network(image_size: int) -> NetworkConfig:
    """Networks with a condition, for images of 64, 128 or 256 pixels: a U-Net down to 4 pixels."""
    trunk, downs = {
        64: ((32, 64, 128), (32, 64, 96, 128)),
        128: ((32, 64, 128, 128), (32, 64, 96, 128, 128)),
        256: ((32, 64, 128, 256, 256), (32, 64, 128, 256, 256, 256)),
    }[image_size]
    ups = (*reversed(downs[:-1]), 16)
    return NetworkConfig(
        energy=tuple(('conv', features, 4, 2) for features in trunk),
        encoder=tuple(('conv', features, 4, 2) for features in trunk),
        decoder=(
            *(('down', features, 3) for features in downs),
            *(('up', features, 3) for features in ups),
        ),
        activation='silu',
    )


def choose(variant: str, **variants: Config) -> Config:
    """The variant that follows a config file's name behind a colon; `default` without one."""
    name = variant or 'default'
    if name not in variants:
        raise UserError(f'there is no variant {variant!r}; there are: {", ".join(variants)}')
    return variants[name]


# What may differ between a run and its continuation; any other difference is refused by name.
FREE_ON_RESUME = (
    'name',
    'num_steps',
    'log_every',
    'sample_every',
    'checkpoint_every',
    'keep_checkpoints',
    'steps_per_call',
    'init_from',
    'data.dir',
    'data.resident_bytes',
    'data.skip_unreadable',
    'divergence.max_energy',
    'divergence.max_rollbacks',
)

# The tables that settings choose a row of, by the setting's dotted name; each table's module enters
# it. A row has `needs(config)`: the settings that are wrong with it, each with what would be right.
CHOICES: dict[str, Mapping[str, Any]] = {}

_HOLES = ('center_hole', 'random_hole', 'free_form', 'lower_half')
_CONDITION_KINDS = ('none', *_HOLES, 'gray', 'low_resolution')

_TRUNK_ROWS = {'conv': 3, 'res': 2, 'dense': 1}
_TABLE_ROWS = {
    'energy': _TRUNK_ROWS,
    'encoder': _TRUNK_ROWS | {'dropout': 1},
    'decoder': {'dense': 1, 'map': 1, 'down': 2, 'up': 2, 'conv': 2},
}
_TABLE_ORDER = {
    'energy': '((conv|res) )*(dense )*',
    'encoder': '((conv|res|dropout) )*((dense|dropout) )*',
    'decoder': '(dense )*(map ((up|conv) )*)?|down ((down|conv) )*((up|conv) )*',
}


KINDS = {
    bool: 'true or false',
    int: 'a whole number',
    float: 'a number',
    str: 'a text',
    tuple: 'a tuple',
}


def validate(config: Config, choices: Mapping[str, Mapping[str, Any]] = CHOICES) -> None:
    """Raises one UserError that names every wrong field, its value and what would be right.

    Args:
      config: to be checked.
      choices: the tables that settings choose a row of.
    """
    wrong = []
    values = flatten(config)

    def expect(right: str, is_right, *names: str):
        for name in names:
            if not is_right(values[name]):
                wrong.append(f'{name} must be {right}, got {values[name]!r}')

    def one_of(name: str, *choices: str):
        expect('one of ' + ', '.join(choices), lambda value: value in choices, name)

    for name, default in flatten(Config()).items():
        kind = type(default)
        kinds = (int, float) if kind is float else (kind,)
        if type(values[name]) not in kinds:
            wrong.append(f'{name} must be {KINDS[kind]}, got {values[name]!r}')
    if wrong:
        raise UserError('; '.join(wrong))

    expect('at least 1', lambda n: n >= 1, 'num_steps', 'batch_size', 'latent_dim')
    expect('at least 1', lambda n: n >= 1, 'steps_per_call', 'network.energy_outputs')
    expect('at least 1', lambda n: n >= 1, 'data.image_size', 'schedule.decay_steps')
    expect('0 or more', lambda n: n >= 0, 'num_chains', 'log_every', 'sample_every')
    expect('0 or more', lambda n: n >= 0, 'warmup_steps', 'divergence.max_rollbacks')
    expect('0 or more', lambda n: n >= 0, 'checkpoint_every', 'keep_checkpoints')
    expect('at least 1', lambda n: n >= 1, 'langevin.num_steps')
    expect('0 or more', lambda n: n >= 0, 'data.resident_bytes', 'schedule.energy_steps')
    expect('0 or more', lambda n: n >= 0, 'schedule.rise_steps')
    expect('from 0 to 2**32 - 1', lambda n: 0 <= n < 2**32, 'seed')
    positive = lambda value: 0 < value < float('inf')
    expect('a positive number', positive, 'langevin.step_size', 'energy.learning_rate')
    expect('a positive number', positive, 'vae.learning_rate', 'schedule.decay_rate')
    not_negative = lambda value: 0 <= value < float('inf')
    expect('0 or a positive number', not_negative, 'langevin.noise_scale', 'vae.kl_weight')
    expect('0 or a positive number', not_negative, 'langevin.max_drift')
    expect('0 or a positive number', not_negative, 'vae.truth_weight', 'vae.guess_weight')
    expect('0 or a positive number', not_negative, 'vae.known_z_weight', 'vae.bound_weight')
    expect('0 or a positive number', not_negative, 'energy.max_grad_norm', 'vae.max_grad_norm')
    expect('0 or a positive number', not_negative, 'energy.spectral_norm', 'energy.l2')
    expect('0 or a positive number', not_negative, 'energy.reference_std', 'energy.scale')
    expect('0 or a positive number', not_negative, 'energy.data_noise')
    expect('0 or a positive number', not_negative, 'network.init_std', 'divergence.max_energy')
    expect('0 or a positive number', not_negative, 'data.headroom')
    end = 1 + config.data.headroom
    expect(f'in [{-end:g}, {end:g}]', lambda mean: abs(mean) <= end, 'energy.reference_mean')
    expect('in (0, 1]', lambda factor: 0 < factor <= 1, 'divergence.rate_factor')
    expect('in [0, 1)', lambda b: 0 <= b < 1, 'ema_decay', 'energy.adam_b1', 'vae.adam_b1')
    expect('in [0, 1)', lambda b: 0 <= b < 1, 'energy.adam_b2', 'vae.adam_b2')
    expect('in [0, 1]', lambda b: 0 <= b <= 1, 'schedule.decay_share', 'schedule.final_share')
    one_of('dtype', 'float32', 'bfloat16')
    one_of('generator', 'threefry2x32', 'rbg')
    one_of('method', 'vaebm', 'vae')
    one_of('condition.kind', *_CONDITION_KINDS)
    one_of('condition.moves', 'hidden', 'all')
    expect('in (0, 1)', lambda side: 0 < side < 1, 'condition.side')
    expect('in [0, 0.5]', lambda jitter: 0 <= jitter <= 0.5, 'condition.jitter')
    expect('0 or a positive number', not_negative, 'condition.profiles')
    expect('at least 2', lambda factor: factor >= 2, 'condition.factor')
    one_of('schedule.name', 'constant', 'linear', 'exponential')
    one_of('network.activation', 'leaky_relu', 'silu')
    one_of('network.decoder_norm', 'group', 'none')
    one_of('network.decoder_output', 'tanh', 'linear')
    for name, rows in choices.items():
        one_of(name, *rows)
        if values[name] in rows:
            for setting, right in rows[values[name]].needs(config):
                wrong.append(f'{setting} must be {right}, got {values[setting]!r}')
    one_of('data.crop', 'center', 'left', 'right')
    expect('in [0, 1)', lambda share: 0 <= share < 1, 'data.val_share', 'data.test_share')
    larger = f'0 or at least data.image_size = {config.data.image_size}'
    expect(larger, lambda n: n == 0 or n >= config.data.image_size, 'data.load_size')
    expect('0, or from 255 to 65535', lambda n: n == 0 or 255 <= n < 2**16, 'data.white_level')
    if config.data.val_share + config.data.test_share >= 1:
        wrong.append('data.val_share + data.test_share must leave images to train on')
    kind, size = config.condition.kind, config.data.image_size
    if kind == 'low_resolution':
        divides = f'a divisor of data.image_size = {size}'
        expect(divides, lambda factor: size % factor == 0, 'condition.factor')
    if kind == 'none':
        without = '0 where condition.kind is none: there is one truth for each condition'
        expect(without, lambda weight: weight == 0, 'vae.guess_weight')
    else:
        without = '0 where condition.kind is not none: what is seen stays as it is'
        expect(without, lambda headroom: headroom == 0, 'data.headroom')
    if config.num_chains and kind != 'none':
        multiple = f'a multiple of batch_size = {config.batch_size} where images have a condition'
        expect(multiple, lambda n: n % config.batch_size == 0, 'num_chains')
    if kind in _HOLES:
        expect('at least 4 where pixels are hidden', lambda size: size >= 4, 'data.image_size')
    if kind == 'gray':
        expect('3 where condition.kind is gray', lambda n: n == 3, 'data.num_channels')
    std = config.energy.reference_std
    if not config.vae.bound_weight and not config.vae.truth_weight:
        wrong.append('vae.bound_weight or vae.truth_weight must be above 0: they teach the encoder')
    if std:
        expect('0 where energy.reference_std is not 0', lambda l2: l2 == 0, 'energy.l2')
        stable = f'below 2 * energy.reference_std = {2 * std:g}, or the chain diverges'
        expect(stable, lambda step_size: step_size < 2 * std, 'langevin.step_size')
    else:
        expect('given where energy.reference_std is 0', bool, 'energy.scale')
        without = '0 where energy.reference_std is 0: there is no reference term'
        expect(without, lambda mean: mean == 0, 'energy.reference_mean')
    for name, rows in _TABLE_ROWS.items():
        allowed = ', '.join(f'{kind} and {count} sizes' for kind, count in rows.items())
        expect(
            f'a tuple of rows such as ("dense", 64) (here: {allowed})',
            lambda table, rows=rows: all(_is_row(row, rows) for row in table),
            f'network.{name}',
        )
    if wrong:
        raise UserError('; '.join(wrong))
    for name, order in _TABLE_ORDER.items():
        expect(
            f'in the order {order}',
            lambda table, order=order: re.fullmatch(order, ''.join(f'{row[0]} ' for row in table)),
            f'network.{name}',
        )
    rows = [row[0] for row in config.network.decoder]
    if 'down' in rows:
        expect(
            'of as many up rows as down rows',
            lambda _: rows.count('up') == rows.count('down'),
            'network.decoder',
        )
        expect(
            'another where network.decoder has down rows: they read a condition',
            lambda kind: kind != 'none',
            'condition.kind',
        )
    if wrong:
        raise UserError('; '.join(wrong))


def _is_row(row: Any, rows: dict[str, int]) -> bool:
    if not isinstance(row, tuple) or not row or row[0] not in rows:
        return False
    kind, *sizes = row
    if len(sizes) != rows[kind]:
        return False
    if kind == 'dropout':
        return isinstance(sizes[0], float) and 0 <= sizes[0] < 1
    return all(isinstance(size, int) and size >= 1 for size in sizes)


def flatten(config: Config) -> dict[str, Any]:
    """The settings by dotted name: `{'langevin.num_steps': 20, ...}`."""
    flat = {}
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name)
        if dataclasses.is_dataclass(value):
            inner = flatten(value).items()
            flat |= {f'{setting.name}.{name}': inner_value for name, inner_value in inner}
        else:
            flat[setting.name] = value
    return flat


def to_json(config: Config) -> str:
    """The whole config as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + '\n'


def from_json(text: str) -> Config:
    """Reads what `to_json` wrote; a field left out has its default.

    Raises:
      UserError: if the text is no JSON object or names a field that there is not.
    """
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f'not JSON: {error}') from error
    if not isinstance(tree, dict):
        raise UserError(f'a config is a JSON object, got {type(tree).__name__}')
    config = Config()
    _fill(config, tree, '')
    return config


def _fill(section: Any, tree: dict[str, Any], prefix: str) -> None:
    names = {setting.name for setting in dataclasses.fields(section)}
    for name, value in tree.items():
        if name not in names:
            raise UserError(f'there is no config field {prefix}{name}')
        inner = getattr(section, name)
        if not dataclasses.is_dataclass(inner):
            setattr(section, name, _as_tuple(value))
        elif isinstance(value, dict):
            _fill(inner, value, f'{prefix}{name}.')
        else:
            raise UserError(f'{prefix}{name} must be an object of settings, got {value!r}')


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def refuse_other_run(old: Config, new: Config) -> None:
    """Raises a UserError that names the fields in which `new` cannot continue `old`'s run."""
    differences = _differences(old, new, lambda name: name not in FREE_ON_RESUME)
    if differences:
        raise UserError(
            'the workdir holds a run with other settings (use another workdir, or these): '
            + differences
        )


def refuse_other_networks(old: Config, new: Config) -> None:
    """Raises a UserError that names the fields in which `new` has other models than `old`."""
    shapes = ('latent_dim', 'data.image_size', 'data.num_channels', 'condition.kind')
    differences = _differences(old, new, lambda name: name.startswith('network.') or name in shapes)
    if differences:
        raise UserError(f'the workdir holds other networks: {differences}')


def _differences(old, new, counts):
    before, now = flatten(old), flatten(new)
    return '; '.join(
        f'{name} was {before[name]!r}, now {now[name]!r}'
        for name in before
        if before[name] != now[name] and counts(name)
    )
