"""Splits: their names, and the number of images of a share."""

from vaebm_jax.config import DataConfig
from vaebm_jax.runtime.errors import UserError


def check_split(name: str, split: str, splits: tuple[str, ...]) -> None:
    """Raises a UserError if the data set of this name has no such split."""
    if split not in splits:
        raise UserError(f'split must be one of {", ".join(splits)} of {name}, got {split!r}')


def held_out_counts(total: int, data: DataConfig) -> tuple[int, int]:
    """How many of `total` images are val and test, if these have no files of their own.

    The shares, rounded, but at least one for each split that has a share, and for train.

    Raises:
      UserError: for fewer images than splits.
    """
    shares = {'val_share': data.val_share, 'test_share': data.test_share}
    given = [f'data.{name}={share:g}' for name, share in shares.items() if share]
    free = total - 1 - len(given)
    if free < 0:
        raise UserError(
            f'data.dir must hold at least {1 + len(given)} images with {" and ".join(given)}, '
            f'got {total}'
        )
    counts = []
    for share in shares.values():
        counts.append(min(max(1, round(total * share)), 1 + free) if share else 0)
        free -= max(0, counts[-1] - 1)
    return tuple(counts)
