"""The recipe: defaults, every fault at once, overrides, and the resolved recipe that replays a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from edgetune.cli.recipe_text import commented_recipe
from edgetune.errors import RecipeError, UsageError
from edgetune.recipe import Recipe

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
PATHS = TEXTS.map(lambda text: f"/data/{text.strip('/') or 'x'}".replace("\0", ""))


def recipes() -> st.SearchStrategy[Recipe]:
    """Valid recipes with a key of every kind set: text, whole number, fraction, union, optional, nested."""
    fraction = st.floats(0.01, 0.4, allow_nan=False)
    data = st.fixed_dictionaries(
        {},
        optional={
            "source": PATHS,
            "image_size": st.sampled_from(["auto", 16, 96, 1024]),
            "val_fraction": fraction,
            "test_fraction": fraction,
            "near_duplicate_bits": st.integers(0, 16),
        },
    )
    train = st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.just("auto") | st.integers(0, 10_000),
            "lr": st.floats(1e-12, 10.0, exclude_min=True),
            "average_epochs": st.booleans(),
            "decay_at": st.lists(st.floats(0.01, 0.99), max_size=3).map(tuple),
            "augment": st.fixed_dictionaries({}, optional={"flip": st.sampled_from([True, False, "auto"])}),
        },
    )
    verify = st.fixed_dictionaries(
        {}, optional={"latency_p90_ms": st.none() | st.floats(1e-9, 1e9), "size_bytes": st.none() | st.integers(1, 2**60)}
    )
    task = st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["single-label", "multi-label", "regression"]),
            "columns": st.lists(TEXTS, max_size=2).map(tuple),
            "weight": st.floats(0.1, 10.0),
        },
    )
    optional = {
        "seed": st.integers(0, 2**31 - 1),
        "target": TEXTS,
        "data": data,
        "tasks": st.dictionaries(TEXTS, task, max_size=2),
        "train": train,
        "verify": verify,
    }
    content = st.fixed_dictionaries({}, optional=optional)
    return content.filter(lambda c: not str(c.get("target", "")).endswith(".toml")).map(Recipe.model_validate)


def write(tmp_path: Path, text: str, name: str = "recipe.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def faults(path: Path | None, *arguments: Any) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path, *arguments)
    return {fault.where: str(fault) for fault in caught.value.faults}


def test_no_file_is_the_embedded_default() -> None:
    recipe = Recipe.load(None)
    assert recipe == Recipe()
    assert (recipe.data.source, recipe.target, recipe.model.weights) == ("digits", "host", "auto")


def test_every_fault_of_a_file_comes_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        schema = 1
        targt = "raspberry-pi-5"
        [data]
        image_size = "big"
        val_fraction = nan
        corrupt = "skp"
        [train]
        lr = -0.1
        epochs = 99999999
        flip = true
        [verify]
        latency_p90_ms = inf
        test_images = 3
        """,
    )
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert caught.value.message == f"{path} has 9 faults"
    text = str(caught.value)
    for line in (
        "targt: unknown key; expected one of data, distill, export, model, quantize, schema, seed, target, tasks, train, "
        "verify, watch "
        "(did you mean 'target'?)",
        "data.image_size: wrong value; got 'big'; expected a whole number or 'auto'",
        "data.val_fraction: wrong value; got nan; expected a finite number",
        "data.corrupt: wrong value; got 'skp'; expected 'refuse' or 'skip' (did you mean 'skip'?)",
        "train.lr: wrong value; got -0.1; expected greater than 0",
        "train.epochs: wrong value; got 99999999; expected less than or equal to 10000 or 'auto'",
        "(did you mean 'train.augment.flip'?)",
        "verify.latency_p90_ms: wrong value; got inf; expected a finite number",
        "verify.test_images: wrong value; got 3; expected greater than or equal to 10 or 'all'",
    ):
        assert line in text


def leaves(model: type[BaseModel], prefix: str = "") -> list[tuple[str, Any]]:
    """Every key of a recipe with its annotation."""
    found: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += leaves(field.annotation, f"{key}.")
        else:
            found.append((key, field.annotation))
    return found


KEYS = [key for key, kind in leaves(Recipe) if get_origin(kind) is not dict]
"""All keys but the tables whose names the user chooses."""
NUMBERS = [key for key, kind in leaves(Recipe) if {int, float} & {kind, *get_args(kind)}]


@pytest.mark.parametrize("absurd", ["nan", "inf", "-inf", "-1", '"12"', "2026-01-02", "[]", "{}"])
@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_may_be_absurd(key: str, absurd: str) -> None:
    assert key in faults(None, [f"{key}={absurd}"])


@pytest.mark.parametrize("key", [key for key, kind in leaves(Recipe) if "auto" in str(kind) or "all" in str(kind)])
def test_words_beside_numbers_can_be_written_out(key: str) -> None:
    word = "all" if key in ("verify.test_images", "model.stages") else "auto"
    assert Recipe.load(None, [f"{key}={word}"]) == Recipe()


def test_splits_that_leave_nothing_to_train_on_are_refused() -> None:
    found = faults(None, ["data.val_fraction=0.5", "data.test_fraction=0.5"])
    assert "must leave at least a tenth" in found[""]


def test_a_newer_schema_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has schema 2; this edgetune knows schema 1"):
        Recipe.load(write(tmp_path, "schema = 2\nkey-of-tomorrow = 1\n"))
    with pytest.raises(RecipeError, match=r"does not say its schema\n.*schema = 1"):
        Recipe.load(write(tmp_path, "seed = 1\n"))


