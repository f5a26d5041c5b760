"""Reading images from files and zip archives, with errors that name the file."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from across.workers.base import TaskDataError

Channels: TypeAlias = Literal[1, 3]
"""Grey or RGB."""

ZipMember: TypeAlias = tuple[Path, str]
"""An archive and the name of a file in it."""

# What Pillow raises on bytes that are no image, or only the beginning of one.
_IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def require_files(paths: Iterable[Path], *, remedy: str) -> None:
    """Raise `TaskDataError` with all of the `paths` that are no files; `remedy` says how to get them."""
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise TaskDataError(f"missing data: {', '.join(missing)}: {remedy}")


def list_zip(path: Path, *, remedy: str) -> list[str]:
    """Names of the files in the archive, sorted."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sorted(info.filename for info in archive.infolist() if not info.is_dir())
    except (zipfile.BadZipFile, OSError) as error:
        raise TaskDataError(f"{path}: not a complete zip archive ({error}): {remedy}") from error


def decode_zip_members(
    members: Iterable[ZipMember], *, image_size: int, channels: Channels, remedy: str
) -> Iterator[NDArray[np.uint8]]:
    """The images of `members` in order, each (channels, image_size, image_size)."""
    opened: dict[Path, zipfile.ZipFile] = {}
    try:
        for path, name in members:
            if path not in opened:
                opened[path] = zipfile.ZipFile(path)
            try:
                content = opened[path].read(name)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
                raise TaskDataError(f"{path}: {name} is damaged ({error}): {remedy}") from error
            yield decode_image(content, f"{path}: {name}", image_size=image_size, channels=channels)
    finally:
        for archive in opened.values():
            archive.close()


def decode_image(content: bytes, where: str, *, image_size: int, channels: Channels) -> NDArray[np.uint8]:
    """The encoded image `content`, its central square resized: (channels, image_size, image_size).

    Raises `TaskDataError` that begins with `where` if it is no image.
    """
    try:
        with Image.open(io.BytesIO(content)) as encoded:
            image = _eight_bits(ImageOps.exif_transpose(encoded), where)
            image = _on_white(image).convert("L" if channels == 1 else "RGB")
    except TaskDataError:
        raise
    except _IMAGE_ERRORS as error:
        raise TaskDataError(f"{where}: not a readable image ({error})") from error
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8).reshape(image_size, image_size, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    """Pillow would cut deeper pixels off at 255 rather than scale them."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint16) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise TaskDataError(
            f"{where}: has pixels of 32 bits, whose range is unknown: save it with 8 or 16 bits"
        )
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """What is transparent shows white paper; dropping the transparency would make it black."""
    if not image.has_transparency_data:
        return image
    paper = Image.new("RGBA", image.size, "white")
    paper.alpha_composite(image.convert("RGBA"))
    return paper
