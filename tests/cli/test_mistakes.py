"""Wrong settings, flags and files: a clear line each, and nothing changed on disk."""

import shutil

import numpy as np
import pytest
from helpers.commands import ROOT, TINY
from helpers.flags import ACTS
from helpers.mistakes import OTHER_RUNS, run_all
from PIL import Image

from vaebm_jax.cli.flags import MODES
from vaebm_jax.config import (
    KINDS,
    Config,
    flatten,
    to_json,
)

SETTINGS = flatten(Config())
DIGITS, FACADES = (f'--config={ROOT}/configs/{name}' for name in ('digits.py', 'facades.py:64'))
RUN = ['--workdir=run']
SHIPPED = (
    'must name a config file, or one of those shipped '
    f'({", ".join(sorted(path.stem for path in (ROOT / "configs").glob("*.py")))})'
)
HEADER = ('jax ', 'data: ', 'evaluate: ', 'sample: ')

UNUSED_BY_VAE = {
    'langevin.num_steps': 5,
    'langevin.step_size': 0.001,
    'energy.learning_rate': 0.1,
    'energy.reference_std': 0.5,
    'network.energy': '(("dense",8),)',
    'vae.truth_weight': 1,
    'vae.bound_weight': 0.5,
    'vae.known_z_weight': 1,
    'energy.spectral_norm': 1,
    'warmup_steps': 5,
    'schedule.energy_steps': 5,
    'divergence.max_energy': 5,
    'condition.updates': 'all',
}

# Any text is right for these, or is looked up on disk.
FREE_TEXTS = ('name', 'data.dir', 'data.array_name', 'init_from')


def settings():
    """Each setting of the wrong kind, out of its range, and misspelled."""
    for name, default in SETTINGS.items():
        kind = type(default)
        if kind in (int, float, bool):
            yield [f'--config.{name}=many'], f"{name} must be {KINDS[kind]}, got 'many'"
        if kind in (int, float):
            value = -1 if kind is int else float('nan')
            yield [f'--config.{name}={value}'], f'{name} must be '
        if kind is float:
            yield [f'--config.{name}=-1e300'], f'{name} must be '
        if kind is tuple:
            yield [f'--config.{name}=(("wide",7),)'], f'{name} must be a tuple of '
        if kind is str and name not in FREE_TEXTS:
            yield [f'--config.{name}=other'], f'{name} must be one of '
        yield [f'--config.{name[:-1]}_=1'], f'there is no setting {name[:-1]}_'
    for old, today in (('moves=all', 'updates'), ('side=0.5', 'hole_size')):
        old, today = f'condition.{old}', f'condition.{today} now'
        yield [f'--config.{old}'], f'{old.split("=")[0]} any more: it is {today}'
    yield ['--config.condition.profiles', '0.5'], 'any more: it is condition.edge_profiles now'
    for kind, setting in (
        ('none', 'hole_size=0.4'),
        ('none', 'jitter=0.1'),
        ('none', 'edge_profiles=1'),
        ('none', 'factor=2'),
        ('none', 'updates=all'),
        ('lower_half', 'hole_size=0.4'),
        ('random_hole', 'jitter=0.1'),
        ('center_hole', 'factor=2'),
        ('low_resolution', 'updates=all'),
    ):
        typed = [f'--config.condition.kind={kind}', f'--config.condition.{setting}']
        name = setting.split('=')[0]
        yield typed, f'--config.condition.{name} does nothing with condition.kind {kind}'
    yield (
        ['--config.data.dir=folder'],
        "data.dir must be '' for digits, which is read from no files",
    )
    yield ['--config.langevin=1'], 'there is no setting langevin'
    yield ['--noconfig.data.flop'], 'there is no setting data.flop, but data.flip'
    yield ['--config.batch_size=1501'], 'batch_size must be at most the 1500 images of digits'
    yield ['--config.init_from=nowhere'], 'workdir must hold a run, but nowhere/config.json'
    yield (
        ['--config.data.name=mnist', '--config.data.dir=x'],
        'data.image_size must be 28 or',
    )
    yield ['--config.vae.bound_weight=0'], 'vae.bound_weight or vae.truth_weight must be above 0'
    yield ['--config.energy.l2=0.1'], 'energy.l2 must be 0 where energy.reference_std is not 0'
    yield ['--config.langevin.step_size=0.04'], 'langevin.step_size must be below 2 * energy.ref'
    yield (
        ['--config.batch_size=0', '--config.seed=-1'],
        'seed must be from 0 to 2**32 - 1, got -1; batch_size must be at least 1, got 0',
    )


