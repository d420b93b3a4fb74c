"""Data sets prepared by TFDS as array_record, which can be read without TensorFlow."""

import concurrent.futures
import io
import json
import os
import pathlib
import re
import shlex

import numpy as np
from PIL import Image

from vaebm_jax.config import DataConfig
from vaebm_jax.runtime import log
from vaebm_jax.runtime.atomic_files import at_home
from vaebm_jax.runtime.errors import UserError


def load(data: DataConfig, split: str) -> np.ndarray:
    """The images of a split, `[N, H, W, C]` uint8, of the newest version that is array_record.

    Raises:
      UserError: if there is none or it cannot be read, with the command that prepares one.
    """
    root = at_home(data.dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')
    versions = _versions(root / data.name)
    if not versions:
        raise UserError(
            f'{data.name} is not prepared in {root} (data.dir, or TFDS_DATA_DIR)'
            f'{_unfinished(root / data.name)}: {_how_to_prepare(root, data.name)}'
        )

    def refusal(version, reason):
        return UserError(
            f'{data.name} in {root} cannot be read (version {version.name} {reason}); to have it '
            f'as array_record: {_how_to_prepare(root, data.name)}'
        )

    version = next((path for path in versions if 'array_record' in _formats(path)), None)
    if version is None:
        raise refusal(versions[0], _other_format(versions[0]))
    if version != versions[0]:
        reason = f'version {versions[0].name} {_other_format(versions[0])}'
        log.say(f'data: {data.name} in version {version.name}, since {reason}')
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    try:
        builder = tfds.builder_from_directory(version)
        if split in builder.info.splits:
            return _read(builder, split)
        splits = ', '.join(sorted(builder.info.splits))
    except (OSError, ValueError, RuntimeError, ParseError) as error:
        raise refusal(version, 'fails: ' + ' '.join(str(error).split())[:200]) from error
    raise refusal(version, f'has no split {split}, only [{splits}]')


def _read(builder, split):
    from tensorflow_datasets import decode

    source = builder.as_data_source(split, decoders={'image': decode.SkipDecoding()})
    chunks = [range(start, min(start + 1000, len(source))) for start in range(0, len(source), 1000)]

    def images_of(chunk):
        examples = source.__getitems__(chunk)
        images = [np.asarray(Image.open(io.BytesIO(example['image']))) for example in examples]
        return np.stack(images).reshape(len(chunk), *builder.info.features['image'].shape)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        return np.concatenate(list(threads.map(images_of, chunks)))


def _versions(folder):
    """The folders of a set's versions, newest first; unfinished ones have other names."""
    versions = [path for path in folder.glob('*') if re.fullmatch(r'\d+\.\d+\.\d+', path.name)]
    return sorted(versions, key=lambda path: list(map(int, path.name.split('.'))), reverse=True)


def _formats(version):
    """The file formats of a version, by its own metadata; none if it is incomplete."""
    try:
        info = json.loads((version / 'dataset_info.json').read_text())
        return [info.get('fileFormat', 'tfrecord'), *info.get('alternativeFileFormats', ())]
    except (OSError, ValueError, AttributeError):
        return []


def _other_format(version):
    """Why a version that is not array_record cannot be read."""
    formats = ' and '.join(_formats(version)).replace('tfrecord', 'TFRecord')
    return (
        f'is stored as {formats}, which needs TensorFlow to read'
        if formats
        else 'is incomplete: it has no readable dataset_info.json'
    )


def _unfinished(folder):
    names = [path.name for path in folder.glob('*incomplete*')]
    return f', its preparation did not finish ({names[0]} can be deleted)' if names else ''


def _how_to_prepare(root, name):
    """Commands that work as they stand."""
    place = _place(root, name)
    code = (
        f"import tensorflow_datasets as tfds; tfds.data_source('{name}', data_dir={str(place)!r}, "
        "builder_kwargs={'file_format': 'array_record'})"
    )
    code = re.sub(r'([\\"$`])', r'\\\1', code)  # It is put between double quotes.
    flag = shlex.quote(f'--config.data.dir={place}')
    return f'pip install \'vaebm_jax[tfds]\' and then python -c "{code}"' + (
        f' and then add {flag}' if place != root else ''
    )


def _place(root, name):
    """Where to prepare a set: `root` if it has no version, else a folder with none or array_record.

    TFDS does not prepare over an existing version, even in another format or incomplete.
    """
    home = pathlib.Path(os.path.expanduser('~/tensorflow_datasets'))
    bases = (root, home, pathlib.Path('tensorflow_datasets'))
    places = [place for base in bases for place in (base, base / 'array_record')]

    def is_free(place):
        versions = _versions(place / name)
        is_ready = place != root and versions and 'array_record' in _formats(versions[0])
        return is_ready or not versions and _can_be_made(place) and _can_be_made(place / name)

    return next(filter(is_free, places), places[-1])


def _can_be_made(folder):
    """Whether a folder can be written to, or can be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
