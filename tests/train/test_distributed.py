"""Several processes under torchrun: together they train what one would, and a killed one does not matter."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from edgetune.errors import Interrupted, UsageError
from edgetune.recipe import DistillRecipe
from edgetune.train import distributed
from edgetune.train.distributed import World, together, world
from edgetune.train.evaluate import predict
from edgetune.train.job import TrainJob
from edgetune.train.network import NetworkSpec, create_network, normalisation
from edgetune.train.objective import Objective

TOLERANCE = 1e-4
TIMEOUT_S = 100


def torchrun(*arguments: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program in two processes of one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", *options, *arguments]
    own = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    own |= {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, env=own, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        finally:
            # The agent's own workers are in sessions of their own; it ends them when it is asked to.
            process.terminate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def apart(one: Path, other: Path) -> float:
    """Return the largest difference of any weight of two checkpoints."""
    left, right = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert left.keys() == right.keys()
    return max((tensor.double() - right[name].double()).abs().max().item() for name, tensor in left.items())


DRIVER = """
import pickle, sys
from pathlib import Path
from edgetune.errors import UsageError
from edgetune.progress import Silent
from edgetune.train.distributed import dismissing, joined
from edgetune.train.stage import train, work

folder = Path(sys.argv[1])
with joined("cpu") as here:
    try:
        if here.rank:
            work(lambda: False)
        else:
            with dismissing():
                for job in pickle.loads((folder / "jobs.pickle").read_bytes()):
                    train(job, Silent())
    except UsageError as fault:
        (folder / f"fault-{here.rank}").write_text(str(fault))
"""


@pytest.fixture(scope="module")
def ways(dataset, pretrained, teacher):
    """The jobs that are done by one process and by two."""
    from edgetune.recipe import TrainRecipe

    plain = {"epochs": 2, "batch_size": 12, "threads": 1, "device": "cpu", "lr": 1e-3, "probe_iterations": 0}

    def job(folder: Path, augment: dict[str, Any], changes: dict[str, Any], more: dict[str, Any]) -> TrainJob:
        recipe = TrainRecipe().model_copy(update=plain | changes)
        recipe = recipe.model_copy(update={"augment": recipe.augment.model_copy(update=augment)})
        folder.mkdir(parents=True)
        return TrainJob(dataset=dataset, model=pretrained, recipe=recipe, seed=0, key="k", folder=folder, **more)

    taught = {"teachers": (teacher,), "distill": DistillRecipe()}
    table: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
        "plain": ({}, {}, {}),
        "mixup": ({"mixup": 0.4}, {}, {}),
        "gradual": ({}, {"strategy": "gradual", "gradual_fraction": 1.0, "clip_norm": 1.0, "accumulate": 3}, {}),
        "sampler": ({}, {"balance": "sampler", "freeze": "stem,stages.0"}, {}),
        "adapt": ({}, {"batch_norm": "adapt", "average_epochs": False, "lr": 1e-2, "epochs": 4}, {}),
        "dist": ({}, {}, taught),
        "features": ({}, {}, {**taught, "distill": DistillRecipe(loss="features")}),
    }
    return {name: lambda folder, parts=parts: job(folder, *parts) for name, parts in table.items()}


@pytest.fixture(scope="module")
def both(ways, tmp_path_factory):
    """Where one process and two have done the same; last of all, what cannot be shared by two."""
    from edgetune.progress import Silent
    from edgetune.train.stage import train

    root = tmp_path_factory.mktemp("both")
    jobs = {name: way(root / "two" / name) for name, way in ways.items()}
    uneven = ways["plain"](root / "two" / "uneven")
    uneven = TrainJob(**{**vars(uneven), "recipe": uneven.recipe.model_copy(update={"batch_size": 9})})
    (root / "jobs.pickle").write_bytes(pickle.dumps([*jobs.values(), uneven]))
    (root / "driver.py").write_text(DRIVER)
    ended = torchrun(str(root / "driver.py"), str(root))
    assert ended.returncode == 0, ended.stderr
    for name, way in ways.items():
        train(way(root / "one" / name), Silent())
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "mixup", "gradual", "sampler", "dist", "features"])
def test_two_processes_train_what_one_does(both, pretrained, name) -> None:
    assert apart(both / "one" / name, both / "two" / name) < TOLERANCE
    begun = load_file(pretrained.weights)["conv_head.weight"]
    assert (load_file(both / "two" / name / "model.safetensors")["conv_head.weight"] - begun).abs().max() > 10 * TOLERANCE
    one, two = ((both / place / name / "history.jsonl").read_text().splitlines() for place in ("one", "two"))
    assert len(one) == len(two) == 3


@pytest.mark.slow
def test_batch_norms_that_follow_the_images_follow_those_of_all_processes(both, dataset) -> None:
    """Each normalises by its own part of a batch, but what is kept is what was validated: one network, not two halves."""
    spec = NetworkSpec(backbone="test_efficientnet")
    network = create_network(spec, 3)
    network.load_state_dict(load_file(both / "two" / "adapt" / "model.safetensors"))
    logits = predict(network, normalisation(spec), dataset.images("val"), torch.device("cpu"))
    objective = Objective(dataset.heads, {}, dataset.targets("train"), label_smoothing=0.1)
    lines = [json.loads(line) for line in (both / "two" / "adapt" / "history.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: (-line["val_score"], line["val_loss"]))
    assert best["epoch"] > 0
    assert objective.scores(logits, dataset.targets("val")).loss == pytest.approx(best["val_loss"], abs=1e-6)


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_an_error_everywhere(both) -> None:
    for rank in range(2):
        assert "train.batch_size = 9 cannot be shared evenly by 2 processes" in (both / f"fault-{rank}").read_text()


def pictures(folder: Path) -> Path:
    """Write a folder of red, green and blue pictures."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for index in range(24):
            image = random.integers(0, 120, (32, 32, 3)).astype(np.uint8)
            image[..., number] = random.integers(120, 250)
            Image.fromarray(image).save(folder / name / f"{index}.png")
    return folder


