"""Data types of the jitted functions: the states of the models."""

from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state


class TrainState(train_state.TrainState):
    """Flax's TrainState with an exponential moving average of the parameters.

    `apply_fn` is the network's `apply`: `apply_fn({'params': params}, ...)`.

    Attributes:
      ema_params: the average.
      extra: state without gradients, such as spectral norm's vectors; None: nothing.
      was_trained: whether the initial parameters came from another run (`init_from`).
      is_critic: whether it is an energy U = -f, whatever reference and scale the config has.
    """

    ema_params: Any = None
    extra: Any = None
    was_trained: bool = flax.struct.field(pytree_node=False, default=False)
    is_critic: bool = flax.struct.field(pytree_node=False, default=False)

    @classmethod
    def create(cls, *, apply_fn, params, tx, **fields) -> 'TrainState':
        """A model at step 0; its average starts as a copy of its parameters.

        Args:
          apply_fn: of the energy `(variables, x, condition) -> [B]`, of the encoder
            `(variables, x, condition, dropout_keys) -> mean, log_std` (`[B, d]` each), of the
            decoder `(variables, z, condition) -> [B, H, W, C]`; `variables['params']` is `params`.
          params: a dict of arrays, or of further such trees.
          tx: an optax transformation.
          **fields: further fields of the state.
        """
        fields = {'ema_params': jax.tree.map(jnp.copy, params)} | fields
        state = super().create(apply_fn=apply_fn, params=params, tx=tx, **fields)
        # An array from the start: a Python int would cause a second trace.
        return state.replace(step=jnp.zeros((), jnp.int32))

    def advance(self, grads: chex.ArrayTree, ema_decay: float) -> 'TrainState':
        """One optimizer step, and an update of the average.

        The average's decay warms up as (1 + n) / (10 + n) after n updates of this model, so that
        the random initial parameters are soon forgotten. If the model `was_trained` the decay is
        `ema_decay` from the start. `ema_decay=0`: the average equals the parameters.
        """
        is_double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(grads))
        # Adam and schedules compute with counts: in float32, for any JAX configuration.
        with jax.numpy_dtype_promotion('standard'), jax.enable_x64(is_double):
            if not self.was_trained:
                ema_decay = jnp.minimum(ema_decay, (1.0 + self.step) / (10.0 + self.step))
            state = self.apply_gradients(grads=grads)
            average = optax.incremental_update(state.params, self.ema_params, 1.0 - ema_decay)
        # Parameters may have fewer bits than the decay.
        average = jax.tree.map(lambda new, old: new.astype(old.dtype), average, self.ema_params)
        return state.replace(ema_params=average)


@flax.struct.dataclass
class States:
    """A run's models by name, its step, and a method's memory.

    `States(energy, encoder, decoder)` are the usual three p_theta, pi_beta and q_alpha; others are
    given by name: `States(critic=..., generator=...)`. `replace` takes models by name, too.

    Attributes:
      models: the models.
      step: number of iterations done, int32. A model's `step` counts that model's updates. If not
        given: the energy's, or 0 without one.
      memory: what a method stores between iterations besides models, such as a replay buffer: any
        pytree; None: nothing.
    """

    models: dict[str, TrainState]
    step: chex.Array
    memory: Any = None

    def __init__(
        self,
        energy: Any = ...,
        encoder: Any = ...,
        decoder: Any = ...,
        *,
        models: dict[str, TrainState] | None = None,
        step: chex.Array | None = None,
        memory: Any = None,
        **others: TrainState,
    ):
        named = {'energy': energy, 'encoder': encoder, 'decoder': decoder} | others
        named = {name: model for name, model in named.items() if model is not ...}
        if models is None:
            models = named
            step = _copy(getattr(named.get('energy'), 'step', 0)) if step is None else step
        elif named:  # By `replace`.
            if unknown := named.keys() - models.keys():
                raise TypeError(f'there is no {min(unknown)!r} in states of {sorted(models)}')
            models = models | named
        vars(self).update(models=models, step=step, memory=memory)

    @property
    def energy(self) -> TrainState:
        return self._named('energy')

    @property
    def encoder(self) -> TrainState:
        return self._named('encoder')

    @property
    def decoder(self) -> TrainState:
        return self._named('decoder')

    def _named(self, name):
        if name not in self.models:
            raise AttributeError(f'there is no {name!r} in states of {sorted(self.models)}')
        return self.models[name]

    def advance(self, **changes: Any) -> 'States':
        """The states after one more iteration, with these models (or memory) replaced."""
        return self.replace(step=self.step + 1, **changes)


def _copy(step):
    """A copy: if two steps shared a buffer, neither could be donated."""
    return step if isinstance(step, jax.ShapeDtypeStruct) else jnp.array(step, jnp.int32)
