"""What crosses the compiled boundary: a batch goes in, the three models' states go in and out."""

from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state


class TrainState(train_state.TrainState):
    """Flax's TrainState with an exponential moving average of the parameters beside them.

    `apply_fn` is the network's `apply`: `apply_fn({'params': params}, ...)`.

    Attributes:
      ema_params: the average.
      extra: what the model keeps and no gradient changes: spectral norm's vectors; None: nothing.
      was_trained: whether the first parameters were those of another run (`init_from`).
    """

    ema_params: Any = None
    extra: Any = None
    was_trained: bool = flax.struct.field(pytree_node=False, default=False)

    @classmethod
    def create(cls, *, apply_fn, params, tx, **fields) -> 'TrainState':
        """A model at step 0, its average beginning at a copy of its parameters.

        Args:
          apply_fn: of the energy `(variables, x, condition) -> [B]`, of the encoder
            `(variables, x, condition, dropout_keys) -> mean, log_std` (`[B, d]` each), of the
            decoder `(variables, z, condition) -> [B, H, W, C]`; `variables['params']` is `params`.
          params: a dict of arrays, or of further such trees.
          tx: an optax transformation.
          **fields: of the state, in place of these.
        """
        fields = {'ema_params': jax.tree.map(jnp.copy, params)} | fields
        state = super().create(apply_fn=apply_fn, params=params, tx=tx, **fields)
        # An array from the start: a Python int would be traced a second time.
        return state.replace(step=jnp.zeros((), jnp.int32))

    def advance(self, grads: chex.ArrayTree, ema_decay: float) -> 'TrainState':
        """One optimizer step, and the average follows.

        The average's decay warms up as (1 + n) / (10 + n) after n updates of this model, so that
        the first parameters, which are noise, are soon forgotten. Where the model `was_trained`
        they are none, and the decay is `ema_decay` from the start. `ema_decay=0` keeps no memory.
        """
        is_double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(grads))
        # Adam and schedules compute with counts: in float32, whatever JAX's switches are.
        with jax.numpy_dtype_promotion('standard'), jax.enable_x64(is_double):
            if not self.was_trained:
                updates = self.num_updates
                ema_decay = jnp.minimum(ema_decay, (1.0 + updates) / (10.0 + updates))
            state = self.apply_gradients(grads=grads)
            average = optax.incremental_update(state.params, self.ema_params, 1.0 - ema_decay)
        # Parameters may be of fewer bits than the decay.
        average = jax.tree.map(lambda new, old: new.astype(old.dtype), average, self.ema_params)
        return state.replace(ema_params=average)

    @property
    def num_updates(self) -> chex.Numeric:
        """How often this model was updated: Adam's own count, which stands still with the model.

        Of another optimizer, `step`.
        """
        is_adam = lambda state: isinstance(state, optax.ScaleByAdamState)
        adams = filter(is_adam, jax.tree.leaves(self.opt_state, is_leaf=is_adam))
        return next((adam.count for adam in adams), self.step)

    def stand_still(self) -> 'TrainState':
        """The same model a step later, for methods that do not train it."""
        return self.replace(step=self.step + 1)


@flax.struct.dataclass
class States:
    """The three models p_theta (energy), pi_beta (encoder) and q_alpha (decoder)."""

    energy: TrainState
    encoder: TrainState
    decoder: TrainState


@flax.struct.dataclass
class Batch:
    """Observed images, and what is known of them where the model is conditional.

    Attributes:
      image: `[B, H, W, C]`, pixels in [-1, 1], black and white as far beyond as `data.headroom`.
      condition: `[B, H, W, K]`, or None.
    """

    image: chex.Array
    condition: chex.Array | None = None
