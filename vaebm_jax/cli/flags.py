"""Every flag of the command line: its meaning, and the modes and runs that it is for."""

import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from vaebm_jax.cli import config_file
from vaebm_jax.config import Config, described, flatten
from vaebm_jax.data.conditions import idle_settings
from vaebm_jax.methods import has_energy, is_unused
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import TASKS, task_of
from vaebm_jax.training.pretrained import pretrained_names

MODES = {
    'train': 'Trains a model, or continues from the newest checkpoint in the workdir.',
    'sample': 'Draws from a trained run. Writes pictures and arrays to WORKDIR/samples.',
    'evaluate': 'Scores a trained run. Writes WORKDIR/evaluation.json.',
    'likelihood': 'Bounds the likelihood of the test images. Writes WORKDIR/likelihood.json. An '
    'energy of images that learned from short chains is right near its samples alone, and its '
    'likelihood compares no models.',
    'recover': 'Fills in the missing part of one photograph, with a run that has a condition.',
    'geometry': 'For points of the plane: measures every saved checkpoint of the run. '
    'Writes WORKDIR/geometry.jsonl.',
    'report': 'Puts scores, pictures, curves and settings on one page, WORKDIR/report.html.',
}
_COMPUTING = tuple(mode for mode in MODES if mode != 'report')


class Runs(NamedTuple):
    """A set of runs: in words, whether a config belongs to it, and the field that decides."""

    words: str
    include: Callable[[Config], bool]
    field: str


_CONDITIONAL = Runs('with a condition', lambda c: task_of(c) is TASKS['recovery'], 'condition.kind')
_UNCONDITIONAL = Runs(
    'without a condition', lambda c: task_of(c) is not TASKS['recovery'], 'condition.kind'
)
_IMAGES = Runs('on images', lambda c: task_of(c) is not TASKS['points'], 'data.name')
_SEEN = Runs(
    'on images of 1 or 3 channels, which Inception-v3 sees',
    lambda c: c.data.num_channels in (1, 3),
    'data.num_channels',
)
_REFINING = Runs('with an energy', has_energy, 'method')


class Flag(NamedTuple):
    """A flag.

    Attributes:
      name: without its dashes.
      kind: bool, int or str; a tuple of strings: one of them.
      default: None: no default.
      help: its meaning, in sentences.
      modes: the modes that use it; it is refused elsewhere.
      value: the name of its value in `--help`.
      lowest: of an int.
      runs: it is refused for runs that are not in all of these.
      needs: another flag, without which it has no effect.
    """

    name: str
    kind: Any
    default: Any
    help: str
    modes: tuple[str, ...] = tuple(MODES)
    value: str = 'N'
    lowest: int | None = None
    runs: tuple[Runs, ...] = ()
    needs: str = ''


_DRAWING = ('sample', 'evaluate', 'likelihood', 'recover')
_RECOVERY = {'runs': (_CONDITIONAL,)}

