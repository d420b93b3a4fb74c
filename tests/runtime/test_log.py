from vaebm_jax.runtime import log


def test_what_was_found_cached_is_not_counted_in_the_time_that_is_left(capsys, monkeypatch):
    """50 of 100 are there already; 10 more in 2 s are 5 a second, and 8 s for the other 40."""
    clock = iter([0.0, 0.0, 2.0, 10.0])
    monkeypatch.setattr(log.time, 'perf_counter', lambda: next(clock))
    with log.counted('features', 'images', 100, seconds=0.0) as advance:
        advance(50, cached=True)
        advance(10)
        advance(50)  # More than there are left.
    assert capsys.readouterr().err == 'features: 60/100 images, 5 a second, 8 s left\n'
