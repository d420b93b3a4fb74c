"""The image file of --output: its name, and its format by its suffix."""

import io
import os
import pathlib

from PIL import Image

from vaebm_jax.runtime.atomic_files import at_home
from vaebm_jax.runtime.errors import UserError

QUALITY = 95  # Of lossy formats, such as JPEG.


def output_paths(output_file: str | os.PathLike, num_recoveries: int) -> list[pathlib.Path]:
    """A file for each recovery; if there are several, `-0` and so on come before the suffix.

    Raises:
      UserError: if one of them cannot be written, or its suffix is not that of an image format.
    """
    output = at_home(output_file)
    numbers = [f'-{index}' for index in range(num_recoveries)] if num_recoveries > 1 else ['']
    paths = [output.with_name(f'{output.stem}{number}{output.suffix}') for number in numbers]
    image_format(output)
    try:
        folder = next(parent for parent in output.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise UserError(f'--output must be in a folder that can be written to: {output_file}')
        if taken := [path for path in paths if path.is_dir()]:
            raise UserError(f'--output must name a file, but {taken[0]} is a folder')
    except OSError as error:
        raise UserError(f'--output must name a file that can be written: {error}') from error
    return paths


def image_format(path: pathlib.Path) -> str:
    """The image format of a file's suffix, if it can be written.

    Raises:
      UserError: if it cannot; it names some that can.
    """
    known = Image.registered_extensions()
    for image in (Image.new('L', (8, 8)), Image.new('RGB', (8, 8))):
        try:
            image.save(io.BytesIO(), known[path.suffix.lower()], quality=QUALITY)
        except (KeyError, OSError, ValueError) as error:
            raise UserError(
                '--output must end with the suffix of an image that can be written, such as .png, '
                f'.jpg, .tif or .webp, got {str(path)!r}'
            ) from error
    return known[path.suffix.lower()]
