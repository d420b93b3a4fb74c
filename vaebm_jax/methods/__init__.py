"""Methods: the models of a run, their training step and their samples; METHODS has one row each."""

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp

from vaebm_jax.config import CHOICES, Config, described
from vaebm_jax.methods import (
    bicycle_gan,
    ccoopnets,
    coopnets,
    cvae_gan,
    cvae_gan_pp,
    dcgan,
    guards,
    needs,
    persistent,
    pix2pix,
    pixelcnn,
    pixeliqn,
    short_run,
    vae,
    vaebm,
    wgan_gp,
)
from vaebm_jax.methods.parts import Metrics
from vaebm_jax.models.create import (
    CRITIC,
    DECODER,
    ENCODER,
    ENERGY,
    IMAGE_CRITIC,
    LIKELIHOOD,
    PATCH_CRITIC,
    QUANTILES,
    Role,
    create_models,
    energy_steps,
    learning_rate,
)
from vaebm_jax.models.states import States
from vaebm_jax.runtime.errors import UserError
from vaebm_jax.samplers.keys import branch, check_one_key


class Method(NamedTuple):
    """A method, chosen by `config.method`.

    Attributes:
      roles: the networks that it trains, by their names in `States.models`.
      step: `(key, states, batch, config, axis_name) -> (states, metrics)`, as `vaebm.train_step`.
      sample: `(keys, states, config, num_samples, condition) -> {stage: images}`, with the states'
        `params`. The two keys, of starting points and of chains, are `[num_samples]` each: sample i
        depends only on keys i.
      stages: the stages of a sample in order, with a description in which `{config...}` is filled
        in. A method with a stage `refined` has a model `energy`, which refines the stage before;
        there is a stage `latent` only where `langevin.prior_steps` is not 0.
      init_memory: `(key, config) -> pytree`: the initial `States.memory`; None: there is none.
      warm_start: the step of the first `config.warmup_steps` iterations; None: `step` itself.
      progress: templates of a progress line, filled with metrics; skipped if a metric is missing.
      warnings: `(step, metrics, metrics of earlier rows) -> lines`, as `guards.warnings`.
      scores: `(keys, states, config, images) -> {name: [N]}`, what `--mode=evaluate` measures of
        images `[N, H, W, C]` besides, with a key for each and the states' `params`; None: nothing.
      unused: settings without effect, by patterns: `langevin.*` is a complete section.
      settings: settings without effect in all methods that do not list them here.
      needs: `config -> (setting, what would be right)` for each setting that is wrong.
    """

    roles: dict[str, Role]
    step: Callable[..., tuple[States, Metrics]]
    sample: Callable[..., dict[str, chex.Array]]
    stages: dict[str, str]
    init_memory: Callable[[chex.PRNGKey, Config], Any] | None = None
    warm_start: Callable[..., tuple[States, Metrics]] | None = None
    progress: tuple[str, ...] = ()
    warnings: Callable[..., list[str]] = lambda step, metrics, earlier: []
    scores: Callable[..., dict[str, chex.Array]] | None = None
    unused: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    needs: Callable[[Config], Iterable[tuple[str, str]]] = lambda config: ()


_DECODED = 'ancestral samples (decoder)'
_LATENT = 'after {config.langevin.prior_steps} Langevin steps on z'
_REFINED = 'after {config.langevin.num_steps} Langevin steps'
_VALUE_AFTER_VALUE = 'samples, value after value'
_ENERGIES = 'energy of data {energy_data:.4g}, of samples {energy_samples:.4g}'
_RATE_AND_DISTORTION = 'rate {rate:.3g}, distortion {distortion:.3g}'
_OF_A_GAN = 'losses of critic {critic_loss:.3g}, of generator {generator_loss:.3g}'
_OF_RECOVERY = (_ENERGIES, f'{_OF_A_GAN}, absolute error {{l1:.3g}}')
_OF_Z = (*_OF_RECOVERY, 'rate {rate:.3g}')

