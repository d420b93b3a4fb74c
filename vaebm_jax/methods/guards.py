"""Signs in a run's metrics that its training is about to fail, while it can still be helped."""

import statistics
from collections.abc import Sequence

_EARLIER = 20  # Logged rows that a gap is compared with; fewer than half of them: not yet.
_SWING = 30.0
_OVERSHOOT = 0.05


def warnings(
    step: int, metrics: dict[str, float], earlier: Sequence[dict[str, float]] = ()
) -> list[str]:
    """What is wrong with a row of metrics, one line each; [] if nothing is.

    Not in the first 200 steps, where all runs look so.

    Args:
      step: of the row.
      metrics: as returned by the training step; a warm start, or an earlier version, has fewer.
      earlier: the metrics of rows before it, the last one last.
    """
    if step < 200 or 'spread' not in metrics:
        return []
    found = (_collapse(metrics), _swing(metrics, earlier), _overshoot(metrics))
    return [f'warning: {sign}' for sign in found if sign]


def _collapse(metrics):
    """A flat energy, or one far too fast for the VAE: the VAE, which sees only the samples, stays.

    Healthy runs had a rate of 8 nats or more and a spread above 0.7.
    """
    spread = min(metrics['spread'], metrics.get('spread_ancestral', 1.0))
    if metrics['rate'] >= 0.1 and spread >= 0.1:
        return ''
    return (
        f'all samples look the same (rate {metrics["rate"]:.2g} nats, spread {spread:.2g} of the '
        "data's). Usual causes: a flat energy (raise energy.learning_rate) or one too fast for the "
        'VAE (lower it, or vae.kl_weight)'
    )


def _swing(metrics, earlier):
    gaps = [_gap(row) for row in earlier[-_EARLIER:] if 'energy_data' in row]
    if len(gaps) < _EARLIER // 2 or not _gap(metrics) > _SWING * statistics.median(gaps):
        return ''
    return (
        f'the energies of data and samples differ by {_gap(metrics):.2g} nats, '
        f'{_gap(metrics) / statistics.median(gaps):.0f} times as much as in the steps before. '
        'The energy is too fast, and soon diverges: lower energy.learning_rate'
    )


def _gap(metrics):
    return abs(metrics['energy_data'] - metrics['energy_samples'])


def _overshoot(metrics):
    share = metrics.get('langevin/overshoot', 0.0)
    if share <= _OVERSHOOT:
        return ''
    return (
        f'{share:.0%} of refined pixels are far outside the range of the '
        'data: steps of the chain are too long (lower langevin.step_size, or set '
        'langevin.max_drift)'
    )
