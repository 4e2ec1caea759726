"""A saved view of MLflow's runs page: batch size against time, memory and accuracy, drawn at once.

MLflow's Compare page chooses its axes alone and by the alphabet (parallel coordinates: the first
three params that differ, and one metric; scatter: the first param against the first metric), so no
name of ours can make it show batch size against time. The runs page can be told: it keeps named
views as tags of the experiment. Their form is the one that MLflow 3.17's own "Save as new view"
writes; a version that does not know it shows its usual page.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

TAG = "mlflow.sharedViewState."
KEY = "batch-size-"
VIEWS_KEPT = 10  # MLflow lets people save 40 in one experiment; leave them room
PARALLEL, SCATTER = "batch-size-parallel", "batch-size-scatter"  # the sections of the page

TRIAL_METRICS = ("time_to_target_seconds", "peak_memory_mib", "examples_per_second")
# Stage -> its params and metrics, drawn in this order; the last metric gives the colour. That of a
# trial is its test accuracy, or the validation metric of another name: not all have a test split.
AXES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "confirm": (("batch_size", "learning_rate"), TRIAL_METRICS),
    "search": (("batch_size", "learning_rate"), TRIAL_METRICS),
    "measure": (("batch_size",), ("step_seconds", "peak_memory_mib", "examples_per_second")),
}


def tag_name(parent_run_id: str) -> str:
    """The experiment tag that holds the view of one sweep."""
    return TAG + KEY + parent_run_id[:12]


def tag_value(
    sweep: str, parent_run_id: str, stage: str, now_ms: int, metric: str = "accuracy"
) -> str:
    """The view of one sweep's runs of one stage, as MLflow stores it; `metric` by its own name."""
    state = zlib.compress(json.dumps(_state(parent_run_id, stage, metric)).encode())
    view = {"name": f"{sweep}: {stage}", "createdAt": now_ms, "updatedAt": now_ms}
    return json.dumps(view | {"state": "deflate;" + base64.b64encode(state).decode()})


def page(experiment_id: str, parent_run_id: str) -> str:
    """Where the view is, below a server's address. MLflow opens on its GenAI pages if not told."""
    query = urllib.parse.urlencode(
        {
            "workflowType": "machine_learning",
            "compareRunsMode": "CHART",
            "viewStateShareKey": KEY + parent_run_id[:12],
        }
    )
    return f"/#/experiments/{experiment_id}/runs?{query}"


def outdated(tags: Mapping[str, str]) -> list[str]:
    """The tags of our oldest views, beyond the newest `VIEWS_KEPT`."""
    ours = [name for name in tags if name.startswith(TAG + KEY)]
    newest_first = sorted(ours, key=lambda name: json.loads(tags[name])["updatedAt"], reverse=True)
    return newest_first[VIEWS_KEPT:]


def _state(parent_run_id: str, stage: str, metric: str) -> dict[str, Any]:
    params, metrics = AXES[stage]
    if metrics is TRIAL_METRICS:
        metrics = (*metrics, "test_accuracy" if metric == "accuracy" else "val_metric")
    names = [f"params.`{p}`" for p in params] + [f"metrics.`{m}`" for m in metrics]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}' and tags.stage = '{stage}'",
        # Sorted by anything but the time, runs stand in a flat list, and not folded under a parent.
        "orderByKey": "metrics.`batch_size`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": names,
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": _charts(params, metrics),
        "compareRunSections": [
            _section(PARALLEL, "Batch size against all", columns=1),
            _section(SCATTER, "Batch size against one", columns=2),
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }


def _section(key: str, name: str, columns: int) -> dict[str, Any]:
    made = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": key, "name": name, "columns": columns, "cardHeight": 360} | made


def _charts(params: Sequence[str], metrics: Sequence[str]) -> list[dict[str, Any]]:
    parallel: dict[str, Any] = {
        "type": "PARALLEL",
        "metricSectionId": PARALLEL,
        "selectedParams": params,
        "selectedMetrics": metrics,
        "showAllRuns": True,
    }
    scatters: list[dict[str, Any]] = [
        {
            "type": "SCATTER",
            "metricSectionId": SCATTER,
            "xaxis": {"key": "batch_size", "type": "METRIC"},
            "yaxis": {"key": metric, "type": "METRIC"},
        }
        for metric in metrics
    ]
    common = {"runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    return [
        {"uuid": f"batch-size-{n}"} | common | chart
        for n, chart in enumerate([parallel, *scatters])
    ]