_OF_LATENT_STAGE = (
    'langevin.prior_steps',
    'langevin.prior_step_size',
    'langevin.prior_temperature',
)
_UNUSED_BY_A_CRITIC = (
    'num_chains',
    'warmup_steps',
    'langevin.*',
    'energy.reference_*',
    'energy.scale',
    'energy.l2',
    'energy.*_noise*',
    'energy.augment',
    'condition.updates',
)
_UNUSED_BY_A_GAN = (*_UNUSED_BY_A_CRITIC, 'vae.*_weight', 'network.encoder')
_UNUSED_BY_PATCHES = (
    *_UNUSED_BY_A_CRITIC,
    'vae.bound_weight',
    'vae.kl_weight',
    'vae.known_z_weight',
    'vae.truth_weight',
    'vae.guess_weight',
    'vae.mean_weight',
    'network.energy_outputs',
)
_UNUSED_BY_AN_ENERGY_ALONE = (
    'latent_dim',
    'warmup_steps',
    'vae.*',
    'network.encoder',
    'network.decoder*',
)
_UNUSED_BY_A_LIKELIHOOD = (
    'num_chains',
    'latent_dim',
    'warmup_steps',
    'langevin.*',
    'energy.*',
    'vae.*_weight',
    'network.energy*',
    'network.encoder',
    'network.decoder*',
    'schedule.energy_steps',
    'divergence.max_energy',
)

# Rows of which others are variants.
_COOPNETS = Method(
    roles={'energy': ENERGY, 'decoder': DECODER},
    step=coopnets.coopnets_step,
    sample=vaebm.sample,
    stages={'ancestral': _DECODED, 'latent': _LATENT, 'refined': _REFINED},
    progress=(_ENERGIES, 'distortion {distortion:.3g}'),
    warnings=guards.warnings,
    unused=('warmup_steps', 'vae.*_weight', 'network.encoder'),
    settings=(*_OF_LATENT_STAGE, 'langevin.latent_steps', 'langevin.latent_step_size'),
)
_CVAE_GAN = Method(
    roles={'energy': IMAGE_CRITIC, 'encoder': ENCODER, 'decoder': DECODER},
    step=cvae_gan.cvae_gan_step,
    sample=vae.sample,
    stages={'ancestral': _DECODED},
    progress=_OF_Z,
    warnings=guards.gan_warnings,
    unused=_UNUSED_BY_PATCHES,
    settings=('vae.l1_weight',),
    needs=needs.patches,
)
_CVAE_GAN_PP = _CVAE_GAN._replace(
    roles={
        'energy': IMAGE_CRITIC,
        'energy_prior': IMAGE_CRITIC,
        'encoder': ENCODER,
        'decoder': DECODER,
    },
    step=cvae_gan_pp.cvae_gan_pp_step,
    needs=cvae_gan_pp.two_images,
)

