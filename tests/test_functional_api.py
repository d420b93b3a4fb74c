"""docs/functional_api.md runs as it stands; and what it promises, where the page does not look."""

import dataclasses
import functools
import os
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.commands import ROOT
from jax.sharding import PartitionSpec as P

from vaebm_jax import (
    Batch,
    TrainState,
    create_states,
    energy_fn,
    generate,
    langevin_sample,
    make_condition,
    recover,
    to_uint8,
    train_step,
)
from vaebm_jax.config import (
    ConditionConfig,
    Config,
    DataConfig,
    LangevinConfig,
    NetworkConfig,
    VAEConfig,
)
from vaebm_jax.methods.parts import vae_loss

PAGE = ROOT / 'docs' / 'functional_api.md'
KEY = jax.random.key(1)
jit_step = jax.jit(train_step, static_argnames='config')


def code_of(page):
    """A page's Python blocks, every line where it stands in the page."""
    lines, is_code = [], False
    for line in page.splitlines():
        is_fence = line.startswith('```')
        lines.append(line if is_code and not is_fence else '')
        is_code = line == '```python' if is_fence else is_code
    return '\n'.join(lines)


@pytest.mark.multi_device
def test_the_page_runs(tmp_path):
    page = PAGE.read_text()
    sections = re.findall('^## (.*)', page, re.M)
    assert [name.split()[0] for name in sections[:6]] == [
        '`jax.jit`',
        '`jax.pmap`',
        '`jax.shard_map`',
        '`jax.vmap`',
        '`generate`,',
        '`langevin_sample`',
    ]
    code = code_of(page)
    assert code.count('assert') > len(sections), 'every example checks what it computes'
    script = tmp_path / 'functional_api.py'
    script.write_text(code)
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'NPROC': '8',
        # At level 0 the page's seven programs take half the time to compile.
        'XLA_FLAGS': (
            '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
        ),
        'PYTHONPATH': str(ROOT),
    }
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_states_of_equal_configs_go_through_one_compilation(tiny_config):
    step = jax.jit(chex.assert_max_traces(train_step, n=1), static_argnames='config')
    batch = Batch(jnp.zeros((8, 8, 8, 1)))
    others = []
    for seed in range(2):
        config = dataclasses.replace(tiny_config)
        states = create_states(jax.random.key(seed), config)
        others.append(step(KEY, states, batch, config)[0])
    changes = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), *others)
    assert float(changes.energy.params['energy']['kernel']) > 0.0


def with_setting(config, section, **settings):
    part = dataclasses.replace(getattr(config, section), **settings)
    return dataclasses.replace(config, **{section: part})


def test_another_rate_gives_another_optimizer(tiny_config):
    params = lambda states: states.energy.params['energy']['kernel']
    batch = Batch(jnp.zeros((8, 8, 8, 1)))
    moves = []
    for rate in (1e-3, 2e-3):
        config = with_setting(tiny_config, 'schedule', name='constant')
        config = with_setting(config, 'energy', learning_rate=rate)
        states = create_states(jax.random.key(0), config)
        moves.append(params(jit_step(KEY, states, batch, config)[0]) - params(states))
    np.testing.assert_allclose(moves[1], 2.0 * moves[0], rtol=1e-3, atol=1e-6)


IMAGES = np.tanh(np.random.default_rng(0).normal(size=(4, 8, 8, 1))).astype(np.float32)


def generated(config):
    return generate(KEY, create_states(KEY, config), config, 4)


def stepped(config):
    return jit_step(KEY, create_states(KEY, config), Batch(IMAGES), config)[1]


def stepped_in_a_closure(config):
    step = jax.jit(lambda states: train_step(KEY, states, Batch(IMAGES), config))
    return step(create_states(KEY, config))[1]


def recovered(config):
    condition = make_condition(KEY, IMAGES, config.condition)
    return recover(KEY, create_states(KEY, config), config, condition, 2)


@functools.partial(jax.jit, static_argnames='config')
def ones_own(states, config):
    loss, _ = vae_loss(KEY, None, states.encoder, states.decoder, IMAGES, None, config)
    return energy_fn(states, config)(IMAGES), loss


def in_ones_own_jit(config):
    return ones_own(create_states(KEY, config), config)


USES = {
    generated: {'langevin', 'energy'},
    stepped: {'langevin', 'energy', 'vae'},
    stepped_in_a_closure: {'langevin', 'energy', 'vae'},
    recovered: {'langevin', 'energy'},
    in_ones_own_jit: {'energy', 'vae'},
}


