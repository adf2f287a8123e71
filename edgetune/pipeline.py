"""The straight line: recipe and profile → data → train → export → quantize → verify → report → bundle.

Each stage is looked up in the run's cache by a digest of everything that it depends on, and imported only when it has to run:
a build that changes nothing imports neither torch nor timm.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from edgetune import data
from edgetune.artefacts import Ablation, Bundle, Checkpoint, Dataset, Measurement, OnnxModel, Precision, Report, Sensitivity
from edgetune.device.environment import processor_facts
from edgetune.files import write_atomic
from edgetune.keys import NOT_THE_IMAGES, NOT_THE_WEIGHTS, REVISIONS, versions
from edgetune.learning import ablation_of, checkpoint_of
from edgetune.origin import Origin, Trained, provenance_of
from edgetune.profile import Profile, load_profile
from edgetune.progress import Progress
from edgetune.recipe import MANIFESTS, NAMED_SOURCES, Recipe
from edgetune.reducing import halved, quantized, sensitivity_of
from edgetune.stagecache import StageCache, identity
from edgetune.stopping import Stop
from edgetune.verify.limits import limits

__all__ = ["GIVEN", "Run", "default_output"]

GIVEN = "model.toml"
"""In a run folder: which model file the run began with, where it was not trained; see `edgetune.outside.given`."""


def default_output(recipe: Recipe, recipe_path: Path | None) -> Path:
    """Return where a build goes when no --output is given: named after the recipe file, or the images and the target."""
    # The name of a manifest's file, and of torchvision's data set, without what is before and behind it.
    source = Path(recipe.data.source.removeprefix(NAMED_SOURCES))
    images = source.stem if source.suffix in MANIFESTS else source.name
    name = recipe_path.stem if recipe_path else f"{images}-{Path(recipe.target).stem}"
    return Path("runs") / name


@dataclass(frozen=True, kw_only=True)
class Run:
    """One recipe in one run folder. Each property is the value of a stage, with all stages before it.

    Attributes:
        recipe: what to build.
        profile: for which target.
        folder: the run folder; the caller holds its lock.
        progress: told what happens.
        stop: set by a signal; a stage that can resume asks it after each step.
    """

    recipe: Recipe
    profile: Profile
    folder: Path
    progress: Progress
    stop: Stop = field(default_factory=Stop)

    @classmethod
    def open(cls, recipe: Recipe, folder: Path, progress: Progress, stop: Stop | None = None) -> Run:
        """Return a run, with its resolved recipe stored in the folder.

        Raises:
            ProfileError: the target is not known.
            TargetError: the machine that measures is not what the recipe wants it to be.
        """
        profile = load_profile(recipe.target)
        return cls(recipe=recipe, profile=profile, folder=folder, progress=progress, stop=stop or Stop()).begun()

    def begun(self) -> Self:
        """Return this run once its target is checked, with everything that replays it stored in the folder.

        Raises:
            TargetError: the machine that measures is not what the recipe wants it to be.
        """
        if self.recipe.verify.device != "auto":
            # A device that is not what the profile says is refused before anything is trained.
            _ = self.device_facts
        write_atomic(self.folder / "recipe.toml", self.recipe.to_toml().encode())
        # What an earlier run of another origin left there would replay that one.
        (self.folder / GIVEN).unlink(missing_ok=True)
        return self

    @cached_property
    def device_facts(self) -> dict[str, Any]:
        """What the machine that measures is, as far as a measurement depends on it.

        Raises:
            TargetError: the recipe names a device, and it is not what the profile describes or cannot be reached.
        """
        device = self.recipe.verify.device
        facts: dict[str, Any] = processor_facts()
        installed = versions("onnxruntime", "numpy")
        if device != "auto":
            from edgetune.verify.stage import check_target

            facts = check_target(self.profile, self.recipe.verify)
            installed = {name: facts[name] for name in ("onnxruntime", "numpy")}
        processor = {name: facts[name] for name in ("architecture", "name", "cores", "features")}
        return {"device": device, "processor": processor, "versions": installed}

    @cached_property
    def cache(self) -> StageCache:
        """The values that earlier runs left in the folder."""
        return StageCache(self.folder, self.progress)

    @cached_property
    def dataset(self) -> Dataset:
        """The decoded and split images."""
        recipe = self.recipe.data
        index = self.folder / "index.json"
        found = data.fingerprint(recipe, index, self.recipe.tasks)
        depends = {
            "revision": REVISIONS["data"],
            "images": found,
            "recipe": recipe.model_dump(mode="json", exclude={"source", "root", "unlabelled", "download"}),
            "tasks": {name: task.model_dump(mode="json") for name, task in self.recipe.tasks.items()},
            "seed": self.recipe.seed,
            "versions": versions("pillow", "numpy"),
        }

        def compute(folder: Path, _key: str) -> Dataset:
            return data.prepare(
                recipe,
                tasks=self.recipe.tasks,
                seed=self.recipe.seed,
                folder=folder,
                expected_fingerprint=found,
                progress=self.progress,
                index_path=index,
            )

        return self.cache.value(Dataset, "data", depends, compute)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The fine-tuned network."""
        return checkpoint_of(self)

    @cached_property
    def ablation(self) -> Ablation | None:
        """What the teacher gave; None where that is not asked."""
        wanted = self.recipe.distill.teacher and self.recipe.distill.ablate
        return ablation_of(self) if wanted else None

    @cached_property
    def origin(self) -> Origin:
        """Where the fp32 file comes from, for report and bundle."""
        return Trained(self)

    @cached_property
    def fp32(self) -> OnnxModel:
        """The exported network."""
        depends = {
            "revision": REVISIONS["export"],
            "checkpoint": identity(self.checkpoint, ignore=NOT_THE_WEIGHTS),
            "images": identity(self.dataset, ignore=NOT_THE_IMAGES),
            "recipe": self.recipe.export.model_dump(mode="json"),
            "caps": self.profile.model.model_dump(mode="json"),
            "provenance": self.provenance,
        }

        def compute(folder: Path, _key: str) -> OnnxModel:
            from edgetune.export.stage import export
            from edgetune.train.start import load_network

            return export(
                self.checkpoint,
                self.dataset,
                self.recipe.export,
                self.profile.model,
                load_network,
                provenance=self.provenance,
                folder=folder,
                progress=self.progress,
            )

        return self.cache.value(OnnxModel, "export", depends, compute)

    @property
    def wanted_precision(self) -> Precision:
        """What the recipe, or else the profile, asks for."""
        wish = self.recipe.quantize.precision
        return self.profile.quantization.precision if wish == "auto" else wish

    @cached_property
    def reduced(self) -> OnnxModel | None:
        """The network in int8 or fp16; None where only fp32 is wanted."""
        match self.wanted_precision:
            case "fp32":
                return None
            case "fp16":
                return halved(self, self.fp32)
            case "int8":
                return quantized(self, self.fp32)

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """The damage that each layer does alone in integers."""
        return sensitivity_of(self, self.fp32)

    @cached_property
    def models(self) -> dict[str, OnnxModel]:
        """Every model that was built, by precision."""
        built: dict[str, OnnxModel] = {"fp32": self.fp32}
        if self.reduced is not None:
            built[self.reduced.precision] = self.reduced
        return built

    @cached_property
    def measurement(self) -> Measurement:
        """What the device measured."""
        depends = {
            "revision": REVISIONS["measure"],
            "models": {name: model.sha256 for name, model in self.models.items()},
            "images": identity(self.dataset, ignore=NOT_THE_IMAGES),
            "profile": self.profile.model_dump(mode="json", exclude={"sources", "budget", "tolerance"}),
            "test_images": self.recipe.verify.test_images,
            **self.device_facts,
        }

        def compute(folder: Path, _key: str) -> Measurement:
            from edgetune.verify.stage import measure

            return measure(self.models, self.dataset, self.profile, self.recipe.verify, folder=folder, progress=self.progress)

        return self.cache.value(Measurement, "measure", depends, compute)

    @cached_property
    def report(self) -> Report:
        """The judgement."""
        depends = {
            "revision": REVISIONS["report"],
            "measurement": identity(self.measurement),
            "models": {name: identity(model) for name, model in self.models.items()},
            "dataset": identity(self.dataset),
            **self.origin.depends(),
            "recipe": self.recipe.model_dump(mode="json"),
            "profile": self.profile.model_dump(mode="json"),
            "versions": versions("scikit-learn", "scipy"),
        }

        def compute(folder: Path, _key: str) -> Report:
            from edgetune.judgement import judged

            return judged(self, folder)

        report = self.cache.value(Report, "report", depends, compute)
        for name in ("report.json", "report.md"):
            write_atomic(self.folder / name, (report.folder / name).read_bytes())
        for picture in report.folder.glob("*.png"):
            write_atomic(self.folder / "pictures" / picture.name, picture.read_bytes())
        return report

    @cached_property
    def provenance(self) -> dict[str, str]:
        """What the model was built from: versions and digests, nothing that names a time, a place or a person."""
        return provenance_of(self)

    @cached_property
    def bundle(self) -> Bundle:
        """Everything that a device needs, in RUN/bundle."""
        from edgetune.release.bundle import make_bundle
        from edgetune.report.model_card import model_card
        from edgetune.verify.stage import golden_options, session_options

        model = self.models[self.report.shipped]
        bundle = make_bundle(
            folder=self.folder / "bundle",
            product=self.dataset.source,
            model=model,
            reference=self.fp32 if model is not self.fp32 else None,
            dataset=self.dataset,
            tasks=self.recipe.tasks,
            report=self.report,
            card=model_card(self.report, model, provenance=self.provenance),
            measurement=self.measurement,
            profile=self.profile,
            session=session_options(self.profile),
            golden_session=golden_options(self.profile, self.recipe.verify, self.measurement),
            limits=asdict(limits(self.recipe, self.profile)),
            provenance=self.provenance,
        )
        self.progress.line(f"bundle: {shlex.quote(str(bundle.folder))}")
        return bundle
