"""MNIST, 28x28x1 (TFDS).

    python -m vaebm_jax.main --config=configs/mnist.py --workdir=runs/mnist

15,500 steps take 17.6 CPU minutes (AVX-512, jax 0.10.2). Of 2,000 refined samples a classifier of
99.6 % test accuracy gives 96.5 % a probability of 0.9 or more, of the ancestral samples 77.6 %, of
the test images 98.8 % (seed 0, benchmarks/legibility.py; docs/results.md has the other scores).
4,800 steps (`--config.num_steps=4800`) take a third of the time; docs/experiments/known_z.md has
shorter runs and the poster's learning in the same time.

Healthy, from step 300 on: `rate` 18 to 27 nats, `spread` 0.82 to 1.10, `energy_data` from -0.3e6 to
1.3e6 with a gap to `energy_samples` below 1.6e5 that changes sign, `langevin/motion` 0.16 to 0.38.

What it needs, each found by leaving it out:
- SiLU: with a leaky ReLU the gradient of the energy is constant between kinks; 39 % instead of
  54 % were legible after 1,500 steps of a smaller energy, and a longer run diverged at step 2,040.
- Two dense layers on top of the convolutions: they see complete digits, not only strokes. With one
  layer 69 % were legible after 4,500 steps.
- Learning rates that fall from the first step on, and a bound on the drift: ∇U keeps growing in
  training, until a step of the chain overshoots and the run diverges within 50 steps. It did at
  step 3,200 with a constant rate and steps of 0.007, at 3,500 in one of three seeds without the
  bound.
- Known z (`vae.known_z_weight`): the decoder also learns each refined sample from the z that its
  chain started from. Without it 45 % of the ancestral samples are legible after 4,800 steps.
- A VAE that learns slower than the energy; at 1e-3 it collapses to a few pictures.
- A reference at black, the value of four pixels in five. At grey, where f has to undo it first,
  71, 75 and 75 % were legible after 3,200 steps, at black 79, 79 and 81 %.
- Headroom. The chain's gradient made a faint grain on black backgrounds, and Frechet distances
  depend on grain more than on digits (docs/experiments/grain_on_black.md). With headroom h black is
  -1 - h in training, and saved images are clipped, so the grain disappears.

    python -m vaebm_jax.main --config=configs/mnist.py:paper --workdir=runs/mnist_paper

has the authors' settings, made for days on a GPU.
"""

from vaebm_jax import config as c


def get_config(variant: str = '') -> c.Config:
    return c.choose(variant, default=default(), paper=paper())


def default() -> c.Config:
    """For two CPU cores: convolutions and two dense layers for the energy, and a dense VAE."""
    dense = (('dense', 512), ('dense', 512))
    return c.Config(
        name='mnist',
        num_steps=15_500,
        batch_size=64,
        latent_dim=32,
        log_every=50,
        sample_every=1000,
        checkpoint_every=1000,
        ema_decay=0.999,
        data=c.DataConfig(name='mnist', image_size=28, headroom=0.25),
        langevin=c.LangevinConfig(
            num_steps=10, step_size=0.006, max_drift=4.0, prior_steps=20, prior_temperature=2e4
        ),
        energy=c.EnergyConfig(reference_mean=-1.25, learning_rate=1e-3),
        vae=c.VAEConfig(learning_rate=3e-4, kl_weight=2.0, known_z_weight=1.0),
        network=c.NetworkConfig(
            energy=(('conv', 16, 4, 2), ('conv', 32, 4, 2), ('dense', 512), ('dense', 256)),
            encoder=dense,
            decoder=dense,
            activation='silu',
        ),
        # From the first step on: at a constant rate the energy steepens until the chain diverges.
        schedule=c.ScheduleConfig(name='linear', decay_share=1.0),
    )


def paper() -> c.Config:
    """The authors' settings: 400 images and 400 chains of 50 steps, 5,000 epochs.

    The poster's chain has noise, the authors' code has not; at this step size either gives the
    same pictures. `--config.langevin.noise_scale=0` is the code's. Samples are drawn with the
    last parameters, not with an average.
    """
    return c.Config(
        name='mnist_paper',
        num_steps=750_000,  # 5,000 epochs of 150 steps.
        batch_size=400,
        num_chains=400,
        latent_dim=100,
        log_every=150,
        sample_every=3000,
        checkpoint_every=3000,
        ema_decay=0.0,
        data=c.DataConfig(name='mnist', image_size=28),
        langevin=c.LangevinConfig(num_steps=50, step_size=0.001),
        energy=c.EnergyConfig(reference_std=0.016, scale=1.0, learning_rate=9e-3, adam_b1=0.5),
        vae=c.VAEConfig(learning_rate=1e-4, kl_weight=3.0, adam_b1=0.5),
        network=c.mnist_paper_network(),
        # x 0.98 every 20 epochs, smoothly.
        schedule=c.ScheduleConfig(name='exponential', decay_rate=0.98, decay_steps=20 * 150),
    )
