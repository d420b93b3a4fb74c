"""One, two and three images: every mode works, or tells before its work how many it needs."""

import json

import numpy as np
import pytest
from helpers.commands import ROOT, TINY
from helpers.mistakes import run_all
from PIL import Image

from vaebm_jax.cli.flags import MODES

SETTINGS = [
    f'--config={ROOT}/configs/digits.py',
    *TINY,
    '--config.num_steps=2',
    '--config.sample_every=1',
    '--config.data.name=folder',
    '--config.energy.reference_std=1.0',
    '--config.energy.scale=1.0',
]


def make_images(folder, count):
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(folder / f'{index}.png')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Beside it the compiled programs that all runs share."""
    return tmp_path_factory.mktemp('little')


def commands(kind, weights):
    """A command line for each mode and what it reads; the first trains."""
    workdir = [f'--workdir={kind}']
    settings = [*SETTINGS, *workdir, f'--config.condition.kind={kind}', '--config.batch_size=1']
    inception = f'--inception_weights={weights}'
    modes = {
        'train': settings,
        'train, batch of 4': [*settings, '--workdir=large', '--config.batch_size=4'],
        'sample': ['--num_samples=20'],
        'evaluate': ['--num_samples=20'],
        'evaluate, inception': ['--num_samples=20', inception],
        'report': [],
        'geometry': [],
    }
    if kind == 'none':
        modes['likelihood'] = ['--num_samples=20', '--num_temperatures=20']
    else:
        modes['recover'] = ['--input=images/0.png', '--mask=mask.png', '--output=recovered.png']
        for mode in ('sample', 'evaluate', 'evaluate, inception'):
            modes[mode].append('--num_recoveries=2')
    return {
        mode: [*workdir, f'--mode={mode.partition(",")[0]}', *more] for mode, more in modes.items()
    }


def expected(mode, kind, train, test):
    """Part of the one line of an error; '' where the mode works."""
    if mode == 'train, batch of 4':
        return f'batch_size must be at most the {train} images of folder, got 4'
    if mode == 'geometry':
        return '--mode=geometry needs a run on points of the plane'
    if mode == 'likelihood' and test < 2:
        return f'--mode=likelihood needs at least 2 images of test, got {test}'
    split, count = ('train', train) if kind == 'none' else ('test', test)
    if mode == 'evaluate, inception' and count < 2:
        return f'--inception_weights needs at least 2 images of {split}, got {count}'
    return ''


@pytest.mark.parametrize('kind', ['none', 'center_hole'])
@pytest.mark.parametrize(
    'count, is_shared',
    [
        (1, False),
        (1, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((2, True), (2, False), (3, False), (3, True))
        ),
    ],
)
def test_every_mode_works_or_tells_how_many_images_it_needs(
    root,
    monkeypatch,
    weights,
    kind,
    count,
    is_shared,
):
    monkeypatch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    folder = root / f'{kind}-{count}-{is_shared}'
    make_images(folder / 'images', count)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save(folder / 'mask.png')
    shared = ['--config.data.test_share=0.3'] if is_shared else []
    lines = commands(kind, weights)
    for mode in lines:
        if mode.startswith('train'):
            lines[mode] += ['--config.data.dir=images', *shared]
    assert {mode.partition(',')[0] for mode in lines} | {'likelihood', 'recover'} == set(MODES)
    if is_shared and count == 1:
        lines = {'train': lines['train']}
    results = dict(zip(lines, run_all(list(lines.values()), folder), strict=True))
    sizes = (count - 1, 1) if is_shared else (count, count)
    wrong = []
    for mode, result in results.items():
        message = expected(mode, kind, *sizes)
        if is_shared and count == 1:
            message = 'data.dir must hold at least 2 images with data.test_share=0.3, got 1'
        errors = [line for line in result['errors'] if line.startswith('error: ')]
        is_told = len(errors) == 1 and message in errors[0] and not result['changed']
        is_told = is_told and not any(' drawing ' in line for line in result['errors'])
        works = result['status'] == 0 and not errors
        if not (is_told if message else works) or 'Traceback' in str(result['errors']):
            wrong.append(f'{mode}, expected: {message!r}, got: {result}')
    assert not wrong, '\n'.join(wrong)
    for path in folder.rglob('*.json'):
        json.loads(path.read_text(), parse_constant=pytest.fail)  # No NaN.