def flags():
    """Flags that there are not, and those that there are with what they cannot be."""
    yield ['--workdri=run'], "Unknown command line flag 'workdri'"
    yield ['run'], "every setting is a flag, --name=value; got 'run'"
    yield ['--mode=draw'], '--mode=draw: value should be one of <train|'
    yield ['--debugging'], "Unknown command line flag 'debugging'"
    yield (
        ['--num_steps=20'],
        'there is no flag --num_steps: settings are written --config.num_steps',
    )
    yield ['--langevin.num_steps', '20'], 'settings are written --config.langevin.num_steps'
    yield ['--nodequantize'], 'settings are written --config.data.dequantize'
    rates = '--config.energy.learning_rate or --config.vae.learning_rate'
    yield ['--learning_rate=0.1'], f'settings are written {rates}'


def values():
    """Flags with what they cannot be, in a mode that has them."""
    for name in ('step', 'num_samples', 'langevin_steps', 'num_reference', 'num_recoveries'):
        for value in ('0', '-3', 'many', '1.5', ''):
            yield ['evaluate', f'--{name}={value}'], f'flag --{name}={value}: '
    for mode, name in (
        ('sample', 'interpolation'),
        ('evaluate', 'reference_split'),
        ('train', 'resume'),
        ('sample', 'split'),
        ('likelihood', 'distributed'),
    ):
        yield [mode, f'--{name}=other'], f'flag --{name}=other: value should be one of <'
    for mode, name in (('sample', 'ema'), ('train', 'profile'), ('train', 'tensorboard')):
        yield [mode, f'--{name}=perhaps'], f'flag --{name}=perhaps: '
    yield ['report', '--debug=perhaps'], 'flag --debug=perhaps: '


def modes():
    """Right flags in modes, and for runs, in which they do nothing."""
    for name, (own, value) in ACTS.items():
        own = own.split()
        message = f'--{name} does nothing in --mode={{}}, but in {", ".join(own)}'
        for mode in MODES:
            if mode not in own:
                yield [mode, f'--{name}={value}'], message.format(mode)
    two = ['evaluate', '--split=val', '--num_recoveries=2']
    several = '; '.join(
        f'--{name} is for runs with a condition, got condition.kind none'
        for name in ('split', 'num_recoveries')
    )
    yield two, several
    yield ['sample', '--split=val'], '--split is for runs with a condition, got condition.kind none'
    yield ['evaluate', '--reference_split=test'], 'does nothing without --inception_weights'
    yield ['evaluate', '--num_reference=20'], 'does nothing without --inception_weights'
    both = ['--langevin_steps=3', '--config.langevin.num_steps=3']
    yield ['sample', *both], '--langevin_steps and --config.langevin.num_steps are the same'
    yield ['report', '--config.seed=1'], '--config.seed does nothing in --mode=report'
    yield ['train', '--step=3', '--noema'], '--step does nothing in --mode=train, but in sample, '
    yield ['train', '--step=3', '--noema'], '; --ema does nothing in --mode=train, but in sample, '