METHODS = {
    'vaebm': Method(
        roles={'energy': ENERGY, 'encoder': ENCODER, 'decoder': DECODER},
        step=vaebm.train_step,
        sample=vaebm.sample,
        stages={'ancestral': _DECODED, 'latent': _LATENT, 'refined': _REFINED},
        warm_start=vae.vae_step,
        progress=(_ENERGIES, _RATE_AND_DISTORTION),
        warnings=guards.warnings,
        settings=_OF_LATENT_STAGE,
    ),
    'vae': Method(
        roles={'encoder': ENCODER, 'decoder': DECODER},
        step=vae.vae_step,
        sample=vae.sample,
        stages={'ancestral': _DECODED},
        progress=(_RATE_AND_DISTORTION,),
        unused=(
            'num_chains',
            'warmup_steps',
            'langevin.*',
            'energy.*',
            'vae.bound_weight',
            'vae.known_z_weight',
            'vae.truth_weight',
            'network.energy*',
            'schedule.energy_steps',
            'condition.updates',
            'divergence.max_energy',
        ),
    ),
    'coopnets': _COOPNETS,
    'ccoopnets': _COOPNETS._replace(
        step=ccoopnets.ccoopnets_step,
        unused=(
            'warmup_steps',
            'vae.bound_weight',
            'vae.kl_weight',
            'vae.known_z_weight',
            'vae.truth_weight',
            'vae.mean_weight',
            'network.encoder',
        ),
        needs=needs.a_condition,
    ),
    'short_run': Method(
        roles={'energy': ENERGY},
        step=short_run.short_run_step,
        sample=short_run.sample,
        stages={'noise': 'uniform noise', 'refined': _REFINED},
        progress=(_ENERGIES,),
        warnings=guards.warnings,
        unused=_UNUSED_BY_AN_ENERGY_ALONE,
        needs=needs.no_condition,
    ),
    'persistent': Method(
        roles={'energy': ENERGY},
        step=persistent.persistent_step,
        sample=persistent.sample,
        stages={'memory': 'images of the replay memory', 'refined': _REFINED},
        init_memory=persistent.init_memory,
        progress=(_ENERGIES,),
        warnings=guards.warnings,
        unused=_UNUSED_BY_AN_ENERGY_ALONE,
        settings=('langevin.memory_size',),
        needs=persistent.needs,
    ),
    'dcgan': Method(
        roles={'energy': CRITIC, 'decoder': DECODER},
        step=dcgan.dcgan_step,
        sample=vae.sample,
        stages={'ancestral': _DECODED},
        progress=(_ENERGIES, _OF_A_GAN),
        warnings=guards.gan_warnings,
        unused=_UNUSED_BY_A_GAN,
    ),
    'wgan_gp': Method(
        roles={
            'energy': CRITIC._replace(num_updates=wgan_gp.num_updates),
            'decoder': DECODER,
        },
        step=wgan_gp.wgan_gp_step,
        sample=vae.sample,
        stages={'ancestral': _DECODED},
        progress=(_ENERGIES, 'gradient penalty {gradient_penalty:.3g}'),
        warnings=guards.gan_warnings,
        unused=_UNUSED_BY_A_GAN,
        settings=('energy.updates',),
        needs=wgan_gp.needs,
    ),
    'pix2pix': Method(
        roles={'energy': PATCH_CRITIC, 'decoder': DECODER},
        step=pix2pix.pix2pix_step,
        sample=vae.sample,
        stages={'ancestral': _DECODED},
        progress=_OF_RECOVERY,
        warnings=guards.gan_warnings,
        unused=(*_UNUSED_BY_PATCHES, 'network.encoder'),
        settings=('vae.l1_weight',),
        needs=needs.patches,
    ),
    'cvae_gan': _CVAE_GAN,
    'cvae_gan_pp': _CVAE_GAN_PP,
    'bicycle_gan': _CVAE_GAN_PP._replace(
        step=bicycle_gan.bicycle_gan_step,
        progress=(*_OF_Z, 'error of z {prior/z_error:.3g}'),
    ),
    'pixelcnn': Method(
        roles={'likelihood': LIKELIHOOD},
        step=pixelcnn.pixelcnn_step,
        sample=pixelcnn.sample,
        stages={'ancestral': _VALUE_AFTER_VALUE},
        progress=('{bits_per_dim:.4g} bits per dimension',),
        scores=pixelcnn.scores,
        unused=_UNUSED_BY_A_LIKELIHOOD,
        settings=('network.likelihood',),
        needs=pixelcnn.needs,
    ),
    'pixeliqn': Method(
        roles={'likelihood': QUANTILES},
        step=pixeliqn.pixeliqn_step,
        sample=pixeliqn.sample,
        stages={'ancestral': _VALUE_AFTER_VALUE},
        progress=('quantile loss {pinball:.4g}',),
        scores=pixeliqn.scores,
        unused=_UNUSED_BY_A_LIKELIHOOD,
        settings=('network.likelihood',),
        needs=pixelcnn.needs_images,
    ),
}
CHOICES['method'] = METHODS


