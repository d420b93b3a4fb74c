"""A run without an energy: nothing of one acts, is drawn or is scored."""

import dataclasses
import fnmatch
import json

import jax
import numpy as np
import pytest
from helpers.configs import rival, tiny
from helpers.runs import train
from PIL import Image

from vaebm_jax import create_states, energy_fn, generate, load, recover
from vaebm_jax.config import (
    ConditionConfig,
    Config,
    DivergenceConfig,
    EnergyConfig,
    LangevinConfig,
    flatten,
)
from vaebm_jax.data.batch import as_pixels, to_uint8
from vaebm_jax.data.conditions import fixed_condition
from vaebm_jax.data.loading import first_images
from vaebm_jax.evaluation.likelihood import evaluate_likelihood
from vaebm_jax.evaluation.scores import evaluate
from vaebm_jax.figures.film import write_geometry
from vaebm_jax.methods import METHODS, is_unused, unused_settings
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.tasks import recovery
from vaebm_jax.tasks.images import sample
from vaebm_jax.tasks.points import evaluate_points, sample_points
from vaebm_jax.tasks.report import write_report
from vaebm_jax.training import checkpoints

KEY = jax.random.key(7)


def vae_of(config):
    return dataclasses.replace(config, method='vae')


def holes_of(config):
    return dataclasses.replace(vae_of(config), condition=ConditionConfig('center_hole'))


@pytest.fixture
def run(tiny_config, tmp_path):
    train(vae_of(tiny_config), tmp_path / 'run')
    return tmp_path / 'run'


def test_unused_settings_are_settings():
    names = list(flatten(Config()))
    for method in METHODS.values():
        assert all(fnmatch.filter(names, pattern) for pattern in method.unused)
        assert {*method.settings} <= {*names}


def test_unused_settings_change_nothing(tiny_config, tmp_path):
    """All of them at once: the same encoder, decoder, metrics and recoveries, bit for bit."""
    config = holes_of(tiny_config)
    network = dataclasses.replace(
        config.network,
        energy=(('dense', 5),),
        energy_outputs=2,
        likelihood=(('gated', 5, 3), ('gated', 5, 3)),
    )
    other = dataclasses.replace(
        config,
        num_chains=16,
        warmup_steps=3,
        langevin=LangevinConfig(7, 0.1, 0.5, 2.0, 1.0, 2, 0.1, 3.0, 3, 0.2, 99),
        energy=EnergyConfig(
            2.0, 0.5, 3.0, 0.1, 0.9, 0.9, 7.0, 0.5, 1.5, 0.0, 0.2, 0.1, 500, ('flip',), 3
        ),
        vae=dataclasses.replace(
            config.vae, truth_weight=5.0, bound_weight=0.5, known_z_weight=2.0, l1_weight=3.0
        ),
        network=network,
        schedule=dataclasses.replace(config.schedule, energy_steps=4),
        condition=dataclasses.replace(config.condition, updates='all'),
        divergence=DivergenceConfig(max_energy=1e-12),
    )
    changed = {name for name, value in flatten(other).items() if value != flatten(config)[name]}
    # l2 does not go with a reference term.
    assert changed | {'energy.l2'} == {name for name in flatten(config) if is_unused(name, config)}
    results = []
    for name, each in (('one', config), ('other', other)):
        states = train(each, tmp_path / name)
        rows = [json.loads(line) for line in (tmp_path / name / 'metrics.jsonl').open()]
        for row in rows:
            del row['images_per_second']
        condition = fixed_condition(np.zeros((2, 8, 8, 1), np.float32), each.condition)
        drawn = recover(KEY, states, each, condition, 3)
        picture = (tmp_path / name / 'samples' / 'step_00000006.png').read_bytes()
        results.append((rows, picture, states.encoder.params, states.decoder.ema_params, drawn))
    assert results[0][:2] == results[1][:2]
    jax.tree.map(np.testing.assert_array_equal, results[0][2:], results[1][2:])


