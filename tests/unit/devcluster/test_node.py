"""The parts of the node that need no node: files, programs, comparisons, and why a machine cannot be one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from devcluster.node import processes, settings, traces
from devcluster.node.layout import GATEWAY, GATEWAY6, POD_CIDR, POD_CIDR6, SERVICE_CIDR, SERVICE_CIDR6, Layout
from devcluster.node.preflight import PACKAGES, CannotBeNode, check
from devcluster.packages import PackagesMissing, need

ROOT = Path(__file__).parents[3]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "node")
    for folder in (made.logs, made.pids):
        folder.mkdir(parents=True)
    return made


def test_every_file_of_the_node_is_in_its_folder(layout: Layout) -> None:
    config = tomllib.loads(settings.containerd(layout, Path("/usr/lib/cni")))
    assert Path(config["root"]).is_relative_to(layout.folder)
    assert Path(config["state"]).is_relative_to(layout.folder)
    network = json.loads(settings.network(layout, dual_stack=True))
    assert network["plugins"][0]["ipam"]["dataDir"].startswith(str(layout.folder))
    kubelet = yaml.safe_load(settings.kubelet(layout, 1, 2))
    assert kubelet["containerRuntimeEndpoint"] == f"unix://{layout.socket}"
    assert kubelet["podLogsDir"].startswith(str(layout.folder))


def test_what_authorises_everyone_listens_on_the_bridge_only(layout: Layout) -> None:
    kubelet = yaml.safe_load(settings.kubelet(layout, 1, 2))
    assert (kubelet["authorization"]["mode"], kubelet["address"]) == ("AlwaysAllow", GATEWAY)
    assert f"bind {GATEWAY}" in settings.corefile(layout)


def test_pods_and_services_have_networks_of_their_own() -> None:
    assert POD_CIDR.split(".")[:2] != SERVICE_CIDR.split(".")[:2]
    assert GATEWAY.split(".")[:2] == POD_CIDR.split(".")[:2]


def test_pods_have_addresses_of_both_families_where_the_machine_has(layout: Layout) -> None:
    for dual_stack, pods in ((True, [POD_CIDR, POD_CIDR6]), (False, [POD_CIDR])):
        addresses = json.loads(settings.network(layout, dual_stack=dual_stack))["plugins"][0]["ipam"]
        assert [family["subnet"] for (family,) in addresses["ranges"]] == pods
        assert len(addresses["routes"]) == len(pods)
        proxy = yaml.safe_load(settings.kube_proxy(layout, 1, 2, dual_stack=dual_stack))
        assert proxy["clusterCIDR"].split(",") == pods
    assert ip_address(GATEWAY6) in ip_network(POD_CIDR6)
    assert not ip_network(POD_CIDR6).overlaps(ip_network(SERVICE_CIDR6))


def test_a_program_outlives_its_starter_and_is_ended_by_its_pid_file(layout: Layout) -> None:
    code = (
        "from pathlib import Path; from devcluster.node import processes; from devcluster.node.layout import Layout; "
        f"processes.start(Layout(Path({str(layout.folder)!r})), 'sleeper', ['sleep', '60'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert processes.running(layout, "sleeper")
    processes.end(layout, "sleeper")
    assert not processes.running(layout, "sleeper")
    assert list(layout.pids.iterdir()) == []


def test_a_pid_that_another_process_has_now_is_left_alone(layout: Layout) -> None:
    (layout.pids / "sleeper").write_text(f"{os.getpid()} 1")
    processes.end(layout, "sleeper")  # would end this test


def test_a_program_that_does_not_end_is_killed(layout: Layout) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    processes.start(layout, "stubborn", [sys.executable, "-c", stubborn])
    while not (layout.logs / "stubborn.log").read_text():
        assert processes.running(layout, "stubborn")
    processes.end(layout, "stubborn", patience=0.5)
    assert not processes.running(layout, "stubborn")


@pytest.mark.parametrize("part", ["", "0", "0" * 63, "/", "pod" + "0" * 64])
def test_only_a_whole_id_of_a_container_names_processes(part: str) -> None:
    """They are killed: an empty id would mean every process of the machine."""
    with pytest.raises(ValueError, match="not the id of a container"):
        processes.of_container(part)
    assert processes.of_container("0" * 64) == []


def test_a_program_without_a_pid_file_is_found_by_its_name_and_the_node_folder(layout: Layout) -> None:
    sleeper = shutil.copy("/bin/sleep", layout.folder / "kubelet")
    stray = subprocess.Popen([str(sleeper), "60"])
    try:
        await_command_line(stray.pid, str(sleeper))
        assert processes.strays(layout, ["etcd"]) == []
        assert processes.strays(layout, ["etcd", "kubelet"]) == [stray.pid]
    finally:
        stray.kill()
        stray.wait()


def await_command_line(pid: int, start: str) -> None:
    """Until then the child has the command line of its parent."""
    while not Path(f"/proc/{pid}/cmdline").read_text().startswith(start):
        pass


def test_ctrl_c_while_a_node_is_taken_down_stops_neither_us_nor_our_commands() -> None:
    """It is sent to a whole process group, as a terminal does it."""
    code = (
        "import os, signal, subprocess; from devcluster.interrupts import uninterrupted\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in a shell's background ignores it
        "with uninterrupted():\n"
        "    command = subprocess.Popen(['sh', '-c', 'read line; echo done'], stdin=subprocess.PIPE)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    command.communicate(b'go\\n')\n"
        "try:\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    signal.pause()\n"
        "except KeyboardInterrupt:\n"
        "    print('and then as usual')\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, cwd=ROOT, start_new_session=True, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.stdout, ended.returncode) == ("done\nand then as usual\n", 0), ended.stderr


def test_a_node_is_abandoned_when_the_process_that_made_it_has_ended(layout: Layout) -> None:
    assert not processes.abandoned(layout), "a node that is kept has no owner"
    processes.record_owner(layout)
    assert not processes.abandoned(layout)
    ended = subprocess.Popen(["true"])
    ended.wait()
    (layout.pids / processes.OWNER).write_text(f"{ended.pid} 1")
    assert processes.abandoned(layout)


def test_traces_name_what_is_new_and_what_is_missing() -> None:
    before = {"mounts": ["/a", "/b"], "sysctls": ["vm/panic_on_oom=0"]}
    after = {"mounts": ["/a", "/c"], "sysctls": ["vm/panic_on_oom=0"]}
    assert traces.differences(before, before) == []
    assert traces.differences(before, after) == ["mounts: left /c", "mounts: missing /b"]


def test_this_machine_is_as_it_was_when_nothing_happened(layout: Layout) -> None:
    captured = traces.capture(layout)
    assert captured["interfaces"]
    traces.save(layout, captured)
    assert traces.load(layout) == captured
    assert traces.load(Layout(layout.folder / "nowhere")) is None


def test_a_machine_that_cannot_be_a_node_says_why_in_one_sentence(layout: Layout) -> None:
    with pytest.raises(CannotBeNode, match=r"^a node needs root: [^.]+$"):
        check(layout, user=1000)


def test_a_package_that_cannot_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PackagesMissing, match=r"apt-get install .*containerd.*nftables"):
        need(PACKAGES)
