"""What an architecture is: genotypes, spaces, operations, the supernet.

`SpaceConfig` is the registry of search spaces: the union validates a configuration by its `type`, lists the
names in its errors, and the contract tests run over its members. A new space is one file with a frozen dataclass
that implements `SearchSpace` and a `Config` with `build(input_shape)`, and one more member here.
"""

if __name__ != "across.search_spaces":
    raise ImportError("this package is called across.search_spaces: `from across.search_spaces import ...`")

from typing import Annotated, TypeAlias

from pydantic import Field

from across.search_spaces.cell import CellConfig
from across.search_spaces.layerwise import LayerwiseConfig
from across.search_spaces.nas_bench_201 import NasBench201Config
from across.search_spaces.transnas_macro import TransNasMacroConfig
from across.search_spaces.transnas_micro import TransNasMicroConfig

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