def other_runs():
    """Right flags for runs of another kind."""
    points = 'got data.name ring'
    for mode, flags in (
        ('sample', ['--interpolation=spherical']),
        ('evaluate', ['--inception_weights=file']),
        ('evaluate', ['--inception_weights=file', '--reference_split=test']),
    ):
        name = flags[-1].split('=')[0]
        yield (
            [f'--mode={mode}', '--workdir=points', *flags],
            f'{name} is for runs on images, {points}',
        )
    whole = 'is for runs without a condition, got condition.kind gray'
    yield ['--mode=sample', '--workdir=gray', '--interpolation=linear'], f'--interpolation {whole}'
    weights = ['--mode=evaluate', '--workdir=gray', '--inception_weights=file']
    yield [*weights, '--num_reference=20'], f'--num_reference {whole}'
    for mode in ('sample', 'evaluate'):
        run = [f'--mode={mode}', '--workdir=vae']
        yield (
            [*run, '--langevin_steps=3'],
            '--langevin_steps is for runs with an energy, got method',
        )
        yield [*run, '--config.langevin.num_steps=3'], '--config.langevin.num_steps does nothing '
        yield [*run, '--config.num_chains=8'], 'workdir has no checkpoint yet'
    for mode in ('likelihood', 'geometry'):
        run = [f'--mode={mode}', '--workdir=vae_points']
        yield run, f"--mode={mode} needs a run with an energy, got method='vae'"
    vae = [DIGITS, *RUN, '--config.method=vae']
    for name, value in UNUSED_BY_VAE.items():
        message = f'--config.{name} does nothing with method vae'
        yield [*vae, f'--config.{name}={value}'], message
    for method, setting in (
        ('pix2pix', 'vae.guess_weight=1'),
        ('pix2pix', 'network.energy_outputs=2'),
        ('bicycle_gan', 'vae.kl_weight=1'),
        ('bicycle_gan', 'langevin.num_steps=5'),
        ('ccoopnets', 'vae.l1_weight=1'),
        ('ccoopnets', 'warmup_steps=5'),
        ('vaebm', 'vae.l1_weight=1'),
    ):
        typed = [FACADES, *RUN, f'--config.method={method}', f'--config.{setting}']
        name = setting.split('=')[0]
        yield typed, f'--config.{name} does nothing with method {method}'
    for method in ('ccoopnets', 'pix2pix', 'cvae_gan', 'cvae_gan_pp', 'bicycle_gan'):
        message = f'condition.kind must be another with method {method}, which reads a condition'
        yield [DIGITS, *RUN, f'--config.method={method}'], message
    flat = '--config.network.energy=(("dense",8),)'
    yield [FACADES, *RUN, '--config.method=pix2pix', flat], 'network.energy must be without dense'
    # Those that are for them go on, to the checkpoint that is not there.
    for flag in ('--interpolation=spherical', '--step=1', '--noema', '--langevin_steps=3'):
        yield ['--mode=sample', '--workdir=new', flag], 'workdir has no checkpoint yet'
    wrong = '--config.condition.factor does nothing with condition.kind gray'
    yield ['--mode=sample', '--workdir=gray', '--config.condition.factor=2'], wrong
    usual = '--config.condition.factor=4'
    for flag in ('--split=val', '--num_recoveries=2', '--num_samples=20', usual):
        yield ['--mode=sample', '--workdir=gray', flag], 'workdir has no checkpoint yet'


CONFIG_FILES = {
    'syntax.py': ('def get_config(:\n', 'syntax.py, line 1: SyntaxError: '),
    'name.py': ('def get_config():\n    return Confg()\n', 'name.py, line 2: NameError: '),
    'import.py': ('import nowhere\n', 'import.py, line 1: ModuleNotFoundError: '),
    'field.py': (
        'from vaebm_jax import config\n\n\ndef get_config():\n    return config.Config(sed=1)\n',
        'field.py, line 5: TypeError: ',
    ),
    'empty.py': ('', 'the file must define get_config()'),
    'none.py': ('def get_config():\n    pass\n', 'get_config() must return a vae'),
    'number.py': (
        'def get_config():\n    return 7\n',
        'get_config() must return a vae',
    ),
    'variant.py': (
        'def get_config(v):\n    return v\n',
        'the file has no variants, or',
    ),
    'zero.py': ('def get_config():\n    return 1 / 0\n', 'zero.py, line 2: ZeroDivisionError: '),
    'renamed.py': (
        'from vaebm_jax import config as c\n\n\ndef get_config():\n'
        "    return c.Config(condition=c.ConditionConfig('gray', moves='all'))\n",
        "renamed.py, line 5: TypeError: ConditionConfig has no setting 'moves' any more: it is '",
    ),
    'binary.py': ('\0\0', 'SyntaxError: '),
}