@pytest.mark.parametrize('use', USES, ids=lambda use: use.__name__)
def test_a_config_that_was_used_never_changes(tiny_config, use):
    """Nor does an equal one get an old program: each gives what it gives in a fresh process."""
    kind = 'center_hole' if use is recovered else 'none'
    tiny_config = with_setting(tiny_config, 'condition', kind=kind)
    before = use(tiny_config)
    for section, (name, value) in {
        'langevin': ('num_steps', 9),
        'vae': ('kl_weight', 30.0),
        'energy': ('reference_mean', 0.5),
    }.items():
        with pytest.raises(dataclasses.FrozenInstanceError, match=f'{name} .*dataclasses.replace'):
            setattr(getattr(tiny_config, section), name, value)
        changed = use(with_setting(tiny_config, section, **{name: value}))
        jax.clear_caches()
        truth = use(with_setting(tiny_config, section, **{name: value}))
        chex.assert_trees_all_close(changed, truth, rtol=1e-6)
        differs = any(
            np.any(a != b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(changed), strict=True)
        )
        assert differs == (section in USES[use]), section


BYTES = np.uint8(127.5 * (IMAGES + 1))
LARGE = np.zeros((4, 9, 9, 1), np.float32)


@pytest.mark.parametrize(
    'key, batch, error, message',
    [
        (0, Batch(IMAGES), TypeError, 'key must be a JAX key, such as jax.random.key(0), or [B'),
        (jax.random.split(KEY), Batch(IMAGES), ValueError, 'key must be one key, got 2'),
        (KEY, IMAGES, TypeError, 'batch must be a Batch, such as Batch(images), got ndarray'),
        (KEY, Batch(BYTES), TypeError, 'batch.image must be of floating-point numbers of 16, 32'),
        (KEY, Batch(IMAGES.tolist()), TypeError, 'batch.image must be an array of numbers, got li'),
        (KEY, Batch(IMAGES[..., 0]), ValueError, 'batch.image must be one or more images [B, H, W'),
        (KEY, Batch(IMAGES[:0]), ValueError, 'batch.image must be one or more images [B, H, W, C'),
        (KEY, Batch(LARGE), ValueError, 'batch.image must be of shape [B, 8, 8, 1], as the deco'),
        (
            KEY,
            Batch(IMAGES, IMAGES[:2]),
            ValueError,
            'batch.condition must have a row for each of ',
        ),
    ],
)
def test_the_step_refuses_what_it_cannot_take(tiny_config, key, batch, error, message):
    with pytest.raises(error) as raised:
        train_step(key, create_states(KEY, tiny_config), batch, tiny_config)
    assert str(raised.value).startswith(message) and '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'x, condition, error, message',
    [
        (
            BYTES,
            None,
            TypeError,
            'x must be of floating-point numbers of 16, 32 or 64 bits, got ui',
        ),
        (IMAGES[0], None, ValueError, 'x must be one or more images [B, H, W, C] with pixels in'),
        (Batch(IMAGES), None, TypeError, 'x must be an array of numbers, got Batch'),
        (LARGE, None, ValueError, "x and condition must be of the sizes of the energy's network"),
        (IMAGES, IMAGES, ValueError, "x and condition must be of the sizes of the energy's netw"),
    ],
)
def test_an_energy_refuses_what_it_cannot_take(tiny_config, x, condition, error, message):
    energy = energy_fn(create_states(KEY, tiny_config), tiny_config, condition=condition)
    with pytest.raises(error) as raised:
        energy(x)
    assert str(raised.value).startswith(message) and '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'image, message',
    [
        (BYTES, 'image must be of floating-point numbers'),
        (IMAGES[0], 'image must be one or more images'),
        (Batch(IMAGES), 'image must be an array of numbers, got Batch'),
    ],
)
def test_a_condition_is_of_images(image, message):
    with pytest.raises((TypeError, ValueError), match=f'^{message}'):
        make_condition(KEY, image, ConditionConfig('center_hole'))


def test_pictures_of_samples_are_clipped():
    """Headroom ends at black and white; the values by hand."""
    config = Config(data=DataConfig(image_size=1, headroom=0.25))
    x = np.float32([-1.25, -1.01, -1, -0.5, 0, 1 / 127.5, 1, 1.25]).reshape(-1, 1, 1, 1)
    pictures = to_uint8(jnp.asarray(x), config)
    assert pictures.dtype == np.uint8 and pictures.shape == x.shape
    np.testing.assert_array_equal(pictures.ravel(), [0, 0, 0, 64, 128, 128, 255, 255])
    assert to_uint8(x[0], config).shape == (1, 1, 1)
    for wrong, message in (
        (pictures, 'images must be of floating-point numbers'),
        (x.reshape(1, 8, 1, 1), r'images must be of shape \[..., 1, 1, 1\], .* got shape'),
        (x.tolist(), 'images must be an array of numbers, got list'),
    ):
        with pytest.raises((TypeError, ValueError), match=f'^{message}'):
            to_uint8(wrong, config)
    ring = Config(data=DataConfig('ring', image_size=1, num_channels=2))
    with pytest.raises(ValueError, match='^images must be images, but those of ring are points$'):
        to_uint8(np.zeros((3, 1, 1, 2), np.float32), ring)


