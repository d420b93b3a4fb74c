"""Early warnings, on rows as they were in runs that failed and in runs that did not."""

import pytest

from vaebm_jax.methods.guards import warnings

HEALTHY = {
    'energy_data': 4.1e5,
    'energy_samples': 3.9e5,
    'rate': 22.0,
    'spread': 0.95,
    'spread_ancestral': 0.9,
    'langevin/overshoot': 0.004,
}


@pytest.mark.parametrize(
    'step, wrong, sign',
    [
        (500, {}, ''),
        (500, {'rate': 0.05}, 'all samples look the same (rate 0.05 nats, spread 0.9 '),
        (500, {'spread': 0.02}, 'all samples look the same (rate 22 nats, spread 0.02 '),
        (500, {'spread_ancestral': 0.02}, 'all samples look the same (rate 22 nats, spread 0.02 '),
        (150, {'rate': 0.0, 'spread': 0.0}, ''),
        (500, {'energy_data': 5.5e5}, ''),
        (500, {'energy_data': -4.1e5}, 'differ by 8e+05 nats, 40 times as much'),
        (500, {'energy_samples': 1.2e6}, 'differ by 7.9e+05 nats, 40 times as much'),
        (500, {'langevin/overshoot': 0.17, 'spread': 1.2}, ''),
        (500, {'langevin/overshoot': 0.28}, '28% of refined pixels are far outside'),
        (40, {'spread': 1.98}, "and their spread is 2 of the data's"),
    ],
)
def test_a_sign_of_failure_is_one_line(step, wrong, sign):
    lines = warnings(step, HEALTHY | wrong, [HEALTHY] * 20)
    assert len(lines) == bool(sign) and all(line.startswith('warning: ') for line in lines)
    assert sign in ''.join(lines)


def test_a_gap_is_compared_with_the_last_rows_that_have_one():
    swing, warmup = HEALTHY | {'energy_data': 2.39e6}, {'rate': 22.0, 'distortion': 1.0}
    assert warnings(500, swing, [HEALTHY] * 10) and not warnings(500, swing, [HEALTHY] * 9)
    assert not warnings(500, swing, [warmup] * 20)
    wide = [HEALTHY | {'energy_data': 5.9e5}] * 20
    assert not warnings(500, swing, [*[HEALTHY] * 80, *wide])
    assert warnings(500, swing, [*wide, *[HEALTHY] * 20])


def test_a_method_without_an_encoder_has_no_rate():
    row = {name: value for name, value in HEALTHY.items() if name != 'rate'}
    assert not warnings(500, row)
    (line,) = warnings(500, row | {'spread': 0.02})
    assert "all samples look the same (spread 0.02 of the data's)" in line
    assert 'kl_weight' not in line and 'nats' not in line


def test_a_warm_start_has_no_samples_to_look_at():
    assert not warnings(500, {'rate': 0.0, 'distortion': 1.0}, [])
