"""BicycleGAN: cVAE-GAN++ whose recoveries tell the z that they were drawn from.

J.-Y. Zhu et al., Toward multimodal image-to-image translation, 2017. The decoder also learns, with
weight 0.5, from the mean absolute error of the encoder's mean of z on a recovery whose z is known.
The encoder does not learn from it. A metric, `prior/z_error`, is that error: 0.8 is that of a mean
of 0, which says nothing of z. What differs from the authors' code: `methods.cvae_gan`.
"""

import functools

from vaebm_jax.methods.cvae_gan_pp import cvae_gan_pp_step

bicycle_gan_step = functools.partial(cvae_gan_pp_step, z_weight=0.5)
