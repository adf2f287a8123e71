"""A training as a run of MLflow."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import UsageError
from edgetune.files import write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MLflow", "first_line"]

EXPERIMENT, RUN_FILE = "edgetune", "mlflow.json"
SEND_EVERY_S = 5.0
# Within what MLflow takes in one request: 1,000 metrics, 100 parameters, and the length that older servers take.
METRICS_AT_ONCE, PARAMETERS_AT_ONCE, PARAMETER_LENGTH = 500, 100, 500
# MLflow's own patience with a server that is gone is four minutes a request, and the training would wait. What is set stays.
SETTINGS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MLflow:
    """Tells an MLflow server, in few requests, or writes its files.

    Args:
        address: of the server, or a folder.
        place: where the run's id is kept, so that a resumed training goes on in the same run; None: always a new run.
        name: of the run.
        from_step: 0 begins a new run.
        settings: become the run's parameters.

    Raises:
        UsageError: MLflow is not installed, or the address cannot be used.
    """

    def __init__(self, address: str, place: Path | None, name: str, *, from_step: int, settings: Mapping[str, Any]) -> None:
        for key, value in SETTINGS.items():
            os.environ.setdefault(key, value)
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as fault:
            raise UsageError(
                "watch.mlflow is set, but MLflow is not installed", remedy="pip install 'edgetune[mlflow]'"
            ) from fault
        self.waiting: list[Any] = []
        self.sent = time.monotonic()
        try:
            uri = address if "://" in address else Path(address).expanduser().resolve().as_uri()
            self.client = MlflowClient(tracking_uri=uri)
            self.run = _known_run(self.client, place) if from_step and place else ""
            if self.run:
                self.client.update_run(self.run, status="RUNNING")
            else:
                self.run = _new_run(self.client, name, settings)
            if place:
                write_json(place / RUN_FILE, {"run_id": self.run})
        except (MlflowException, OSError, ImportError, RuntimeError) as fault:
            raise UsageError(
                f"MLflow cannot be told of the training at {_without_password(address)}: {first_line(fault)}",
                remedy='start the server, correct watch.mlflow, or leave it out with --set watch.mlflow=""',
            ) from fault

    def write(self, step: int, values: Mapping[str, float], *, wait: bool) -> None:
        """Keep a point of each curve; send it at once if the training should `wait` for it, else with others."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self.waiting += [Metric(_metric_name(tag), float(value), now_ms, step) for tag, value in values.items()]
        if wait or len(self.waiting) >= METRICS_AT_ONCE or time.monotonic() - self.sent > SEND_EVERY_S:
            self._send()

    def close(self, *, complete: bool) -> None:
        """Send what is left, and say that the run is finished, or was ended before it was."""
        self._send()
        self.client.set_terminated(self.run, "FINISHED" if complete else "KILLED")

    def _send(self) -> None:
        if self.waiting:
            self.client.log_batch(self.run, metrics=self.waiting)
        self.waiting, self.sent = [], time.monotonic()


def _known_run(client: MlflowClient, place: Path) -> str:
    """Return the id of the run that an earlier part of this training has written to, empty if it is gone."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(json.loads((place / RUN_FILE).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    except MlflowException as fault:
        if fault.error_code == "RESOURCE_DOES_NOT_EXIST":
            return ""
        raise
    return str(run.info.run_id) if run.info.lifecycle_stage == "active" else ""


def _new_run(client: MlflowClient, name: str, settings: Mapping[str, Any]) -> str:
    from mlflow.entities import Param

    experiment = client.get_experiment_by_name(EXPERIMENT)
    number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
    run = str(client.create_run(number, run_name=name).info.run_id)
    parameters = [Param(_metric_name(key), value[:PARAMETER_LENGTH]) for key, value in _flat(settings)]
    for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
        client.log_batch(run, params=parameters[start : start + PARAMETERS_AT_ONCE])
    return run


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys with their values as text."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _metric_name(tag: str) -> str:
    """Return a name in the letters that MLflow takes: `val/top-1 percent` for `val/top-1 %`."""
    return re.sub(r"[^\w\-. :/]", "_", tag.replace("%", "percent").replace("²", "2"))


def _without_password(text: str) -> str:
    """Return a text without what stands before the @ of addresses in it."""
    return re.sub(r"//[^/\s]*@", "//", text)


def first_line(fault: Exception) -> str:
    """Return what an error says: not what a server or a library added below it, and no password."""
    return _without_password((str(fault).splitlines() or [""])[0]) or type(fault).__name__