def test_training_names_what_it_does_not_use(tiny_config, tmp_path, capsys):
    train(vae_of(tiny_config), tmp_path / 'vae')
    told = capsys.readouterr().err
    (line,) = [line for line in told.splitlines() if line.startswith('not used by ')]
    assert line == (
        'not used by vae: num_chains, warmup_steps, langevin.*, energy.*, vae.bound_weight, '
        'vae.known_z_weight, vae.truth_weight, network.energy*, schedule.energy_steps, '
        'condition.updates, divergence.max_energy'
    )
    train(tiny_config, tmp_path / 'vaebm')
    assert 'not used' not in capsys.readouterr().err
    energy = dataclasses.replace(tiny_config.energy, updates=2)
    train(dataclasses.replace(tiny_config, energy=energy), tmp_path / 'set')
    assert 'not used by vaebm: energy.updates\n' in capsys.readouterr().err


def test_a_setting_of_another_method_is_named_only_if_it_is_set(tiny_config):
    assert unused_settings(tiny_config) == []
    name = 'langevin.latent_steps'
    langevin = dataclasses.replace(tiny_config.langevin, latent_steps=5)
    config = dataclasses.replace(tiny_config, langevin=langevin)
    assert unused_settings(config) == [name] and is_unused(name, tiny_config)
    config = dataclasses.replace(config, method='coopnets')
    assert name not in unused_settings(config) and not is_unused(name, config)
    assert unused_settings(vae_of(tiny_config)) == list(METHODS['vae'].unused)


def test_evaluate_scores_what_there_is(tiny_config, run, capsys):
    result = evaluate(vae_of(tiny_config), run, num_samples=20)
    assert json.loads((run / 'evaluation.json').read_text()) == result
    assert result == {
        'checkpoint_step': 6,
        'data': 'digits',
        'ema': True,
        'ancestral': {'num_samples': 20, 'langevin_steps': 0},
    }
    assert 'refined' not in capsys.readouterr().err


def test_sample_draws_what_there_is_and_leaves_nothing_else(tiny_config, run):
    folder = run / 'samples'
    (folder / 'refined').mkdir()
    for name in ('refined.npz', 'revision.png', 'refined/0.png'):
        (folder / name).write_text('of an earlier version')
    sample(vae_of(tiny_config), run, num_samples=20)
    pictures = {'grid.png', 'interpolation.png', 'reconstruction.png', 'step_00000006.png'}
    assert {path.name for path in folder.iterdir()} == {*pictures, 'ancestral.npz', 'ancestral'}
    states, config = load(run)
    with np.load(folder / 'ancestral.npz') as file:
        images = file['images']
    drawn = generate(jax.random.key(0), states, config, 20)
    np.testing.assert_allclose(images, drawn[0], atol=1e-6)
    np.testing.assert_array_equal(*drawn)  # The API has a second result: no chain moved it.
    with pytest.raises(AttributeError, match="no 'energy' in states of .'decoder', 'encoder'"):
        energy_fn(states, config)
    sizes = {name: Image.open(folder / name).size for name in pictures}
    # One grid, of 16 of the 20 images and of 64, not two side by side.
    assert (sizes['grid.png'], sizes['step_00000006.png']) == ((248, 264), (496, 512))


def test_the_report_speaks_of_no_energy(tiny_config, run):
    sample(vae_of(tiny_config), run, num_samples=20)
    evaluate(vae_of(tiny_config), run, num_samples=20)
    page = write_report(run).read_text()
    assert 'vae on digits' in page and 'not drawn yet' not in page
    for word in ('The energy', 'evision', 'and refined', 'energy of samples'):
        assert word not in page