FLAGS = (
    Flag(
        'workdir',
        str,
        None,
        'The folder of the run: settings, checkpoints, metrics, pictures and scores. Training '
        'makes it.',
        value='FOLDER',
    ),
    Flag(
        'pretrained',
        str,
        None,
        'Models that come with the package, in place of a run in a workdir: '
        f'{", ".join(pretrained_names())}. In sample it needs --output.',
        config_file.PRETRAINED_MODES,
        value='NAME',
    ),
    Flag('mode', tuple(MODES), 'train', 'What to do. The sections below say what each mode does.'),
    Flag('debug', bool, False, 'Show the full Python traceback of an error, not only one line.'),
    Flag(
        'resume',
        ('newest_whole', 'strict'),
        'newest_whole',
        'What to do if the newest checkpoint is damaged: continue from the newest one that is '
        'complete, or stop with an error (strict).',
        ('train',),
    ),
    Flag('profile', bool, False, 'Write a profiler trace to WORKDIR/profile.', ('train',)),
    Flag(
        'tensorboard',
        bool,
        False,
        "Also write the metrics as TensorBoard event files. Needs pip install 'vaebm_jax"
        "[tensorboard]'.",
        ('train',),
    ),
    Flag(
        'num_samples',
        int,
        None,
        'How many samples to draw, at least 20. Default: 1000 in sample, 10000 in evaluate, 50000 '
        'for points of the plane. In likelihood: how many annealing chains; default: 256. For runs '
        'with a condition: how many images to recover, from the first of the split on; default: 20 '
        'in sample, all in evaluate.',
        ('sample', 'evaluate', 'likelihood'),
        lowest=20,
    ),
    Flag(
        'langevin_steps',
        int,
        None,
        'Number of Langevin steps that refine a sample. Default: langevin.num_steps of the run.',
        (*_DRAWING, 'geometry'),
        lowest=1,
        runs=(_REFINING,),
    ),
    Flag(
        'step',
        int,
        None,
        'Use the checkpoint that was saved after N training steps. Default: the newest.',
        _DRAWING,
        lowest=1,
    ),
    Flag(
        'ema',
        bool,
        True,
        'Use the moving averages of the parameters; --noema: the last parameters.',
        (*_DRAWING, 'geometry'),
    ),
    Flag(
        'interpolation',
        ('linear', 'spherical'),
        'linear',
        'The path between two latent vectors in interpolation.png: a straight line, or an arc.',
        ('sample',),
        runs=(_IMAGES, _UNCONDITIONAL),
    ),
    Flag(
        'split',
        ('train', 'val', 'test'),
        'test',
        'For runs with a condition: which part of the data set to recover.',
        ('sample', 'evaluate'),
        **_RECOVERY,
    ),
    Flag(
        'num_recoveries',
        int,
        None,
        'For runs with a condition: how many recoveries to draw of each image. Default: 16; 1 in '
        'recover.',
        ('sample', 'evaluate', 'recover'),
        lowest=1,
        **_RECOVERY,
    ),
    Flag(
        'inception_weights',
        str,
        None,
        'Weights of Inception-v3, a file that tools/inception_weights.py writes. They give the '
        'Frechet distances, precision, recall and the Inception score. Default: none, and without '
        'these scores.',
        ('evaluate',),
        value='FILE',
        runs=(_IMAGES, _SEEN),
    ),
    Flag(
        'reference_split',
        ('train', 'test'),
        'train',
        'The real images that Frechet distances, precision and recall compare samples with.',
        ('evaluate',),
        runs=(_IMAGES, _UNCONDITIONAL),
        needs='inception_weights',
    ),
    Flag(
        'num_reference',
        int,
        10_000,
        'How many of these real images to use, from the first on.',
        ('evaluate',),
        lowest=2,
        runs=(_IMAGES, _UNCONDITIONAL),
        needs='inception_weights',
    ),
    Flag(
        'num_temperatures',
        int,
        1_000,
        'Number of temperatures of the annealing. More give tighter bounds and take longer.',
        ('likelihood',),
        lowest=2,
    ),
    Flag(
        'input',
        str,
        None,
        'The photograph, an image file: about square, the longer side at most 1.25 times the '
        "shorter, which has half of the model's pixels or more.",
        ('recover',),
        'FILE',
    ),
    Flag(
        'mask',
        str,
        None,
        'An image of the size of the photograph: white where pixels are to be filled in, black '
        'elsewhere; or transparent there, as the photograph with its hole erased in an editor is. '
        'For runs that recover colours or detail: none.',
        ('recover',),
        'FILE',
    ),
    Flag(
        'output',
        str,
        None,
        'The image file to write, in the format of its suffix: .png, .jpg, .tif, .webp and others. '
        'In sample: a grid of the samples, and nothing else is written; --num_samples is 64 then. '
        'Several recoveries are numbered: out-0.png, out-1.png.',
        ('sample', 'recover'),
        'FILE',
    ),
    Flag(
        'distributed',
        ('auto', 'off', 'explicit'),
        'auto',
        'How the processes of one run find each other. auto: detect a TPU pod, SLURM or '
        'Kubernetes; elsewhere a single process. off: a single process. explicit: by the three '
        'flags below.',
        _COMPUTING,
    ),
    Flag(
        'coordinator_address',
        str,
        None,
        'With --distributed=explicit: the address of process 0, the same in all processes.',
        _COMPUTING,
        'HOST:PORT',
    ),
    Flag(
        'num_processes',
        int,
        None,
        'With --distributed=explicit: how many processes the run has.',
        _COMPUTING,
        lowest=1,
    ),
    Flag(
        'process_id',
        int,
        None,
        'With --distributed=explicit: the number of this process, from 0 on.',
        _COMPUTING,
        lowest=0,
    ),
)


