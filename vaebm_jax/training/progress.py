"""How far a run is, and which checkpoint a mode uses, in lines for a person."""

import contextlib
import pathlib
import time
from collections.abc import Iterator

import tqdm

from vaebm_jax.config import Config
from vaebm_jax.methods import METHODS, progress_words, untrained_energy
from vaebm_jax.runtime import log


class Progress:
    """How far the run is: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, config: Config, start: int):
        """Of a run that is at step `start`."""
        self.config = config
        self.bar = None
        self.began = time.perf_counter()
        self.reached = start
        self.steps, self.seconds = 0, 0.0  # Of training alone, since the last log.

    @contextlib.contextmanager
    def compiling(self, step: int) -> Iterator[None]:
        """A call to `step` that compiles: neither its time nor its steps count."""
        log.say('compiling the training step ...')
        began = time.perf_counter()
        with self.pause():
            yield
        log.say(f'compiled in {time.perf_counter() - began:.1f} s')
        self.reached = step
        if self.bar is None and log.has_terminal():
            self.bar = tqdm.tqdm(
                total=self.config.num_steps, initial=step, unit='step', dynamic_ncols=True
            )

    def advance(self, step: int) -> None:
        """Moves the bar after every call; between logged steps nothing else is shown."""
        self.steps, self.reached = self.steps + step - self.reached, step
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Compilations, pictures and checkpoints do not count as training time."""
        self.seconds += time.perf_counter() - self.began
        yield
        self.began = time.perf_counter()

    def log(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Shows a logged step; returns `images_per_second` since the last, if a step was timed."""
        self.seconds += time.perf_counter() - self.began
        self.began = time.perf_counter()
        steps_per_second = self.steps / max(self.seconds, 1e-9)
        self.steps, self.seconds = 0, 0.0
        images_per_second = steps_per_second * self.config.batch_size
        shown = progress_words(metrics, self.config)
        warning = METHODS[self.config.method].warning(step, metrics)
        if self.bar is not None:
            speed = f'{images_per_second:.4g} images/s, ' if steps_per_second else ''
            self.bar.set_postfix_str(speed + shown)
        else:
            if steps_per_second:  # No step was timed where a call that compiled is logged.
                left = (self.config.num_steps - step) / steps_per_second
                shown += f' | {steps_per_second:.3g} steps/s, {images_per_second:.4g} images/s'
                shown += f', {left:.0f} s left'
            log.say(f'step {step}/{self.config.num_steps}: {shown}')
        if warning:
            log.say(warning)
        return {'images_per_second': images_per_second} if steps_per_second else {}

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def say_checkpoint(mode: str, step: int, workdir: pathlib.Path, config: Config) -> None:
    """Which checkpoint a mode uses, and a warning where its energy has learned nothing."""
    log.say(f'{mode}: step {step} of {workdir}')
    if warning := untrained_energy(step, config):
        log.say(warning)
