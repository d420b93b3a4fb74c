"""Sampling and scoring a small trained run, by functions and by the command line."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from helpers.commands import command
from PIL import Image

from vaebm_jax import load
from vaebm_jax.data.batch import to_uint8
from vaebm_jax.evaluation import sample_cache, scores
from vaebm_jax.evaluation.inception import load_inception
from vaebm_jax.evaluation.precision_recall import precision_and_recall
from vaebm_jax.evaluation.scores import Scores, reference_statistics
from vaebm_jax.runtime import log
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks.images import averaged, sample
from vaebm_jax.training import checkpoints
from vaebm_jax.training.loop import train


@pytest.fixture
def run(tiny_config, tmp_path):
    train(tiny_config, tmp_path / 'run')
    return tmp_path / 'run'


def test_sample_writes_pictures_arrays_and_files(tiny_config, run):
    sample(tiny_config, run, num_samples=20)
    folder = run / 'samples'
    for name in ('grid', 'interpolation', 'revision', 'reconstruction'):
        with Image.open(folder / f'{name}.png') as picture:
            assert np.asarray(picture).std() > 0
    states, config = load(run)
    expected = scores.Draws(run, averaged(states), config, 20, ('ancestral', 'refined'))
    part = next(iter(expected))
    for name in ('ancestral', 'refined'):
        with np.load(folder / f'{name}.npz') as file:
            images = file['images']
        assert images.shape == (20, 8, 8, 1) and images.dtype == np.float32
        np.testing.assert_array_equal(images, part[name])
        files = sorted((folder / name).iterdir())
        assert [file.name for file in files] == [f'{index:02d}.png' for index in range(20)]
        with Image.open(files[7]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), to_uint8(images[7])[..., 0])
    expected.discard()
    assert not (folder / 'parts').exists()


def test_evaluate_names_its_numbers(tiny_config, run, weights, tmp_path):
    result = scores.evaluate(
        tiny_config,
        run,
        num_samples=20,
        inception_weights=weights,
        reference_split='test',
        num_reference=100,
        cache=tmp_path / 'cache',
    )
    assert json.loads((run / 'evaluation.json').read_text()) == result
    assert result['checkpoint_step'] == 6
    for name, steps in (('ancestral', 0), ('refined', 3), ('refined_2x', 6)):
        row = result[name]
        assert (row['num_samples'], row['langevin_steps']) == (20, steps)
        assert (row['reference_split'], row['reference_size']) == ('test', 100)
        assert row['fd_64'] > 0 and 'fid' not in row and 'inception_score' not in row
        assert 0.0 <= row['precision'] <= 1.0 and 0.0 <= row['recall'] <= 1.0
        few, rough = row['warning'].split('take more than 64; ')
        assert few.startswith('20 images are too few for 64 features')
        assert rough.startswith('precision and recall of 20 images are uncertain by up to 0.11')
    assert not (run / 'samples' / 'parts').exists()


def test_every_image_is_told_and_the_stages_are_timed(
    tiny_config, run, weights, monkeypatch, capsys
):
    """The features of three stages, what an interrupted run had among them."""
    told = {}

    @contextlib.contextmanager
    def counted(doing, unit, total, seconds=10.0):
        counts = told[doing] = {'total': total, False: 0, True: 0}

        def advance(count, cached=False):
            counts[cached] += count

        yield advance

    monkeypatch.setattr(log, 'counted', counted)
    monkeypatch.setattr(sample_cache, '_PART', 8)
    settings = {'num_samples': 20, 'inception_weights': weights, 'num_reference': 30}
    with monkeypatch.context() as interrupted:
        interrupted.setattr(scores, 'diagnose', None)
        with pytest.raises(TypeError):
            scores.evaluate(tiny_config, run, **settings)
    assert told['features of real images'] == {'total': 30, False: 30, True: 0}
    assert told['features of samples'] == {'total': 60, False: 60, True: 0}
    told.clear()
    with monkeypatch.context() as cached:
        cached.setattr(scores, 'inception_features', None)  # No second pass.
        cached.setattr(sample_cache.Draws, '_draw', None)
        scores.evaluate(tiny_config, run, **settings)
    assert 'features of real images' not in told
    assert told['features of samples'] == {'total': 60, False: 0, True: 60}
    assert told['long chains'] == {'total': 100, False: 100, True: 0}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('time: ')]
    for stage in ('features of real images', 'drawing', 'features of samples', 'diagnostics'):
        assert f'{stage} ' in line


def test_real_images_are_read_once(weights, tmp_path, monkeypatch):
    """Known again by content: other images, or other weights, are others."""
    inception = load_inception(weights)
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    first = reference_statistics(inception, images, tmp_path)
    monkeypatch.setattr(scores, 'features_of', None)
    again = reference_statistics(inception, images.copy(), tmp_path)
    np.testing.assert_array_equal(first.moments[64].products, again.moments[64].products)
    np.testing.assert_array_equal(first.features, again.features)
    assert again.count == 30 and again.features[0].shape == (30, 64)
    for changed in (
        (inception, images[:29]),
        (inception, images.reshape(30, 4, 16, 1)),
        (inception | {'conv': {**inception['conv'], 'b': inception['conv']['b'] + 1}}, images),
    ):
        with pytest.raises(TypeError):
            reference_statistics(*changed, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(TypeError):  # Half a file is made anew.
        reference_statistics(inception, images, tmp_path)


def test_features_go_on_after_an_interruption(weights, tmp_path, monkeypatch):
    """What was computed is kept, and gone when the whole is done."""
    inception = load_inception(weights)
    monkeypatch.setattr(scores, '_BATCH', 2)  # Parts of 16 images.
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    whole = reference_statistics(inception, images, tmp_path / 'whole')
    compute, calls = scores.inception_features, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 10:  # In the second part.
            raise KeyboardInterrupt
        return compute(*args)

    monkeypatch.setattr(scores, 'inception_features', interrupted)
    with pytest.raises(KeyboardInterrupt):
        reference_statistics(inception, images, tmp_path / 'cut')
    again = reference_statistics(inception, images, tmp_path / 'cut')
    assert len(calls) == 10 + 12  # Of 20 batches, 8 were kept.
    np.testing.assert_array_equal(again.moments[64].products, whole.moments[64].products)
    np.testing.assert_array_equal(again.features, whole.features)
    assert [path.suffix for path in (tmp_path / 'cut').iterdir()] == ['.npz']


def test_the_name_of_a_number_says_what_it_is():
    """2048 features give a fid, the classifier an Inception score, others an fd."""
    rng = np.random.default_rng(0)
    gathered = Scores()
    logits = 1000.0 * np.eye(1008)[np.arange(40) % 4]
    gathered.add({64: rng.normal(size=(40, 64)), 2048: rng.normal(size=(40, 2048)), 1008: logits})
    result = gathered.against(gathered)
    assert sorted(result) == [
        *('fd_64', 'fid', 'inception_score', 'inception_score_std', 'precision', 'recall'),
        'warning',
    ]
    assert abs(result['fid']) < 1e-3
    np.testing.assert_allclose(result['inception_score'], 4.0, rtol=1e-6)


def scores_of(features, parts=1):
    gathered = Scores()
    for part in np.array_split(features, parts):
        gathered.add({64: part[:, :64], 192: part})
    return gathered


def test_precision_and_recall_are_of_the_widest_features_and_as_many_images_of_either(monkeypatch):
    """The first, whatever the parts that they come in, and no more than are needed."""
    monkeypatch.setattr(scores, 'MAX_IMAGES', 30)
    rng = np.random.default_rng(0)
    samples, real = np.zeros((40, 192)), np.zeros((36, 192))
    real[:, :64] = 1.0  # By these 64 alone, both would be 0.
    samples[:, -4:], real[:, -4:] = 30.0 * rng.normal(size=(40, 4)), 30.0 * rng.normal(size=(36, 4))
    found = scores_of(samples, 7).against(scores_of(real, 2))
    expected = precision_and_recall(samples[:30], real[:30])
    assert (found['precision'], found['recall']) == expected and min(expected) > 0
    found = scores_of(samples, 7).against(scores_of(real[:20]))
    assert (found['precision'], found['recall']) == precision_and_recall(samples[:20], real[:20])


def test_without_third_neighbours_there_is_a_warning_in_their_place():
    rng = np.random.default_rng(0)
    real = scores_of(rng.normal(size=(300, 192)))
    found = scores_of(rng.normal(size=(3, 192))).against(real)
    assert 'precision' not in found and 'recall' not in found
    assert found['warning'].endswith('; precision and recall need at least 4 images, got 3')
    assert 'precision' in scores_of(rng.normal(size=(4, 192))).against(real)


def test_enough_images_are_no_warning():
    real = scores_of(np.random.default_rng(0).normal(size=(1000, 192)))
    assert 'warning' not in real.against(real)


def test_what_earlier_versions_kept_of_real_images_is_no_obstacle(weights, tmp_path):
    """They kept the moments alone, in a file of another name."""
    inception = load_inception(weights)
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    old = tmp_path / f'reference-{scores.fingerprint((inception, images))[:24]}.npz'
    np.savez(old, count_64=1, total_64=np.zeros(64), products_64=np.zeros((64, 64)))
    assert reference_statistics(inception, images, tmp_path).count == 30


def test_checkpoints_of_other_networks_are_refused(tiny_config, run):
    other = dataclasses.replace(tiny_config, latent_dim=5)
    with pytest.raises(UserError, match='other networks: latent_dim was 4, now 5'):
        checkpoints.load(run, config=other)


def test_the_command_line_takes_the_workdirs_config(tiny_config, run, tmp_path):
    """And overrides on top of it."""
    arguments = ['--mode=evaluate', '--workdir=run', '--num_samples=20']
    result = command(*arguments, '--config.langevin.step_size=0.003', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    row = json.loads((run / 'evaluation.json').read_text())
    assert row['refined_2x'] == {'num_samples': 20, 'langevin_steps': 6}
    assert row['diagnostics']['acceptance']['step_size'] == 0.003
    result = command(
        '--num_samples', 20, '--langevin_steps=2', '--mode', 'sample', '--workdir=run', cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert (run / 'samples' / 'refined.npz').is_file()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--workdir=nowhere'], 'error: workdir must hold a run, but nowhere/config.json cannot'),
        (['--workdir=empty'], 'error: workdir must hold a run, but empty/config.json cannot'),
        (['--workdir=run', '--step=5'], 'error: step must be one of [2, 4, 6] in'),
        (['--workdir=run', '--inception_weights=w.npz'], 'error: inception_weights cannot be read'),
        (['--workdir=run', '--config.latent_dim=9'], 'error: the workdir holds other networks'),
        (['--workdir=broken'], 'error: the checkpoint'),
        ([], 'error: --workdir must name the folder'),
    ],
)
def test_mistakes_cost_one_line(run, tmp_path, arguments, message):
    (tmp_path / 'empty').mkdir()
    if '--workdir=broken' in arguments:
        run.rename(tmp_path / 'broken')
        for file in (tmp_path / 'broken' / 'checkpoints' / '6').rglob('*'):
            if file.is_file():
                file.write_bytes(b'')
    result = command('--mode=evaluate', '--num_samples=20', *arguments, cwd=tmp_path)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if not line.startswith('evaluate:')]
    assert len(errors) == 1 and errors[0].startswith(message), result.stderr
    assert not list(tmp_path.rglob('evaluation.json'))
