"""Configs: what they mean, and that everything wrong with one is said at once, by key, value and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from across.orchestrator.config import ConfigError
from across.orchestrator.config.checks import validate_config
from across.orchestrator.config.loading import (
    changed_settings,
    check_resume_overrides,
    differences,
    load_config,
    parse_config,
    with_overrides,
)
from across.orchestrator.config.run_config import RunConfig

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = sorted(set((REPOSITORY / "configs").glob("*.yaml")) - {REPOSITORY / "configs/cluster_local.yaml"})

MINIMAL = """
name: small
space: {type: layerwise}
tasks: {type: glyphs}
strategy: {type: genetic}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, so that messages name `small.yaml` alone."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str, *overrides: str, path: Path = Path("small.yaml")) -> RunConfig:
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def config_of(**sections: object) -> RunConfig:
    return parse_config(yaml.safe_load(MINIMAL) | sections, origin="test")


def test_a_minimal_config_takes_the_defaults(folder: Path) -> None:
    config = load(MINIMAL)

    assert config == RunConfig.model_validate(yaml.safe_load(MINIMAL))
    assert [source.type for source in config.tasks] == ["glyphs"]


def test_settings_are_read_as_yaml_and_make_sections(folder: Path) -> None:
    config = load(
        MINIMAL,
        "tasks.num_ways=7",
        "space.widths=[4, 8]",
        "meta_learning.optimizer.outer_lr=1e-2",
        "test={num_tasks: 9}",
        "search.max_seconds=null",
        "strategy.num_elites=3",
        "strategy.num_elites=2",
    )

    assert config.tasks[0].num_ways == 7
    assert config.space.model_dump()["widths"] == (4, 8)
    assert config.meta_learning.optimizer.outer_lr == 0.01
    assert config.test.num_tasks == 9
    assert config.search.max_seconds is None
    assert config.strategy.model_dump()["num_elites"] == 2


def test_a_setting_reaches_into_a_list(folder: Path) -> None:
    text = MINIMAL.replace("{type: glyphs}", "[{type: glyphs}, {type: glyphs, class_seed: 1}]")

    assert [source.num_ways for source in load(text, "tasks.1.num_ways=3").tasks] == [5, 3]
    for setting in ("tasks.num_ways=3", "tasks.2.num_ways=3"):
        assert problems(text, setting) == [
            f"--set {setting}: tasks is a list: name one of its entries, tasks.0 to 1"
        ]


def test_all_problems_are_said_at_once(folder: Path) -> None:
    text = """
name: small
seed: -1
space: {type: layerwise, widths: [0, wide], operations: [conv_3x]}
tasks: {type: glyphs, num_ways: 1, numshots: 2}
strategy: {type: genetic, popluation_size: 8, num_elites: many, tournament_size: 1.5}
inner_loop: {batch_norm: suport, learn_inner_lrs: perhaps}
meta_learning: 3
evaluation:
banana: 1
"""
    assert problems(text) == [
        "small.yaml: seed: must be at least 0 (got -1)",
        "small.yaml: space.operations.0: must be one of conv_3x3, conv_5x5, sep_conv_3x3, dil_conv_3x3,"
        " sep_conv_5x5, max_pool_3x3, avg_pool_3x3, skip (got conv_3x); did you mean conv_3x3?",
        "small.yaml: space.widths.0: must be at least 1 (got 0)",
        "small.yaml: space.widths.1: must be an integer (got 'wide')",
        "small.yaml: tasks.num_ways: must be at least 2 (got 1)",
        "small.yaml: tasks.numshots: unknown key; did you mean num_shots?",
        "small.yaml: inner_loop.learn_inner_lrs: must be true or false (got 'perhaps')",
        "small.yaml: inner_loop.batch_norm: must be one of support, transductive (got suport);"
        " did you mean support?",
        "small.yaml: meta_learning: must be a section, keys with values (got 3)",
        "small.yaml: strategy.num_elites: must be an integer (got 'many')",
        "small.yaml: strategy.tournament_size: must be an integer (got 1.5)",
        "small.yaml: strategy.popluation_size: unknown key; did you mean population_size?",
        "small.yaml: evaluation: must be a section, keys with values (got nothing)",
        "small.yaml: banana: unknown key; valid are name, seed, space, constraints, table, tasks, inner_loop,"
        " meta_learning, strategy, schedule, evaluation, search, test, compute, workers, tracking, initial_weights,"
        " initial_population",
    ]


