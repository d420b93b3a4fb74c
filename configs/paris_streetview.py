"""Paris StreetView, 256 pixels: the loader and the models of configs/facades.py on another folder.

    python -m vaebm_jax.main --config=configs/paris_streetview.py --workdir=runs/paris \
        --config.data.dir=path/to/paris

The images are given out on request by the authors of Context Encoders (D. Pathak et al., 2016), not
downloaded; `data.dir` (or PARIS_STREETVIEW_DIR) is a folder with `train` and `test` below it. Never
run here.
"""

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(variant, default=of_256_pixels())


def of_256_pixels() -> c.Config:
    """The settings of configs/facades.py, for 14,900 images in place of 400."""
    return c.Config(
        name='paris_streetview',
        num_steps=100_000,
        warmup_steps=50_000,
        batch_size=16,
        latent_dim=16,
        log_every=50,
        sample_every=1000,
        checkpoint_every=1000,
        ema_decay=0.999,
        data=c.DataConfig(
            name='paris_streetview', image_size=256, load_size=286, num_channels=3, flip=True
        ),
        condition=c.ConditionConfig('center_hole', jitter=0.1),
        langevin=c.LangevinConfig(num_steps=10, step_size=0.003),
        energy=c.EnergyConfig(learning_rate=2e-4),
        vae=c.VAEConfig(
            learning_rate=5e-4, kl_weight=1.0, adam_b1=0.9, truth_weight=1.0, guess_weight=1.0
        ),
        network=c.recovery_network(256),
    )
