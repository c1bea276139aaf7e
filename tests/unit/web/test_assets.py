"""The page's files: names and integrity follow from the content, and the page refers to nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

import httpx
import pytest

from queueworker.web.app import create_app
from queueworker.web.assets import FOLDER, ORDER, STATIC, load
from tests.support.web_source import FakeSource

REFERENCE = re.compile(r'(?:href|src)="([^"]+)"(?: integrity="([^"]+)")?')


def test_the_page_refers_to_its_files_by_hash_and_integrity() -> None:
    assets = load()
    page = assets.page.decode()
    assert "{{" not in page
    found = {url: integrity for url, integrity in REFERENCE.findall(page) if url.startswith(f"{FOLDER}/")}
    assert {url.removeprefix(f"{FOLDER}/") for url in found} == set(assets.by_name)
    for url, integrity in found.items():
        asset = assets.by_name[url.removeprefix(f"{FOLDER}/")]
        digest = base64.b64encode(hashlib.sha384(asset.content).digest()).decode()
        assert integrity == ("" if asset.name.endswith(".svg") else f"sha384-{digest}")
        assert hashlib.sha256(asset.content).hexdigest()[:12] in asset.name


def test_every_reference_is_relative_and_nothing_is_inline() -> None:
    page = load().page.decode()
    assert [url for url, _ in REFERENCE.findall(page) if re.match(r"/|\w+:", url)] == []
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_modules_import_each_other_by_their_hashed_names() -> None:
    assets = load()
    imported = {name for a in assets.by_name.values() for name in re.findall(rb'from "\./([^"]+)"', a.content)}
    assert imported
    assert {name.decode() for name in imported} <= set(assets.by_name)


def test_every_file_of_the_folder_is_served() -> None:
    assert {path.name for path in STATIC.iterdir()} == {*ORDER, "index.html"}


def test_a_changed_file_changes_its_name_those_that_refer_to_it_and_the_version(tmp_path: Path) -> None:
    shutil.copytree(str(STATIC), tmp_path / "static")
    with (tmp_path / "static" / "format.js").open("a") as file:
        file.write("// changed\n")
    before, after = load(), load(tmp_path / "static")
    changed = {name.split(".")[0] for name in set(after.by_name) - set(before.by_name)}
    assert changed == {"format", "plots", "list", "failures", "detail", "main"}
    assert before.version != after.version


@pytest.mark.parametrize(
    ("path", "cache"), [("/", "no-cache"), (f"/{FOLDER}/{next(iter(load().by_name))}", "immutable")]
)
async def test_files_are_kept_for_ever_and_the_page_is_asked_for_again(path: str, cache: str) -> None:
    transport = httpx.ASGITransport(create_app(FakeSource()))
    async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
        answer = await client.get(path)
        assert cache in answer.headers["cache-control"]
        policy = (await client.get("/")).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert (await client.get(f"/{FOLDER}/main.000000000000.js")).status_code == 404