def test_missing_keys_and_wrong_types_name_the_choices(folder: Path) -> None:
    text = "space: {type: layerwse}\ntasks: [{type: omniglot}]\nstrategy: {num_elites: 3}\n"

    assert problems(text) == [
        "small.yaml: name: missing key",
        "small.yaml: space.type: must be one of layerwise, nas_bench_201, transnas_micro, transnas_macro, cell"
        " (got layerwse); did you mean layerwise?",
        "small.yaml: tasks.0.root: missing key",
        "small.yaml: strategy.type: missing key; choose one of genetic, regularized_evolution, local_search,"
        " reinforce, successive_halving, predictor_guided, nsga2, nsga3, random, fixed",
    ]
    assert [line.split(": ", 1)[1] for line in problems("")] == [
        "name: missing key",
        "space: missing key",
        "tasks: at least one task source is needed, or the section table",
        "strategy: missing key",
    ]


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("strategy: {type: genetic, num_elites: 16}", "strategy: num_elites must be below population_size"),
        ("inner_loop: {inner_lr: .inf}", "inner_loop.inner_lr: must be a finite number (got inf)"),
        ("inner_loop: {inner_lr: .nan}", "inner_loop.inner_lr: must be above 0 (got nan)"),
        ("name: -small", "name: must match the pattern"),
        ("tasks: []", "tasks: at least one task source is needed, or the section table"),
        ("tracking: {experiment: ''}", "tracking.experiment: must have at least 1 character (got '')"),
        ("initial_weights: 3", "initial_weights: must be a path (got 3)"),
        (
            "inner_loop: {algorithm: reptile, learn_inner_lrs: true}",
            "inner_loop.learn_inner_lrs: reptile has",
        ),
        ("3: 4", "keys must be texts (got 3)"),
    ],
)
def test_one_wrong_value(folder: Path, section: str, problem: str) -> None:
    key = section.partition(":")[0]
    others = "".join(line + "\n" for line in MINIMAL.split("\n") if not line.startswith(f"{key}:"))

    (found,) = problems(others + section)

    assert found.startswith(f"small.yaml: {problem}")


def test_a_wrong_setting_is_not_blamed_on_the_file(folder: Path) -> None:
    assert problems(MINIMAL, "tasks.num_ways=1", "sed=2", "strategy={type: genetik}") == [
        "--set: tasks.num_ways: must be at least 2 (got 1)",
        "--set: strategy.type: must be one of genetic, reinforce, regularized_evolution, predictor_guided, nsga2,"
        " nsga3, fixed, random, local_search, successive_halving (got genetik); did you mean genetic?",
        "--set: sed: unknown key; did you mean seed?",
    ]


def test_settings_that_cannot_be_read_are_all_named(folder: Path) -> None:
    assert problems(MINIMAL, "seed", "a..b=3", "=4", "seed=[", "name.first=x") == [
        "--set seed: must have the form key.sub=value",
        "--set a..b=3: must have the form key.sub=value",
        "--set =4: must have the form key.sub=value",
        "--set seed=[: the value is no YAML; put quotes around it",
        "--set name.first=x: name is no section (it is 'small')",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "name: small\n\tseed: 3\n",
            "line 2, column 1: while scanning for the next token found character '\\t'",
        ),
        ("name: [small\nseed: 3\n", "line 2, column 5: while parsing a flow sequence"),
        ("seed: 1\nname: small\nseed: 2\n", "line 3: the key seed is repeated"),
        ("- name\n", "must hold keys with values (got a list of 1)"),
        ("when: 2020-13-45\n", "is no YAML document (month must be in 1..12)"),
    ],
)
def test_a_file_that_is_no_config(folder: Path, text: str, problem: str) -> None:
    (found,) = problems(text)

    assert found.startswith(f"small.yaml: {problem}")