def define() -> flags.FlagHolder:
    """Defines all flags in absl; returns the one of --config."""
    for flag in FLAGS:
        if flag.kind is bool:
            flags.DEFINE_bool(flag.name, flag.default, flag.help)
        elif flag.kind is int:
            flags.DEFINE_integer(flag.name, flag.default, flag.help, lower_bound=flag.lowest)
        elif flag.kind is str:
            flags.DEFINE_string(flag.name, flag.default, flag.help)
        else:
            flags.DEFINE_enum(flag.name, flag.default, flag.kind, flag.help)
    return config_flags.DEFINE_config_file('config', None, 'The experiment: a config file.')


def overridden() -> list[str]:
    """The settings of the config that are given on the command line."""
    names = [name for name in flags.FLAGS if name.startswith('config.')]
    return [name.removeprefix('config.') for name in names if flags.FLAGS[name].present]


def refuse_other_modes(mode: str) -> None:
    """Raises a UserError that names every given flag that has no effect in this mode."""
    wrong = [
        f'--{flag.name} does nothing in --mode={mode}, but in {", ".join(flag.modes)}'
        for flag in FLAGS
        if flags.FLAGS[flag.name].present and mode not in flag.modes
    ]
    if mode == 'report':  # It shows the settings that the run was started with.
        wrong += [f'--config.{name} does nothing in --mode=report' for name in overridden()]
    if wrong:
        raise UserError('; '.join(wrong))


def options_of(mode: str, config: Config) -> list[Flag]:
    """The flags that are options of a mode's function for such a run.

    Without `langevin_steps`, which becomes a setting of the config, and what decides the function.
    """
    return [
        flag
        for flag in FLAGS
        if mode in flag.modes
        and len(flag.modes) < len(_COMPUTING)
        and flag.name not in ('langevin_steps', 'pretrained', 'output')
        and all(runs.include(config) for runs in flag.runs)
    ]


def options(mode: str, config: Config) -> dict[str, Any]:
    """The values of `options_of`, by name; without those left to the function's defaults."""
    values = {flag.name: flags.FLAGS[flag.name].value for flag in options_of(mode, config)}
    return {name: value for name, value in values.items() if value is not None}


def refuse_other_runs(mode: str, config: Config) -> None:
    """Raises a UserError that names every given flag and setting without effect for a config.

    Also for a mode that is for other runs. `num_chains` may be given with any method, for scripts
    that compare methods.
    """
    values = flatten(config)
    wrong = [
        f'--mode={mode} needs a run {task.words}, got {values[task.field]}'
        for task in TASKS.values()
        if mode in task.modes and task is not task_of(config)
    ]
    for flag in FLAGS:
        if not flags.FLAGS[flag.name].present:
            continue
        wrong += [
            f'--{flag.name} is for runs {runs.words}, got {runs.field} {values[runs.field]}'
            for runs in flag.runs
            if not runs.include(config)
        ][:1]
        if flag.needs and not flags.FLAGS[flag.needs].present:
            wrong.append(f'--{flag.name} does nothing without --{flag.needs}')
    if flags.FLAGS['langevin_steps'].present and 'langevin.num_steps' in overridden():
        wrong.append('--langevin_steps and --config.langevin.num_steps are the same: give one')
    without_use = dict.fromkeys(idle_settings(config), f'condition.kind {config.condition.kind}')
    for name in overridden():
        if is_unused(name, config) and name != 'num_chains':
            without_use[name] = f'method {config.method}'
        if name in without_use:
            wrong.append(f'--config.{name} does nothing with {without_use[name]}')
    if wrong:
        raise UserError('; '.join(wrong))


