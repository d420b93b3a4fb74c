"""Log lines: the progress of a run, and the checkpoint that a mode uses."""

import contextlib
import pathlib
import time
from collections.abc import Iterator

import tqdm

from vaebm_jax.config import Config
from vaebm_jax.methods import METHODS, is_unused, progress_words, untrained_energy
from vaebm_jax.methods.guards import EARLIER
from vaebm_jax.runtime import log
from vaebm_jax.training import pretrained

_FIRST_STEPS, _FIRST_SECONDS = 5, 10.0  # By which the time of the rest is estimated.
_SHORTENING = ('data.image_size', 'batch_size', 'langevin.num_steps')


class Progress:
    """The progress of a run: a bar on a terminal, else lines."""

    def __init__(self, config: Config, start: int):
        """For a run at step `start`."""
        self.config = config
        self.bar = None
        self.began = time.perf_counter()
        self.reached = start
        self.steps, self.seconds = 0, 0.0  # Of training alone, since the last log.
        self.earlier = []  # The metrics of the last logged steps.
        self.is_estimated = False

    @contextlib.contextmanager
    def compiling(self, step: int) -> Iterator[None]:
        """Around a call to `step` that compiles: its time and steps are not counted."""
        log.say('compiling the training step ...')
        began = time.perf_counter()
        with self.pause():
            yield
        log.say(f'compiled in {time.perf_counter() - began:.1f} s')
        self.reached, self.is_estimated = step, False
        if self.bar is None and log.has_terminal():
            self.bar = tqdm.tqdm(
                total=self.config.num_steps, initial=step, unit='step', dynamic_ncols=True
            )

    def advance(self, step: int) -> None:
        """Moves the bar, after every call."""
        self.steps, self.reached = self.steps + step - self.reached, step
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
        if not self.is_estimated and self.steps >= _FIRST_STEPS:
            spent = self.seconds + time.perf_counter() - self.began
            if spent > _FIRST_SECONDS:
                self._estimate(step, self.steps / spent)

    def _estimate(self, step, steps_per_second):
        """Logs, once for each compiled step, how long the rest takes if that is long."""
        self.is_estimated = True
        left = self.config.num_steps - step
        hours = left / steps_per_second / 3600
        if hours <= 1:
            return
        names = [name for name in _SHORTENING if not is_unused(name, self.config)]
        how_long = f'{hours / 24:.2g} days' if hours > 48 else f'{hours:.2g} hours'
        log.say(
            f'estimate: about {how_long} for the {left:,} steps left, {1 / steps_per_second:.2g} s '
            f'each; with --config.num_steps={step + int(3600 * steps_per_second)} it would be an '
            f'hour; a smaller {", ".join(names)} or network, or a GPU, shortens the steps'
        )

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Around compilations, pictures and checkpoints: not counted as training time."""
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
        warnings = METHODS[self.config.method].warnings(step, metrics, self.earlier)
        self.earlier = [*self.earlier, metrics][-EARLIER:]
        if self.bar is not None:
            speed = f'{images_per_second:.4g} images/s, ' if steps_per_second else ''
            self.bar.set_postfix_str(speed + shown)
        else:
            if steps_per_second:  # A call that compiled is not timed.
                left = (self.config.num_steps - step) / steps_per_second
                shown += f' | {steps_per_second:.3g} steps/s, {images_per_second:.4g} images/s'
                shown += f', {left:.0f} s left'
            log.say(f'step {step}/{self.config.num_steps}: {shown}')
        for warning in warnings:
            log.say(warning)
        if steps_per_second and not self.is_estimated:
            self._estimate(step, steps_per_second)
        return {'images_per_second': images_per_second} if steps_per_second else {}

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def say_checkpoint(mode: str, step: int, workdir: pathlib.Path, config: Config) -> None:
    """Logs which checkpoint a mode uses, and a warning if its energy is untrained."""
    name = pretrained.name_of(workdir)
    log.say(f'{mode}: the pretrained {name}' if name else f'{mode}: step {step} of {workdir}')
    if warning := untrained_energy(step, config):
        log.say(warning)
