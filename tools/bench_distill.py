"""Measures what a teacher gives: the same student, seeds and epochs with and without it, and the time that it costs.

    python tools/bench_distill.py FOLDER --size 96 --teacher tf_efficientnet_lite2 --seeds 0 1 2 --loss kl dist
    python tools/bench_distill.py FOLDER --size 96 --loss kl --set distill.teacher_image_size=96    # views as they are
    python tools/bench_distill.py FOLDER --size 96 --teacher RUN --loss kl      # a run of another image size, such as of

    edgetune train --data FOLDER --output RUN --set model.backbone=tf_efficientnet_lite2 --set data.image_size=160
        --set train.epochs=2 --set train.label_smoothing=0

Several teachers, such as of one epoch and of two: --set 'distill.more_teachers=["OTHER"]'. A network that both have taught:

    edgetune train --data FOLDER --output TAUGHT --set model.backbone=tf_efficientnet_lite2 --set data.image_size=160
        --set train.epochs=3 --set distill.teacher=RUN --set 'distill.more_teachers=["OTHER"]'

A teacher given by name is fine-tuned for each seed, as the keys distill.teacher_… say, on the same images and before the
student; its time is said apart. Then come the student without a teacher, and with one for each loss, all timed as their
training alone. The first loss asks the teacher; the others, and the first one once more in the end, read its answers from disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from training_runs import Result, compare, forget, open_run, test_top1


def trained(output: Path, settings: list[str]) -> Result:
    """Return what the student reaches, and the seconds of its training alone."""
    run = open_run(output, settings)
    dataset = run.dataset
    from edgetune.features import features_of
    from edgetune.learning import teachers_of

    teachers_of(run)
    features_of(run, run.recipe.model)
    forget(output, "train")
    began = time.perf_counter()
    checkpoint = run.checkpoint
    seconds = time.perf_counter() - began
    return Result(test_top1(checkpoint, dataset), seconds)


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--teacher", default="tf_efficientnet_lite2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--loss", nargs="+", default=["kl", "dist"])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument(
        "--asking-only", action="store_true", help="Leave out the last runs, which read the first loss's answers."
    )
    parser.add_argument("--output", type=Path, help="Keep the runs here.")
    options = parser.parse_args()
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            output = (options.output or Path(scratch)) / f"seed-{seed}"
            plain = [f"data.source={options.folder.resolve()}", f"data.image_size={options.size}", f"seed={seed}"]
            taught = [*plain, f"distill.teacher={options.teacher}", *options.settings]
            first = f"distill.loss={options.loss[0]}"
            began = time.perf_counter()
            from edgetune.artefacts import Checkpoint
            from edgetune.learning import teachers_of

            run = open_run(output, [*taught, first])
            teachers = teachers_of(run)
            # A teacher of another image size looks at resampled views; what it reaches on those stands in the training's log.
            print(f"seed {seed}: the teachers took {time.perf_counter() - began:.0f} s")
            for teacher in teachers:
                if isinstance(teacher, Checkpoint) and teacher.preprocessing == run.dataset.preprocessing:
                    print(f"seed {seed}: {teacher.backbone} has a top-1 of {test_top1(teacher, run.dataset):.2f} %")
            results.setdefault("without a teacher", []).append(trained(output, plain))
            results.setdefault(f"{options.loss[0]}, asking the teacher", []).append(trained(output, [*taught, first]))
            for loss in [*options.loss[1:], *([] if options.asking_only else options.loss[:1])]:
                student = trained(output, [*taught, f"distill.loss={loss}"])
                results.setdefault(f"{loss}, from answers on disk", []).append(student)
            compare(results, "without a teacher")


if __name__ == "__main__":
    main()
