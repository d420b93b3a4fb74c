"""Signs in a run's metrics that its training is about to fail, while it can still be helped."""

import statistics
from collections.abc import Sequence

# Thresholds lie between what healthy runs of digits, MNIST, Fashion-MNIST and CIFAR-10 had and what
# runs had that diverged: gaps of at most 9 times their median, at most 17 % of pixels far outside,
# a spread of at most 1.2; against 28 % and 2.0 five steps before the end.
EARLIER = 20  # Logged rows that a gap is compared with; fewer than half of them: not yet.
_MAX_SWING = 30.0
_MAX_OVERSHOOT = 0.25
_MAX_SPREAD = 1.5


def warnings(
    step: int, metrics: dict[str, float], earlier: Sequence[dict[str, float]] = ()
) -> list[str]:
    """What is wrong with a row of metrics, one line each; [] if nothing is.

    Args:
      step: of the row.
      metrics: as returned by the training step; a warm start, or an earlier version, has fewer.
      earlier: the metrics of rows before it, the last one last.
    """
    if 'spread' not in metrics:
        return []
    found = (_collapse(step, metrics), _swing(metrics, earlier), _overshoot(metrics))
    return [f'warning: {sign}' for sign in found if sign]


def gan_warnings(
    step: int, metrics: dict[str, float], earlier: Sequence[dict[str, float]] = ()
) -> list[str]:
    """`warnings` of a generator that learns from a critic; earlier rows are not used."""
    del earlier
    if step < 200 or metrics['spread'] >= 0.1:
        return []
    return [
        f"warning: all samples look the same (spread {metrics['spread']:.2g} of the data's): the "
        'generator has collapsed. Usual causes: a critic too fast for it (lower '
        'energy.learning_rate), or a generator too fast for the critic (lower vae.learning_rate)'
    ]


def _collapse(step, metrics):
    spread = min(metrics['spread'], metrics.get('spread_ancestral', 1.0))
    rate = metrics.get('rate')  # Of an encoder, if there is one.
    # In the first 200 steps all runs look so.
    if step < 200 or ((rate is None or rate >= 0.1) and spread >= 0.1):
        return ''
    rate, weight = ('', '') if rate is None else (f'rate {rate:.2g} nats, ', ', or vae.kl_weight')
    return (
        f"all samples look the same ({rate}spread {spread:.2g} of the data's). Usual causes: a "
        'flat energy (raise energy.learning_rate) or one too fast for the decoder '
        f'(lower it{weight})'
    )


def _swing(metrics, earlier):
    gaps = [_gap(row) for row in earlier[-EARLIER:] if 'energy_data' in row]
    if len(gaps) < EARLIER // 2:
        return ''
    usual = max(statistics.median(gaps), 1e-30)
    if _gap(metrics) <= _MAX_SWING * usual:
        return ''
    return (
        f'the energies of data and samples differ by {_gap(metrics):.2g} nats, '
        f'{_gap(metrics) / usual:.0f} times as much as usual. The energy is too fast and may soon '
        'diverge: lower energy.learning_rate'
    )


def _gap(metrics):
    return abs(metrics['energy_data'] - metrics['energy_samples'])


def _overshoot(metrics):
    share, spread = metrics.get('langevin/overshoot', 0.0), metrics['spread']
    if share <= _MAX_OVERSHOOT and spread <= _MAX_SPREAD:
        return ''
    return (
        f'{share:.0%} of refined pixels are far outside the range of the data, and their spread is '
        f"{spread:.2g} of the data's. Steps of the chain are too long and may soon diverge: lower "
        'langevin.step_size or energy.learning_rate, or set langevin.max_drift'
    )