def configs():
    for name, (_, message) in CONFIG_FILES.items():
        yield [f'--config={name}', *RUN], message
    yield ['--config=number.py', '--config.seed=1', *RUN], 'get_config() must return a vaebm_jax'
    for file in ('nowhere.py', 'configs/nowhere.py:paper', './folder', ''):
        yield [f'--config={file}', *RUN], f'--config {SHIPPED}: '
    for name in ('folder', 'digitz', 'nowhere:paper'):
        yield [f'--config={name}', *RUN], f'--config {SHIPPED}, got {name!r}'
    yield RUN, f'--config {SHIPPED}: run holds no run to resume'
    yield ['--workdir=folder'], f'--config {SHIPPED}: folder holds no run to resume'
    yield ['--workdir=half'], 'half/config.json: not JSON'
    yield ['--config=mnist:large', *RUN], "there is no variant 'large'; there are: default, paper"
    yield [f'{DIGITS}:large', *RUN], "there is no variant 'large'; there are: default"
    yield ['--config.seed=1', DIGITS, *RUN], 'before a value for --config was specified'
    yield [DIGITS], '--workdir must name the folder of the run'
    yield [DIGITS, '--workdir='], '--workdir must name the folder of the run'


# What stands in config.json of a workdir.
SAVED = {
    'half': '{"seed": 1',
    'list': '[]',
    'field': '{"langevin": {"num_stepz": 1}}',
    'number': '{"langevin": 7}',
    'binary': '\0',
}


def workdirs():
    digits = [DIGITS, *TINY]
    yield [*digits, '--workdir=file'], 'workdir must be a folder that can be written to'
    yield [*digits, '--workdir=file/run'], 'workdir must be a folder that can be written to'
    yield [*digits, '--workdir=trained', '--config.seed=1'], 'with other settings (use another work'
    yield [*digits, '--workdir=trained', '--config.latent_dim=3'], 'latent_dim was 16, now 3'
    yield [*digits, '--workdir=all_damaged', '--config.num_steps=4'], 'every checkpoint in '
    yield [*digits, '--workdir=all_damaged', '--resume=strict'], '--resume=strict resumes only from'
    for name in SAVED:
        yield [*digits, f'--workdir={name}'], f'{name}/config.json: '
    for mode in ('sample', 'evaluate', 'report', 'recover'):
        yield [f'--mode={mode}', '--workdir=nowhere'], 'workdir must hold a run, but nowhere/config'
        yield [f'--mode={mode}'], '--workdir must name the folder of the run'
        yield [f'--mode={mode}', '--workdir=half'], 'half/config.json: not JSON'
    for mode in ('sample', 'evaluate'):
        yield [f'--mode={mode}', '--workdir=new'], 'workdir has no checkpoint yet'
        yield [f'--mode={mode}', '--workdir=trained', '--step=2'], 'step must be one of [3]'
        yield [f'--mode={mode}', '--workdir=all_damaged'], 'is damaged: '
        other = '--config.latent_dim=3'
        yield [f'--mode={mode}', '--workdir=trained', other], 'other networks: latent_dim was 16'
    draw, output = ['--mode=sample', '--pretrained=digits'], '--output=new.png'
    yield draw, '--pretrained in --mode=sample needs --output=FILE.png'
    yield [*draw, '--output=new.bmpx'], '--output must end with the suffix of an image'
    yield [*draw, '--output=folder/../file/new.png'], '--output must'
    yield [*draw, output, '--step=7'], 'step must be left out: pretrained:digits has no checkpoints'
    yield [*draw, output, '--workdir=trained'], '--pretrained takes the place of --workdir and --c'
    yield ['--mode=sample', '--pretrained=huge', output], 'there are pretrained models digits, '
    only_images = '--output and --pretrained in --mode=sample are for runs of images without a co'
    yield ['--mode=sample', '--pretrained=facades_64', output], only_images
    yield ['--mode=sample', '--workdir=gray', output], only_images
    evaluate = ['--mode=evaluate', '--pretrained=digits']
    yield evaluate, '--pretrained does nothing in --mode=evaluate, but in sample, recover'
    yield [DIGITS, *RUN, '--pretrained=digits'], '--pretrained does nothing in --mode=train'
    yield ['--workdir=pretrained:digits'], '--workdir must name a folder, got pretrained:digits'
    for name in ('nowhere.npz', 'file', 'other.npz', 'pickled.npz', 'folder'):
        weights = f'--inception_weights={name}'
        yield ['--mode=evaluate', '--workdir=trained', weights], name
    five = 'on images of 1 or 3 channels, which Inception-v3 sees, got data.num_channels 5'
    yield ['--mode=evaluate', '--workdir=five', '--inception_weights=file'], five
    yield (
        ['--mode=recover', '--workdir=five_gray', '--input=images/good.png', '--output=out.png'],
        '--mode=recover needs a run on images of 1 or 3 channels',
    )
    for flag in ('--input=images/good.png', '--output=out.png'):
        yield (
            ['--mode=recover', '--workdir=trained', flag],
            '--mode=recover needs a run with',
        )


