"""A failed task is sent again over the HTTP API: by whoever has the token, and by nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from queueworker.processes.environment import journal_group
from tests.support.demo_processes import demo_process, wait_until
from tests.support.worker_processes import WorkerProcess, run_command, worker_process

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "a-token-of-some-length"


def retry(worker: WorkerProcess, path: str, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{worker.url}{path}/failures/t-1/retry", headers=headers, timeout=20, trust_env=False)


def test_a_failed_task_is_sent_again_by_whoever_has_the_token(redis_url: str, tmp_path: Path) -> None:
    flag, token = tmp_path / "mended", tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    code = f"import os; assert os.path.exists({str(flag)!r}), 'not yet'"
    with demo_process("queue", "--port", "0") as queue, demo_process("executor", "--port", "0") as executor:
        environ = {"QUEUE_SERVICE_URL": queue.url, "REDIS_URL": redis_url, "EXECUTOR_ENDPOINTS": executor.url}
        actions = {"WEB_ALLOW_ACTIONS": "true", "WEB_TOKEN_FILE": str(token), "WEB_FAILURES": "Summary"}
        with queue.client() as http, worker_process(**environ, **actions) as worker:
            http.post("/tasks", json={"eval_id": "t-1", "code": code}).raise_for_status()
            path = f"/api/objects/{journal_group(queue.url)}"

            def detail() -> dict[str, Any]:
                found: dict[str, Any] = worker.get(path).json()
                return found

            wait_until(lambda: bool(detail()["failures"]), "the failed task", 30)
            assert (detail()["failures"][0]["eval_id"], detail()["failures"][0]["error"]) == ("t-1", "")
            assert detail()["actions"] is True
            assert retry(worker, path, "wrong").status_code == 401
            flag.touch()
            wait_until(lambda: retry(worker, path, TOKEN).status_code == 200, "sent", 20)
            wait_until(lambda: http.get("/account").json()["completed"] == 1, "completed", 30)
            wait_until(lambda: retry(worker, path, TOKEN).status_code == 404, "the record is gone", 20)
        with worker_process(**environ) as worker:
            refused = retry(worker, path, TOKEN)
            assert (refused.status_code, "actions are off" in refused.json()["detail"]) == (403, True)


def test_actions_without_a_token_are_refused_at_the_start() -> None:
    said = run_command("worker", WEB_ALLOW_ACTIONS="true", WEB_TOKEN="too-short")
    assert said.returncode == 2
    assert said.stderr == (
        "WEB_ALLOW_ACTIONS=true: set WEB_TOKEN or WEB_TOKEN_FILE to a token of at least 16 printable ASCII characters\n"
    )
