"""A backfill through the running server's GraphQL, as the button of the UI launches it."""

import json
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

BACKFILL = "dagster/backfill"
LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATE = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename ... on PartitionBackfill {
  id status error { message } } } instance { daemonHealth { allDaemonStatuses {
  daemonType healthy required lastHeartbeatErrors { message } } } } }"""
RUNS = """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { status } } } }"""
LASTING = 30  # seconds after which what a daemon reports is an error
ENDED = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}


def asked(address: str, query: str, **variables: Any) -> dict[str, Any]:
    """The answer of the server to a GraphQL query."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        found = json.load(answer)
    assert "errors" not in found, found
    return dict(found["data"])


def launched(address: str, assets: Sequence[str], run_ids: Sequence[str], patience: float = 300) -> dict[str, Any]:
    """The state of a backfill of these assets and runs when it has ended; no daemon may report an error meanwhile."""
    params = {"assetSelection": [{"path": [name]} for name in assets], "partitionNames": list(run_ids)}
    answer = asked(address, LAUNCH, params=params)["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    since = time.monotonic()
    deadline = since + patience
    while True:
        found = asked(address, STATE, id=answer["backfillId"])
        daemons = found["instance"]["daemonHealth"]["allDaemonStatuses"]
        wrong = [each for each in daemons if each["lastHeartbeatErrors"]]
        since = time.monotonic() if not wrong else since  # a disk that stalls for seconds is no error of a daemon
        assert time.monotonic() < since + LASTING, f"a daemon reports an error: {wrong}"
        state = found["partitionBackfillOrError"]
        assert state.get("error") is None, state
        if state["status"] in ENDED:
            return dict(state)
        assert time.monotonic() < deadline, f"after {patience} s: {state}"
        time.sleep(1)


def launched_runs(address: str, backfill: str) -> list[str]:
    """Status of every Dagster run of a backfill."""
    wanted = {"tags": [{"key": BACKFILL, "value": backfill}]}
    return [run["status"] for run in asked(address, RUNS, filter=wanted)["runsOrError"]["results"]]