def create_states(key: chex.PRNGKey, config: Config, condition: chex.Array | None = None) -> States:
    """The models of the config's method at step 0, with initial parameters and an Adam each.

    Args:
      key: of the initial parameters.
      config: the experiment.
      condition: an example `[1, H, W, C + 1]` of the models' condition; None: as configured.
    """
    check_one_key(key)
    config.freeze()
    method = METHODS[config.method]
    models = create_models(key, config, method.roles, condition)
    memory = method.init_memory and method.init_memory(branch(key, 'memory'), config)
    return States(models=models, step=jnp.zeros((), jnp.int32), memory=memory)


def rates_at(step: int, config: Config) -> dict[str, float]:
    """The learning rates after `step` iterations, by model.

    The energy's rate follows the energy's updates, of which a warm start has none.
    """
    method = METHODS[config.method]
    sections = {role.section for role in method.roles.values()}
    rates = {}
    if 'energy' in sections:
        rate = learning_rate(config.energy.learning_rate, config.schedule, energy_steps(config))
        warmup_steps = config.warmup_steps if method.warm_start else 0
        rates['energy'] = float(rate(max(0, step - warmup_steps)))
    if 'vae' in sections:
        rate = learning_rate(config.vae.learning_rate, config.schedule, config.num_steps)
        rates['VAE'] = float(rate(step))
    return rates


def progress_words(metrics: dict[str, float], config: Config) -> str:
    """A step's metrics in words; a warm start has fewer."""
    parts = []
    for words in METHODS[config.method].progress:
        try:
            parts.append(words.format(**metrics))
        except KeyError:
            continue
    return ', '.join(parts)


def sample_stages(config: Config) -> dict[str, str]:
    """The stages of the method's samples in their order, each with its description."""
    stages = METHODS[config.method].stages
    return {
        name: words.format(config=config)
        for name, words in stages.items()
        if name != 'latent' or config.langevin.prior_steps
    }


def has_energy(config: Config) -> bool:
    """Whether the method trains an energy, which refines samples."""
    return 'refined' in METHODS[config.method].stages


def is_unused(name: str, config: Config) -> bool:
    """Whether a setting, by its dotted name, has no effect in the method."""
    method = METHODS[config.method]
    is_of_some = any(name in row.settings for row in METHODS.values())
    return (is_of_some and name not in method.settings) or any(
        fnmatch.fnmatchcase(name, unused) for unused in method.unused
    )


def unused_settings(config: Config) -> list[str]:
    """The method's `unused`, and settings of other methods alone that are not at their default."""
    changed = [name for name, (field, value) in described(config).items() if value != field.default]
    listed = METHODS[config.method].unused
    own = dict.fromkeys(name for row in METHODS.values() for name in row.settings)
    return [*listed, *(name for name in own if name in changed and is_unused(name, config))]


def has_models(config: Config, *names: str) -> bool:
    """Whether the method trains models of all these names."""
    return METHODS[config.method].roles.keys() >= {*names}


def refuse_without_energy(mode: str, config: Config, *models: str) -> None:
    """Raises a UserError if a mode measures an energy, or others, that the method does not train.

    Args:
      mode: of the command line.
      config: of the run.
      models: names of further models that the mode measures.
    """
    lacking = [] if has_energy(config) else ['energy']
    lacking += [name for name in models if not has_models(config, name)]
    if lacking:
        what = ' and '.join(lacking)
        raise UserError(f'--mode={mode} needs a run with an {what}, got method={config.method!r}')


def untrained_energy(step: int, config: Config) -> str:
    """A warning if the energy in the checkpoint of this step is untrained; '' if not."""
    if not METHODS[config.method].warm_start or step > config.warmup_steps or config.init_from:
        return ''
    return (
        f'warning: the energy is untrained at step {step}: the first {config.warmup_steps} steps '
        'train only the VAE (warmup_steps), so refined samples are meaningless'
    )
