"""What an architecture is: genotypes, spaces, operations, the supernet.

`SpaceConfig` is the registry of search spaces: the union validates a configuration by its `type`, lists the
names in its errors, and the contract tests run over its members. A new space is one file with a frozen dataclass
that implements `SearchSpace` and a `Config` with `build(input_shape)`, and one more member here.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from search_spaces.cell import CellConfig
from search_spaces.layerwise import LayerwiseConfig
from search_spaces.nas_bench_201 import NasBench201Config
from search_spaces.transnas_macro import TransNasMacroConfig
from search_spaces.transnas_micro import TransNasMicroConfig

SpaceConfig: TypeAlias = Annotated[
    LayerwiseConfig | CellConfig | NasBench201Config | TransNasMicroConfig | TransNasMacroConfig,
    Field(discriminator="type"),
]

__all__ = [
    "CellConfig",
    "LayerwiseConfig",
    "NasBench201Config",
    "SpaceConfig",
    "TransNasMacroConfig",
    "TransNasMicroConfig",
]
