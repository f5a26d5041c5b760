"""Where tasks come from. A new source is one file with its config, and one line here."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from across.workers.tasks.glyphs import GlyphsConfig
from across.workers.tasks.image_folder import ImageFolderConfig
from across.workers.tasks.mini_imagenet import MiniImageNetConfig
from across.workers.tasks.omniglot import OmniglotConfig

TaskSourceConfig: TypeAlias = Annotated[
    GlyphsConfig
    | OmniglotConfig
    | MiniImageNetConfig
    | ImageFolderConfig,
    Field(discriminator="type"),
]  # fmt: skip
"""Any source, told apart by `type`."""