# Rank 1 kills itself in the middle of the second epoch, once; each step is saved.
KILLED = """
import os, signal, sys
from pathlib import Path
from edgetune.train import finetune

flag, rank = Path(sys.argv[1]), int(os.environ["RANK"])
finetune.SAVE_EVERY_S = 0.0
step = finetune.FineTuning._train_step

def deadly(self, batch):
    if rank == 1 and self.steps_done == 6 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, batch)

finetune.FineTuning._train_step = deadly
from edgetune.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_the_command_under_torchrun_survives_a_killed_process(pretrained, tmp_path) -> None:
    """`edgetune train`: undisturbed as one process would, and with a process killed to the bit the same."""
    source = pictures(tmp_path / "pictures")

    def arguments(output: str) -> list[str]:
        keys = {
            "model.backbone": "test_efficientnet",
            "model.weights": pretrained.weights,
            "model.drop_rate": 0,
            "data.image_size": 32,
            "data.near_duplicate_bits": 0,
            "train.epochs": 2,
            "train.batch_size": 12,
            "train.threads": 1,
            "train.device": "cpu",
            "watch.pictures": "false",
            "watch.tensorboard": "false",
        }
        settings = [f"--set={key}={value}" for key, value in keys.items()]
        return ["train", f"--data={source}", f"--output={tmp_path / output}", *settings]

    def checkpoint(output: str) -> Path:
        (folder,) = (tmp_path / output / "stages" / "train").iterdir()
        assert not list(folder.glob("state-*"))
        return folder

    one = subprocess.run([sys.executable, "-m", "edgetune", *arguments("one")], capture_output=True, text=True, check=False)
    assert one.returncode == 0, one.stderr
    two = torchrun("-m", "edgetune", *arguments("two"))
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("checkpoint ") == 1  # The other process has nothing to say.
    assert "2 processes" in two.stderr
    assert apart(checkpoint("one"), checkpoint("two")) < TOLERANCE

    (tmp_path / "killed.py").write_text(KILLED)
    # With a port of one's own, torchrun lets all attempts meet at one place.
    options = ["--max-restarts=1", f"--master-port={free_port()}", "--monitor-interval=0.1"]
    killed = torchrun(str(tmp_path / "killed.py"), str(tmp_path / "flag"), *arguments("killed"), options=options)
    assert killed.returncode == 0, killed.stderr
    assert (tmp_path / "flag").exists()
    assert "resumed after epoch 1, step 2" in killed.stderr
    for name in ("model.safetensors", "history.jsonl"):
        assert (checkpoint("killed") / name).read_bytes() == (checkpoint("two") / name).read_bytes()


def test_a_process_on_its_own_is_the_whole_world(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert world() == World(0, 1, 0)
    with distributed.joined("cpu") as here:
        assert here.size == 1
    assert not torch.distributed.is_initialized()
    assert distributed.share("mine") == "mine"
    assert distributed.anyone(True)
    assert distributed.averaged(0.5) == distributed.agreed(0.5) == 0.5
    assert torch.equal(distributed.gather(torch.arange(3)), torch.arange(3))


def test_a_place_that_is_no_number_is_named(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="RANK, WORLD_SIZE and LOCAL_RANK must be numbers"):
        world()


@pytest.mark.parametrize("size", [1, 2])
def test_only_the_loss_of_another_process_counts_as_an_interruption(monkeypatch, size) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(size))
    gone = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(Interrupted if size > 1 else RuntimeError, match=r"gone|closed"), together():
        raise gone
    with pytest.raises(RuntimeError, match="shapes"), together():
        raise RuntimeError("shapes do not match")
