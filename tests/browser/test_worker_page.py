"""The page of a real worker process: it shows what /status says, survives a restart, and shows no secret."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
from playwright.async_api import expect

from devcluster.ports import free_ports
from queueworker.processes.environment import journal_group
from tests.support.demo_processes import demo_process
from tests.support.worker_processes import worker_process

if TYPE_CHECKING:
    from tests.browser.conftest import Visitor

SECRETS = {"QUEUE_API_KEY": "hunter2-the-key", "WEB_TOKEN": "hunter2-the-token", "WEB_ALLOW_ACTIONS": "true"}


async def test_the_page_of_a_worker_says_what_status_says_and_survives_its_restart(
    redis_url: str, visitor: Visitor
) -> None:
    (port,) = free_ports(1)
    key = SECRETS["QUEUE_API_KEY"]
    with (
        demo_process("queue", "--port", "0", "--api-key", key) as queue,
        demo_process("executor", "--port", "0") as executor,
    ):
        group = journal_group(queue.url)
        environ = {
            "QUEUE_SERVICE_URL": queue.url.replace("http://", "http://user:hunter2@"),
            "REDIS_URL": redis_url,
            "EXECUTOR_ENDPOINTS": executor.url,
            "EXECUTOR_CONCURRENCY": "2",
            "PORT": str(port),
            **SECRETS,
        }
        with worker_process(**environ) as worker, queue.client(headers={"X-API-Key": key}) as http:
            page = await visitor.open(f"{worker.url}/#/{group}")
            await expect(page.locator("h1 .badge")).to_contain_text("Routing")
            for n in range(8):
                http.post("/tasks", json={"eval_id": f"t-{n}", "code": f"assert {n} % 4"}).raise_for_status()
            completed = page.locator(".facts > div", has_text="Completed").locator("dd")
            async with asyncio.timeout(60):
                while worker.get(f"/status/{group}").json()["tasks"]["routed"] < 8:
                    await asyncio.sleep(0.05)
            await expect(completed).to_have_text("6", timeout=2_000)
            await expect(page.locator(".failures > li")).to_have_count(2)
            shown = await page.content()
            answers = [worker.get(path).text for path in ("/api/overview", f"/api/objects/{group}", f"/status/{group}")]
            assert [text for text in [shown, *answers] if "hunter2" in text] == []
            assert visitor.complaints == []
        await expect(page.locator("#notice")).to_contain_text("What you see is from then")
        await expect(completed).to_have_text("6")
        with worker_process(**environ):
            await expect(page.locator("#notice")).to_be_hidden()
            await expect(completed).to_have_text("0")
    assert {urlsplit(asked).netloc for asked in visitor.asked} == {f"127.0.0.1:{port}"}
    assert httpx.URL(visitor.asked[0]).path == "/"