def test_a_missing_file_suggests_the_nearest(folder: Path) -> None:
    (folder / "configs").mkdir()
    (folder / "configs/quickstart.yaml").write_text(MINIMAL)

    for name in ("quickstart", "configs/quikstart.yaml"):
        with pytest.raises(ConfigError, match=r"did you mean configs/quickstart\.yaml\?"):
            load_config(Path(name))
    with pytest.raises(
        ConfigError, match=r"other\.yaml: there is no such file; there are configs/quickstart\.yaml"
    ):
        load_config(Path("configs/other.yaml"))
    with pytest.raises(ConfigError, match="configs: cannot be read"):
        load_config(Path("configs"))
    (folder / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(Path("latin.yaml"))


def test_paths_are_taken_from_the_working_directory(folder: Path) -> None:
    (folder / "configs").mkdir()
    text = MINIMAL.replace("{type: glyphs}", "{type: omniglot, root: data/omniglot}")

    config = load(text, "initial_weights=runs/before", path=Path("configs/small.yaml"))

    assert config.tasks[0].model_dump()["root"] == folder / "data/omniglot"
    assert config.initial_weights == folder / "runs/before"


def test_a_config_survives_its_own_json() -> None:
    for path in CONFIGS:
        config = load_config(path)
        assert parse_config(config.model_dump(mode="json"), origin="copy") == config


def test_differences_are_dotted_keys() -> None:
    old = config_of()
    new = config_of(seed=3, tasks={"type": "glyphs", "num_ways": 7}, strategy={"type": "random"})

    assert differences(old, old) == []
    assert differences(old, new) == [
        "seed",
        "tasks.0.num_ways",
        "strategy.type",
        "strategy.num_elites",
        "strategy.tournament_size",
        "strategy.crossover_probability",
        "strategy.mutation_probability",
    ]
    assert changed_settings(old, config_of(space={"type": "layerwise", "widths": [4]})) == {
        "space.widths": [4]
    }


def test_what_may_change_on_resume() -> None:
    old = config_of()
    changes = [
        "search.num_generations=99",
        "test.num_tasks=50",
        "workers.num_workers=3",
        "tracking.enabled=false",
        "evaluation.tasks_per_chunk=2",
        "meta_learning.tasks_per_shard=2",
        "meta_learning.checkpoint_seconds=1",
    ]
    new = with_overrides(old, changes, origin="runs/small")

    assert check_resume_overrides(old, new) is new
    assert sorted(changed_settings(old, new)) == sorted(change.partition("=")[0] for change in changes)


def test_what_may_not_change_on_resume_is_named_with_what_may() -> None:
    old = config_of()
    new = with_overrides(
        old, ["seed=3", "search.num_generations=9", "evaluation.num_tasks=4"], origin="runs/small"
    )

    with pytest.raises(ConfigError) as caught:
        check_resume_overrides(old, new)

    *frozen, advice = caught.value.problems
    assert frozen == [
        "seed: cannot change in a search that has started (0 there, 3 here)",
        "evaluation.num_tasks: cannot change in a search that has started (20 there, 4 here)",
    ]
    assert "evaluation.tasks_per_chunk" in advice


def test_with_overrides_checks_the_values() -> None:
    with pytest.raises(ConfigError, match=r"^--set: workers\.num_workers: must be at least 0 \(got -1\)$"):
        with_overrides(config_of(), ["workers.num_workers=-1"], origin="runs/small")


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"tasks": [{"type": "omniglot", "root": "a"}, {"type": "image_folder", "root": "b"}]},
            "x.yaml: tasks.0: missing data: .*\nx.yaml: tasks.1: missing folders",
        ),
        (
            {"tasks": [{"type": "glyphs"}, {"type": "glyphs", "image_size": 32}]},
            "x.yaml: tasks: all sources must give images of one shape",
        ),
        (
            {"space": {"type": "layerwise", "num_layers": 9, "reductions": [0, 1, 2, 3, 4]}},
            "x.yaml: space: .*halved",
        ),
        (
            {"constraints": {"max_params": 4}},
            "x.yaml: constraints: no architecture was found with max_params 4",
        ),
        (
            {"strategy": {"type": "fixed", "genotype": "skip|skip"}},
            "x.yaml: strategy.genotype: 'skip|skip' is no architecture of the space layerwise: it has 2 layers",
        ),
        ({"initial_weights": "nowhere"}, "x.yaml: initial_weights: .*nowhere is no run of across"),
    ],
)
def test_checks_beyond_the_keys(sections: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(config_of(**sections), origin="x.yaml")

    assert re.match(problem.replace("|", r"\|"), str(caught.value))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_in_the_repository_is_valid(path: Path, shared_data: Path) -> None:
    config = load_config(path)

    assert config.name == path.stem
    if config.table is not None:
        tables = {"nas_bench_201": "nas_bench_201/nas_bench_201"} | {
            f"transnas_{size}": f"transnas_bench_101/{size}" for size in ("micro", "macro")
        }
        file = shared_data / f"{tables[config.space.type]}.npz"
        validate_config(load_config(path, [f"table.file={file}"]), origin=str(path))
        return
    glyphs = {
        "type": "glyphs",
        "image_size": config.tasks[0].image_size,
        "num_ways": config.tasks[0].num_ways,
    }
    document = config.model_dump(mode="json") | {"tasks": [glyphs]}
    validate_config(parse_config(document, origin=str(path)), origin=str(path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["omniglot_two_cores", "omniglot_5way1shot", "fixed_4conv_omniglot"])
def test_the_omniglot_configs_fit_their_data(name: str, shared_data: Path) -> None:
    path = REPOSITORY / f"configs/{name}.yaml"

    parts = validate_config(load_config(path, [f"tasks.root={shared_data / 'omniglot'}"]), origin=str(path))

    assert parts.problem.space.input_shape == (1, 28, 28)
