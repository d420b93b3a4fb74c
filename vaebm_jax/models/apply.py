"""Trained models as functions: the decoder, the energy, and all with averaged parameters."""

from collections.abc import Callable

import chex
from flax.errors import ScopeParamShapeError

from vaebm_jax.config import Config
from vaebm_jax.data.batch import check_images
from vaebm_jax.models import spectral
from vaebm_jax.models.energy import make_energy_fn
from vaebm_jax.models.networks import cast_inner
from vaebm_jax.models.states import States, TrainState


def decode(decoder: TrainState, z: chex.Array, condition: chex.Array | None = None) -> chex.Array:
    """`g_α(z)`: images `[B, H, W, C]` from `z` `[B, d]`, with the state's parameters."""
    return decoder.apply_fn({'params': decoder.params}, z, condition)


def energy_of(
    state: TrainState, config: Config, condition: chex.Array | None = None
) -> Callable[[chex.Array], chex.Array]:
    """The energy `x -> [B]` nats of one TrainState, with its `params`."""
    config.freeze()
    form = {'reference_std': 0.0, 'scale': 1.0}
    if not state.is_critic:
        names = ('reference_std', 'scale', 'reference_mean')
        form = {name: getattr(config.energy, name) for name in names}
    params = cast_inner(_normalized(state, config), config.dtype)
    return make_energy_fn(state.apply_fn, params, condition, **form)


def maps_of(
    critic: TrainState, config: Config, condition: chex.Array | None = None
) -> Callable[[chex.Array], tuple[chex.Array, ...]]:
    """The maps `x -> [B, h, w]` of a `PatchCritic`, one for each scale, with its `params`."""
    params = {'params': _normalized(critic, config)}
    return lambda x: critic.apply_fn(params, x, condition, method='maps')


def _normalized(state, config):
    """The parameters, kernels with the spectral norm of the config if it has one."""
    if not config.energy.spectral_norm:
        return state.params
    return spectral.normalize(state.params, state.extra, config.energy.spectral_norm)


def averaged(states: States) -> States:
    """The states with the moving averages in place of the parameters."""
    models = states.models.items()
    return states.replace(
        models={name: model.replace(params=model.ema_params) for name, model in models}
    )


def energy_fn(
    states: States, config: Config, ema: bool = True, condition: chex.Array | None = None
) -> Callable[[chex.Array], chex.Array]:
    """A trained energy as a function of images `[B, H, W, C]`, to `[B]` in nats.

    Images as in training: in [-1, 1]; with headroom h black is -1 - h and white 1 + h. It raises a
    TypeError or ValueError for others, and for those that do not fit the network.
    """
    energy = energy_of((averaged(states) if ema else states).energy, config, condition)

    def checked(x):
        check_images('x', x)
        try:
            return energy(x)
        except ScopeParamShapeError as error:
            size, channels = config.data.image_size, config.data.num_channels
            given = 'None' if condition is None else f'of shape {condition.shape}'
            raise ValueError(
                "x and condition must be of the sizes of the energy's network (config: images of "
                f'{size}x{size} pixels and {channels} channels, condition.kind '
                f'{config.condition.kind}), got x of shape {x.shape} and condition {given}'
            ) from error

    return checked
