"""MLflow's experiment, deleted; and what of a sweep changes as it is taken up again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import tracked
from tests.test_tracking_outages import free_port, serve, stop
from tune_jobs.config import SweepConfig, resumed
from tune_jobs.errors import TrackingUnreachable
from tune_jobs.store import SweepStore
from tune_jobs.tracking.client import connect
from tune_jobs.tracking.of_sweep import SweepCopy, reachable_uri

uri = tracked.uri


def deleted(uri: str, name: str) -> None:
    client = connect(uri)
    client.delete_experiment(client.create_experiment(name))


def test_a_deleted_experiment_is_told_with_its_remedy(uri: str) -> None:
    deleted(uri, "it's gone")
    config, said = SweepConfig(tracking_uri=uri, experiment="it's gone"), list[str]()
    assert reachable_uri(config, said.append) is None
    assert "was deleted" in said[0] and "mlflow experiments restore" in said[0]
    with pytest.raises(TrackingUnreachable, match="was deleted"):
        reachable_uri(SweepConfig(**{**vars(config), "tracking_required": True}), said.append)
    assert reachable_uri(SweepConfig(tracking_uri=uri, experiment="another"), said.append) == uri


@pytest.mark.slow
def test_an_experiment_that_a_server_holds_as_deleted_is_told(uri: str, tmp_path: Path) -> None:
    deleted(uri, "gone & forgotten")
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "server.db")
    port = free_port()
    server = serve(tmp_path, port)
    try:
        at = f"http://127.0.0.1:{port}"
        config = SweepConfig(tracking_uri=at, tracking_required=True, experiment="gone & forgotten")
        with pytest.raises(TrackingUnreachable, match=r"'gone & forgotten' .*was deleted"):
            reachable_uri(config, lambda _: None)
    finally:
        stop(server)


def test_what_a_resumed_sweep_may_change_is_no_param_that_stays(uri: str, tmp_path: Path) -> None:
    store, config = SweepStore(tmp_path / "it"), SweepConfig(name="it", seeds=4)
    store.create()
    for taken in (config, resumed(config, {"seeds": 7, "trainings_to_come": 9})):
        copy = SweepCopy.begin(taken, store, uri, {})
        assert copy.finish("", {}) is None
    assert copy.copy is not None
    run = connect(uri).get_run(copy.copy.parent_run_id)
    assert run.data.tags["seeds"] == "7" and run.data.tags["trainings_to_come"] == "9"
    assert "seeds" not in run.data.params and run.data.params["trials"] == str(config.trials)