def data():
    images = [FACADES, *RUN, '--config.batch_size=1']
    yield [*images, '--config.data.dir=nowhere'], 'data.dir must be a folder of images '
    yield [*images, '--config.data.dir=file'], 'data.dir must be a folder of images '
    yield [*images, '--config.data.dir=folder'], 'data.dir must hold images ('
    yield [*images, '--config.data.dir=texts'], 'data.dir must hold images ('
    for name in ('damaged', 'truncated', 'animated', 'bits'):
        yield [*images, f'--config.data.dir={name}'], f'{name}/{name}.png '
    skipping = ['--config.data.dir=damaged', '--config.data.skip_unreadable']
    yield [*images, *skipping], 'data.dir holds 1 files and no image that can be read'
    yield [*images, '--config.data.dir=images', '--config.batch_size=9'], 'batch_size must be at mo'
    yield (
        [DIGITS, *RUN, '--config.data.array_name=x'],
        "data.array_name must be '' but for an array of images, got 'x'",
    )
    array = [DIGITS, *RUN, '--config.data.name=array', '--config.batch_size=1']
    yield array, "data.dir must be the path of an .npy or .npz file of images, got ''"
    for name, message in (
        (
            'nowhere.npy',
            "data.dir must be an .npy or .npz file of images, got 'nowhere.npy' ([Errno",
        ),
        (
            'other.npz',
            'data.dir must be an array of numbers [N, H, W, C] or [N, H, W], got float64',
        ),
        ('pickled.npz', 'data.dir must be an .npy or .npz file of images'),
        ('depths.npy', 'such as (0,4095): those in '),
        ('two.npz', "data.array_name must be one of a, b, the arrays in 'two.npz', got ''"),
    ):
        yield [*array, f'--config.data.dir={name}'], message
    own = ['--config=own_images', *RUN]
    yield own, "data.dir must be the path of a folder of images, got ''"
    yield [*own, '--config.data.dir=depths.npy'], '(data.name=array reads such a file), got'
    depths = [*array, '--config.data.dir=depths.npy']
    narrow = 'data.value_range must include all values in '
    yield [*depths, '--config.data.value_range=(0,255)'], narrow
    for ends in ('(4095,0)', '(0,1,2)', '("a",2)', '(0,0)'):
        wrong = 'data.value_range must be a tuple of two numbers, the lower first'
        yield [*depths, f'--config.data.value_range={ends}'], wrong
    right = [*depths, '--config.data.value_range=(0,4095)']
    yield [*right, '--config.data.dequantize'], 'data.dequantize must be False for images that are'
    yield [*right, '--config.data.headroom=0.1'], 'data.headroom must be 0.0 for images that are n'
    yield [*right, '--config.data.num_channels=2'], '8x8 pixels and 1 channels, got 8 and 2'
    yield [DIGITS, *RUN, '--config.data.num_channels=2'], 'data.num_channels must be 1 for digits'
    mnist = [f'--config={ROOT}/configs/mnist.py', *RUN]
    for place in ('nowhere', 'folder', 'file'):
        yield [*mnist, f'--config.data.dir={place}'], f'mnist is not prepared in {place} '
    for place in ('unversioned', 'described'):
        yield [*mnist, f'--config.data.dir={place}'], f'mnist in {place} cannot be read'