@pytest.mark.parametrize(
    'config', [holes_of(tiny()), rival('bicycle_gan')], ids=lambda config: config.method
)
def test_recoveries_are_the_decoders(config, tmp_path):
    run = tmp_path / 'run'
    train(config, run)
    result = recovery.evaluate_recovery(config, run, num_samples=5, num_recoveries=3)
    names = {name for name, row in result.items() if isinstance(row, dict)}
    assert {name for name in names if not name.startswith('fill_')} == {'ancestral', 'mean', 'best'}
    assert result['best']['psnr_hole'] >= result['ancestral']['psnr_hole']

    (run / 'samples' / 'refined.npz').write_text('of an earlier version')
    recovery.sample_recoveries(config, run, num_samples=5, num_recoveries=3)
    assert not (run / 'samples' / 'refined.npz').exists()
    with np.load(run / 'samples' / 'ancestral.npz') as file:
        images = file['images']
    truth = as_pixels(first_images(config.data, 'test', 5))
    mean = as_pixels(to_uint8(images.clip(-1, 1).mean(axis=1)))
    region = np.zeros((5, 8, 8), bool)
    region[:, 2:6, 2:6] = True
    # By hand: 10 log10(2^2 / mean square error) of the hole.
    errors = np.mean((mean - truth)[region].reshape(5, -1) ** 2, axis=1)
    assert result['mean']['psnr_hole'] == pytest.approx(np.mean(10 * np.log10(4 / errors)), 1e-4)

    Image.fromarray(to_uint8(truth[0])[..., 0]).save(tmp_path / 'photo.png')
    Image.fromarray(np.uint8(255 * region[0])).save(tmp_path / 'mask.png')
    files = {name: str(tmp_path / f'{name}.png') for name in ('photo', 'mask', 'out')}
    recovery.recover_file(
        config, run, input_file=files['photo'], mask_file=files['mask'], output_file=files['out']
    )
    assert 'refined' not in write_report(run).read_text()
    states, _ = load(run)
    condition = fixed_condition(truth[:1], config.condition)
    ancestral, _ = recover(jax.random.key(config.seed), states, config, condition, 1)
    with Image.open(files['out']) as image:
        np.testing.assert_array_equal(np.asarray(image), to_uint8(ancestral[0, 0])[..., 0])


def test_points_are_scored_by_their_histogram_alone(toy_config, tmp_path):
    config = vae_of(toy_config)
    train(config, tmp_path)
    sample_points(config, tmp_path, num_samples=700)
    assert not (tmp_path / 'samples' / 'refined.npz').exists()
    result = evaluate_points(config, tmp_path, num_samples=700)
    assert set(result) == {'checkpoint_step', 'data', 'ema', 'ancestral'}
    assert result['ancestral']['kl_data_histogram'] > 0
    with pytest.raises(UserError, match="geometry needs a run with an energy, got method='vae'"):
        write_geometry(config, tmp_path)
    with pytest.raises(UserError, match="likelihood needs a run with an energy, got method='vae'"):
        evaluate_likelihood(config, tmp_path, num_samples=20, num_temperatures=10)
    assert not (tmp_path / 'geometry.jsonl').exists()
    assert 'divergences' not in write_report(tmp_path).read_text()


def test_an_untrained_energy_is_told(tiny_config, tmp_path, capsys):
    config = dataclasses.replace(tiny_config, warmup_steps=4)
    train(config, tmp_path)
    capsys.readouterr()
    for step, is_trained in ((2, False), (4, False), (6, True)):
        result = evaluate(config, tmp_path, num_samples=20, step=step)
        assert result['checkpoint_step'] == step and 'refined' in result
        told = capsys.readouterr().err
        assert (f'warning: the energy is untrained at step {step}: ' in told) != is_trained


def test_a_run_that_starts_from_a_vae_has_a_fresh_energy(tiny_config, run):
    network = dataclasses.replace(tiny_config.network, energy=(('dense', 7),))
    config = dataclasses.replace(tiny_config, init_from=str(run), network=network, seed=3)
    checkpoints.refuse_other_start(config)
    fresh = create_states(KEY, config)
    started = checkpoints.start_from(fresh, config)
    trained, _ = load(run)
    jax.tree.map(np.testing.assert_array_equal, started.energy.params, fresh.energy.params)
    for name in ('encoder', 'decoder'):
        pair = (getattr(states, name).params for states in (started, trained))
        jax.tree.map(np.testing.assert_array_equal, *pair)