def test_a_state_of_ones_own_can_be_donated_and_is_traced_once(tiny_config):
    step = jax.jit(
        chex.assert_max_traces(train_step, n=1), static_argnames='config', donate_argnums=1
    )
    energy = TrainState.create(
        apply_fn=lambda variables, x, condition: x.reshape(len(x), -1) @ variables['params']['w'],
        params={'w': np.full(64, 0.5, np.float32)},
        tx=optax.sgd(0.1),
    )
    np.testing.assert_array_equal(energy.ema_params['w'], energy.params['w'])
    states = create_states(jax.random.key(0), tiny_config).replace(energy=energy)
    for _ in range(2):
        states, _ = step(KEY, states, Batch(jnp.zeros((8, 8, 8, 1))), tiny_config)
    assert int(states.step) == 2
    assert np.any(np.asarray(states.energy.ema_params['w']) != 0.5)


def conv_config(kind):
    """Convolutions that a CPU computes plainly, and by Winograd's filtering, gradients included."""
    table = (('conv', 16, 3, 1), ('conv', 16, 4, 2))
    decoder = (('down', 16, 3), ('up', 16, 3)) if kind != 'none' else (('map', 16), ('up', 16, 3))
    return Config(
        latent_dim=4,
        num_chains=8,
        langevin=LangevinConfig(num_steps=2),
        vae=VAEConfig(truth_weight=1.0),
        condition=ConditionConfig(kind),
        network=NetworkConfig(
            energy=(*table, ('dense', 8)), encoder=(*table, ('dropout', 0.2)), decoder=decoder
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['none', 'center_hole'])
def test_an_ensemble_of_convolutions_is_its_members(kind):
    config = conv_config(kind)
    # Between kinks a leaky ReLU's gradients cancel but for roundings, and Adam makes steps of them.
    config = with_setting(config, 'network', activation='silu')
    with jax.enable_x64(True):
        images = np.tanh(np.random.default_rng(0).normal(size=(4, 8, 8, 1)))
        condition = None
        if kind != 'none':
            mask = np.ones((4, 8, 8, 1))
            mask[:, 2:6, 2:6] = 0.0
            condition = jnp.concatenate([images * mask, mask], axis=-1)
        batch = Batch(jnp.asarray(images), condition)
        double = lambda leaf: leaf.astype('float64') if leaf.dtype == 'float32' else leaf
        create = lambda key: jax.tree.map(double, create_states(key, config))
        step = lambda key, states: train_step(key, states, batch, config)
        keys = jax.random.split(jax.random.key(0), 2)
        members = [create(key) for key in keys]
        ensemble = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        alone, together = jax.jit(step), jax.jit(jax.vmap(step))
        for _ in range(2):
            ensemble, metrics = together(keys, ensemble)
            members = [alone(*member)[0] for member in zip(keys, members, strict=True)]
        assert metrics['distortion'].dtype == 'float64'
        for i, member in enumerate(members):
            part = jax.tree.map(lambda leaf, i=i: leaf[i], ensemble)
            chex.assert_trees_all_close(part, member, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('kind', ['none', 'center_hole'])
@pytest.mark.parametrize('check_vma', [False, True])
def test_convolutions_trace_in_shard_map(kind, check_vma):
    """With its default, check_vma=True, types say what devices share, and branches must agree."""
    config = conv_config(kind)
    states = jax.eval_shape(lambda key: create_states(key, config), KEY)
    step = jax.shard_map(
        functools.partial(train_step, config=config, axis_name='data'),
        mesh=jax.sharding.Mesh(jax.devices()[:1], ('data',)),
        in_specs=(P(), P(), P('data')),
        out_specs=P(),
        check_vma=check_vma,
    )
    condition = None if kind == 'none' else jnp.zeros((4, 8, 8, 2))
    after, _ = jax.eval_shape(step, KEY, states, Batch(jnp.zeros((4, 8, 8, 1)), condition))
    assert jax.tree.structure(after) == jax.tree.structure(states)


def test_settings_of_a_chain_can_be_mapped_over():
    energy = lambda x: jnp.sum(jnp.square(x) * jnp.square(x - 1.0), axis=-1)
    x = jax.random.normal(KEY, (5, 3))

    def chain(step_size, noise_scale, max_drift):
        settings = dict(step_size=step_size, noise_scale=noise_scale, max_drift=max_drift)
        return langevin_sample(KEY, energy, x, num_steps=4, **settings)[0]

    settings = np.array([0.1, 0.3]), np.array([0.0, 1.0]), np.array([1e-3, 0.0])
    together = jax.vmap(chain)(*settings)
    assert np.all(np.isfinite(together))
    alone = [chain(*map(float, row)) for row in zip(*settings, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)