def make_files(folder):
    """What the command lines above name."""
    for name, (text, _) in CONFIG_FILES.items():
        (folder / name).write_text(text)
    for name, text in SAVED.items():
        (folder / name).mkdir()
        (folder / name / 'config.json').write_text(text)
    for name in ('folder', 'texts', 'images', 'damaged', 'truncated', 'animated', 'bits', 'new'):
        (folder / name).mkdir()
    (folder / 'file').write_text('no folder')
    (folder / 'texts' / 'a.txt').write_text('no image')
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8))
    picture.save(folder / 'images' / 'good.png')
    whole = (folder / 'images' / 'good.png').read_bytes()
    (folder / 'damaged' / 'damaged.png').write_bytes(b'GIF89a no image')
    (folder / 'truncated' / 'truncated.png').write_bytes(whole[: len(whole) // 2])
    more = [Image.new('RGB', (80, 80), 'red')]
    picture.save(folder / 'animated' / 'animated.png', save_all=True, append_images=more)
    Image.new('F', (80, 80)).save(folder / 'bits' / 'bits.png', 'TIFF')
    np.savez(folder / 'other.npz', weights=np.zeros(3))
    np.savez(folder / 'pickled.npz', x=np.array([{}], object))
    np.save(folder / 'depths.npy', np.full((3, 8, 8), [0] * 7 + [4095], np.uint16))
    np.savez(folder / 'two.npz', a=np.zeros((3, 8, 8), np.uint8), b=np.zeros(3))
    for name, config in OTHER_RUNS.items():
        (folder / name).mkdir()
        (folder / name / 'config.json').write_text(to_json(config))
    for name in ('unversioned', 'described'):
        version = folder / name / 'mnist' / '3.0.1'
        version.mkdir(parents=True)
        (version / 'dataset_info.json').write_text('{' if name == 'described' else '{}')
        (version / 'mnist-train.array_record-00000-of-00001').touch()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('mistakes') / 'here'
    folder.mkdir()
    make_files(folder)
    ((trained),) = run_all([[DIGITS, '--workdir=trained', *TINY]], folder)
    assert trained['status'] == 0, trained
    shutil.copy(folder / 'trained' / 'config.json', folder / 'new')
    shutil.copytree(folder / 'trained', folder / 'all_damaged')
    damaged = next((folder / 'all_damaged' / 'checkpoints' / '3').rglob('manifest.ocdbt'))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    return folder


def in_mode(mode, *wrong_and_message):
    *wrong, message = wrong_and_message
    start = [DIGITS, *RUN] if mode == 'train' else ['--workdir=trained']
    return [*start, f'--mode={mode}', *wrong], message


def groups():
    digits = [DIGITS, *RUN]
    return {
        'settings': [([*digits, *wrong], message) for wrong, message in settings()],
        'flags': [([*digits, *wrong], message) for wrong, message in flags()],
        'values': [in_mode(*wrong, message) for wrong, message in values()],
        'modes': [in_mode(*wrong, message) for wrong, message in modes()],
        'other runs': list(other_runs()),
        'config files': list(configs()),
        'workdirs': list(workdirs()),
        'data': list(data()),
    }


def test_the_docs_count_them():
    number = sum(len(cases) for cases in groups().values())
    assert f'`tests/cli/test_mistakes.py` has {number} mistakes' in (
        ROOT / 'docs' / 'reliability.md'
    ).read_text().replace('\n', ' ')


@pytest.mark.parametrize('group', groups())
def test_a_mistake_costs_one_line_and_nothing_else(folder, group):
    cases = groups()[group]
    results = run_all([arguments for arguments, _ in cases], folder)
    wrong = []
    for (arguments, message), result in zip(cases, results, strict=True):
        lines = [line for line in result['errors'] if not line.startswith(HEADER)]
        named = [line for line in lines if line.startswith('the checkpoint ')]
        lines = [line for line in lines if line not in named]
        is_clear = len(lines) == 1 and lines[0].startswith('error: ') and message in lines[0]
        if result['status'] != 1 or not is_clear or result['changed']:
            wrong.append(f'{arguments[1:]}, expected: {message!r}, got: {result}')
    assert not wrong, '\n'.join(wrong)
