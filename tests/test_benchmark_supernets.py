"""The spaces of published benchmarks as supernets for few-shot tasks on small images."""

from __future__ import annotations

import numpy as np
import pytest

from across.search_spaces import NasBench201Config, SpaceConfig, TransNasMacroConfig, TransNasMicroConfig
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import EvaluationResult, EvaluationUnit, MetaResult, MetaUnit
from across.workers.model import Model
from across.workers.supernet_worker import ComputeSettings, SupernetWorker
from across.workers.tasks.glyphs import GlyphsConfig

NAS_BENCH_201 = NasBench201Config(channels=4, cells_per_stage=1)
MICRO, MACRO = TransNasMicroConfig(channels=4), TransNasMacroConfig(channels=4)
LINES = ["|nor_conv_3x3~0|", "|skip_connect~0|avg_pool_3x3~1|", "|none~0|nor_conv_1x1~1|skip_connect~2|"]
NOTHING = ["|none~0|", "|none~0|none~1|", "|none~0|none~1|none~2|"]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (NAS_BENCH_201, "+".join(LINES)),
        (NAS_BENCH_201, "+".join(NOTHING)),
        (MICRO, "4-41414-3_12_123"),
        (MICRO, "4-41414-0_00_000"),
        # Narrow and shallow, and as wide, deep and small as they come.
        (MACRO, "4-4111-basic"),
        (MACRO, "4-443141-basic"),
    ],
)
@pytest.mark.parametrize("algorithm", ["maml", "anil", "reptile"])
def test_subnets_are_adapted_and_meta_learned(config: SpaceConfig, text: str, algorithm: str) -> None:
    source = GlyphsConfig(num_ways=3, num_shots=2, num_queries=3, image_size=28).build()
    inner_loop = InnerLoopConfig.model_validate({"algorithm": algorithm, "num_steps": 2})
    model = Model(config.build(source.spec.input_shape), (source.spec,), inner_loop)
    worker, vector = SupernetWorker(model, [source], ComputeSettings("cpu")), model.initial_vector(0)
    genotype = model.space.from_string(text)
    assert model.space.to_string(genotype) == text

    evaluated = worker.run(EvaluationUnit("e", genotype, 0, "validation", (0, 1), 0), vector)
    assert isinstance(evaluated, EvaluationResult)
    assert np.isfinite(evaluated.scores).all()

    learned = worker.run(MetaUnit("m", genotype, 0, (2, 3), 0, second_order=True), vector)
    assert isinstance(learned, MetaResult)
    assert learned.gradient is not None
    assert np.isfinite(learned.gradient).all()
    assert learned.gradient.size == sum(
        int(np.prod(shape)) for shape in model.active(model.path(genotype, 0)).values()
    )
