"""The estimate of a long run, said once, from its first steps."""

import dataclasses
import time

import pytest

from vaebm_jax.training.progress import Progress


def lines(capfd, config, seconds_a_step, num_steps, log_every=10**9, monkeypatch=None):
    """What a run of so fast steps says of the time that it takes."""
    clock = [0.0]
    monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])
    progress = Progress(config, 0)
    metrics = dict.fromkeys(('energy_data', 'energy_samples', 'rate', 'distortion', 'spread'), 1.0)
    for step in range(1, num_steps + 1):
        clock[0] += seconds_a_step
        progress.advance(step)
        if step % log_every == 0:
            progress.log(step, metrics)
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith('estimate: ')]


@pytest.mark.parametrize('log_every', [1, 10**9])
def test_a_run_of_more_than_an_hour_says_so_once(tiny_config, capfd, monkeypatch, log_every):
    config = dataclasses.replace(tiny_config, num_steps=200_000)
    (line,) = lines(capfd, config, 2.0, 50, log_every, monkeypatch)
    after = 1 if log_every == 1 else 6  # The first of 5 steps and more that took over 10 s.
    assert line == (
        f'estimate: about 4.6 days for the {200_000 - after:,} steps left, 2 s each; with '
        f'--config.num_steps={1800 + after} it would be an hour; a smaller data.image_size, '
        'batch_size, langevin.num_steps or network, or a GPU, shortens the steps'
    )


def test_a_shorter_run_does_not(tiny_config, capfd, monkeypatch):
    config = dataclasses.replace(tiny_config, num_steps=1800)
    assert not lines(capfd, config, 2.0, 100, 10, monkeypatch)
    (line,) = lines(capfd, dataclasses.replace(config, num_steps=2000), 2.0, 100, 10, monkeypatch)
    assert 'about 1.1 hours for the 1,994 steps left' in line


def test_settings_that_do_not_act_are_not_named(tiny_config, capfd, monkeypatch):
    config = dataclasses.replace(tiny_config, num_steps=200_000, method='vae')
    (line,) = lines(capfd, config, 2.0, 50, monkeypatch=monkeypatch)
    assert 'smaller data.image_size, batch_size or network,' in line