def test_settings_win_over_options_which_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "schema = 1\nseed = 1\ntrain.epochs = 1\ntrain.lr = 0.5\n")
    recipe = Recipe.load(path, ["train.epochs=3"], {"train.epochs": 2, "seed": 2, "train.augment.flip": False})
    assert (recipe.train.epochs, recipe.seed, recipe.train.lr, recipe.train.augment.flip) == (3, 2, 0.5, False)


def test_an_option_below_a_value_is_refused_and_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'data' is a value, not a table"):
        Recipe.load(write(tmp_path, "schema = 1\ndata = 3\n"), (), {"data.source": "photos"})


def test_relative_paths_of_a_file_are_below_its_folder(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    path = write(
        tmp_path,
        'schema = 1\ntarget = "../mine.toml"\ndata.source = "../photos"\nmodel.weights = "w.safetensors"\n',
        "recipes/recipe.toml",
    )
    recipe = Recipe.load(path)
    assert recipe.data.source == str(tmp_path / "photos")
    assert recipe.model.weights == str(tmp_path / "recipes" / "w.safetensors")
    assert recipe.target == str(tmp_path / "mine.toml")


def test_relative_paths_of_the_command_line_are_below_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    recipe = Recipe.load(None, ["target=mine.toml", "model.weights=~/w.pt"], {"data.source": "photos"})
    assert recipe.data.source == str(tmp_path / "photos")
    assert recipe.target == str(tmp_path / "mine.toml")
    assert recipe.model.weights == "/home/someone/w.pt"


def test_teachers_are_names_or_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = ["distill.teacher=resnet18", 'distill.more_teachers=["resnet34", "runs/one", "large.onnx", "/runs/other"]']
    recipe = Recipe.load(None, named).distill
    assert recipe.teacher == "resnet18"
    assert recipe.teachers == ("resnet18", "resnet34", f"{tmp_path}/runs/one", f"{tmp_path}/large.onnx", "/runs/other")


def test_names_that_are_no_paths_stay_names(tmp_path: Path) -> None:
    path = write(tmp_path, 'schema = 1\ntarget = "raspberry-pi-5"\ndata.source = "digits"\nmodel.weights = "none"\n')
    recipe = Recipe.load(path)
    assert (recipe.target, recipe.data.source, recipe.model.weights) == ("raspberry-pi-5", "digits", "none")


@settings(max_examples=50)
@given(recipe=recipes())
def test_the_resolved_recipe_replays_itself(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    folder = tmp_path_factory.mktemp("replay")
    assert Recipe.load(write(folder, recipe.to_toml())) == recipe


@settings(max_examples=50)
@given(recipe=recipes(), title=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=200))
def test_the_commented_recipe_is_the_same_recipe(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, title: str) -> None:
    folder = tmp_path_factory.mktemp("commented")
    assert Recipe.load(write(folder, commented_recipe(recipe, title))) == recipe


def test_the_resolved_recipe_holds_every_key_that_has_a_value() -> None:
    text = Recipe().to_toml()
    optional = [key for key, kind in leaves(Recipe) if type(None) in get_args(kind)]
    for key in KEYS:
        assert (f"\n{key.rpartition('.')[2]} = " in f"\n{text}") is (key not in optional)


def test_the_commented_recipe_explains_every_key() -> None:
    lines = commented_recipe(Recipe()).splitlines()
    for key in KEYS:
        name = key.rpartition(".")[2]
        places = [number for number, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{name} = ")]
        assert places, key
        assert all(lines[number - 1].startswith("# ") for number in places), key


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["data.unlabelled=more"], "data.unlabelled needs a teacher"),
        (["distill.ablate=true"], "distill.ablate needs a teacher"),
        (['distill.more_teachers=["resnet18"]'], "distill.more_teachers needs a first one"),
        (
            ["distill.teacher=resnet18", 'distill.more_teachers=["resnet34"]', "distill.loss=features"],
            "features of several teachers have no mean",
        ),
        (
            ["distill.teacher=resnet18", "distill.teacher_members=2", "distill.loss=features"],
            "features of several teachers have no mean",
        ),
        (["distill.teacher=resnet18", "train.strategy=linear-probe"], "a linear probe learns from labels alone"),
    ],
)
def test_what_needs_a_teacher_and_what_has_no_use_for_one(settings: list[str], said: str) -> None:
    assert said in faults(None, settings)[""]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["distill.teacher=resnet18", 'distill.more_teachers=["resnet18"]'],
            "resnet18 is there twice: leave it out",
        ),
        (["distill.teacher=runs/one", "distill.teacher_epochs=3"], "teacher_epochs is for teachers that are given by name"),
        (["distill.teacher=large.onnx", "distill.teacher_members=1"], "teacher_members is for teachers that are given by name"),
        (
            ["distill.teacher=resnet18", "distill.teacher_members=3", "distill.teacher_epochs=0"],
            "teacher_members is 3 and distill.teacher_epochs is 0, but a linear probe comes out the same from every seed",
        ),
        (
            ["distill.teacher=resnet18", "distill.teacher_taught_epochs=3"],
            "teacher_taught_epochs is for the generations after the first, and there is only one",
        ),
    ],
)
def test_teachers_that_cannot_be_as_asked(settings: list[str], said: str) -> None:
    assert said in faults(None, settings)[""]


def test_what_is_said_of_a_named_teacher_may_stand_beside_a_path() -> None:
    settings = ["distill.teacher=runs/one", 'distill.more_teachers=["resnet18"]', "distill.teacher_members=1"]
    assert Recipe.load(None, settings).distill.used_teacher_members == 1