_INTRODUCTION = """\
vaebm_jax trains an energy-based model of images together with a VAE that starts its Langevin
chains, draws from it and scores it.

    vaebm --config=digits --workdir=runs/digits
    vaebm --workdir=runs/digits --mode=sample

"python -m vaebm_jax" is the same as "vaebm". Every option is written --name=value. The same command
again continues where it was interrupted; so does --workdir alone.

Exit status: 0 when the work is finished; 75 when it was interrupted and the same command continues
it; 130 after Ctrl-C before the work began; 1 after an error, which one line explains.
"""
_EXPERIMENT = (
    'The experiment: the name of a config that comes with the package ({shipped}), or the path of '
    'a Python file. A variant follows a colon: mnist:paper. Needed to start a run; else the '
    'settings are those of the workdir.'
)
_SETTING = (
    'Change one setting of the experiment, such as --config.langevin.num_steps=40. To see all '
    'settings and what they mean: --help --config=FILE'
)


def help_text() -> str:
    """All flags, by mode; each is explained in the first of its modes."""
    parts = [_INTRODUCTION]
    experiment = _EXPERIMENT.format(shipped=', '.join(config_file.shipped()))
    parts.append(
        f'In every mode:\n\n  --config=FILE\n{_wrapped(experiment, 6)}\n'
        f'  --config.NAME=VALUE\n{_wrapped(_SETTING, 6)}\n{_explained(_of(tuple(MODES)))}'
    )
    explained = set()
    for mode, does in MODES.items():
        used = [flag for flag in FLAGS if mode in flag.modes and len(flag.modes) < len(_COMPUTING)]
        new = [flag for flag in used if flag.name not in explained]
        explained |= {flag.name for flag in used}
        parts.append(f'--mode={mode}\n{_wrapped(does, 2)}\n\n{_explained(new)}')
        if above := [f'--{flag.name}' for flag in used if flag not in new]:
            parts[-1] += _wrapped('As above: ' + ', '.join(above), 2) + '\n'
    several = 'Several processes, in every mode but report:\n\n'
    parts.append(several + _explained(_of(_COMPUTING)))
    parts.append('Also: --help, --version\n')
    return '\n'.join(part.rstrip('\n') + '\n' for part in parts)


def settings_text(file: str, config: Config) -> str:
    """The settings of a config by dotted name, each with its value and meaning."""
    parts = [f'Settings of {file}; --config.NAME=VALUE changes one:\n']
    for name, (field, value) in described(config).items():
        parts.append(f'{name} = {value!r}\n{_wrapped(field.metadata["meaning"], 4)}')
    return '\n'.join(parts) + '\n'


def _of(modes):
    return [flag for flag in FLAGS if flag.modes == modes]


def _explained(some):
    return ''.join(f'  {_spelled(flag)}\n{_wrapped(_with_default(flag), 6)}\n' for flag in some)


def _spelled(flag):
    if flag.kind is bool:
        return f'--[no]{flag.name}'
    return f'--{flag.name}=' + ('|'.join(flag.kind) if type(flag.kind) is tuple else flag.value)


def _with_default(flag):
    if flag.default is None:
        return flag.help
    default = str(flag.default).lower() if flag.kind is bool else flag.default
    return f'{flag.help} Default: {default}.'


def _wrapped(text, indent):
    return textwrap.fill(
        text,
        100,
        initial_indent=' ' * indent,
        subsequent_indent=' ' * indent,
        break_on_hyphens=False,
    )
