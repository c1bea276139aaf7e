"""The screen, drawn from a view: pure functions from values to lines of text."""

from __future__ import annotations

import locale
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from demo.show.show import Outcome, Performance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from demo.show.facts import Executor, Pod
    from demo.show.show import Show
    from demo.show.view import View

KEYS = {"e": "executor", "r": "router", "d": "Redis", "u": "queue"}
"""The part that the key of an act breaks."""
MAX_TILES = 10
LINES_BESIDE_PODS = 16
INDENT = "  "


@dataclass(frozen=True, slots=True)
class Symbols:
    """Each state has a shape of its own, so that colour only adds to it."""

    up: str = "●"
    down: str = "✕"
    leaving: str = "◐"
    busy: str = "█"
    free: str = "░"
    healed: str = "✔"
    given_up: str = "▲"
    running: str = "▶"
    waiting: str = "·"
    arrow: str = "→"
    sparks: str = "▁▂▃▄▅▆▇█"


UNICODE = Symbols()
ASCII = Symbols("*", "x", "o", "#", ".", "+", "!", ">", "-", ">", "_.-~=+*#")


def symbols_for(encoding: str, environ: Mapping[str, str]) -> Symbols:
    """ASCII unless both the stream and the locale of the terminal are UTF-8; a locale that is not set does not matter.

    Python itself writes UTF-8 in the C locale, where the terminal may not be able to show it.
    """
    named = next((environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environ.get(name)), "")
    charset = locale.normalize(named).rpartition(".")[2] if named else "utf-8"
    unicode = all("utf8" in name.lower().replace("-", "") for name in (encoding, charset))
    return UNICODE if unicode else ASCII


def draw(view: View, width: int, height: int, symbols: Symbols) -> list[Text]:
    """The lines of the screen. Where it is low, empty lines go first, then the oldest acts."""
    head = [*_title(view, width), Text(), *_wrapped(_act(view.show, symbols), width), Text()]
    head += [*_counts(view, width, symbols), Text()]
    head += [
        _peers(view, symbols),
        _executors(view, symbols),
        Text(),
        *_pods(view, symbols, height - LINES_BESIDE_PODS),
    ]
    acts = [part for line in _acts(view.show, symbols) for part in _wrapped(line, width)]
    foot = [Text(), *(part for line in _foot(view) for part in _wrapped(line, width))]
    if len(head) + len(acts) + len(foot) > height:
        head, foot = [line for line in head if line.plain], foot[1:]
    room = max(1, height - len(head) - len(foot))
    if len(acts) > room:
        acts = acts[-room:]
    lines = [*head, *acts, *foot][:height]
    for line in lines:
        line.truncate(width, overflow="crop")
    return lines


def _wrapped(line: Text, width: int) -> list[Text]:
    """The line in parts that fit, the later ones indented. It breaks between two parts of it, else between words."""
    parts: list[Text] = []
    while line.cell_len > width:
        plain = line.plain
        between, word = plain.rfind("  ", 1, width + 2), plain.rfind(" ", 1, width + 1)
        at = between if between > width // 2 else word
        if at <= len(INDENT):
            break
        first, rest = line.divide([at])
        parts.append(first)
        spaces = len(rest.plain) - len(rest.plain.lstrip())
        line = Text(INDENT) + rest[spaces:]
    return [*parts, line]


def seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def sparkline(values: Iterable[float], symbols: Symbols, top: float) -> str:
    """One character a value, from zero to `top`."""
    last = len(symbols.sparks) - 1
    return "".join(
        symbols.sparks[min(last, round(value / top * last))] if top else symbols.sparks[0] for value in values
    )


def headline(show: Show) -> str:
    """A sentence about the act that is on, or about the wait for the next one."""
    performance = show.now_on
    if performance is not None:
        return f"{act_number(show, performance)}  {performance.act.title}"
    if show.ending:
        return "The end: waiting for the tasks that are under way"
    if show.paused:
        return "Paused: no act begins by itself; space goes on"
    if show.programme_is_over:
        return "All acts are over. Break something yourself, or press q for the account"
    if not show.has_begun:
        return "Everything starts: waiting until tasks are routed"
    return (
        "All is well; the next act begins soon" if show.performances else "Tasks are routed; the first act begins soon"
    )


def act_number(show: Show, performance: Performance) -> str:
    """Its place in the programme; an act that a person asked for has none."""
    if performance.act in show.acts:
        return f"ACT {show.acts.index(performance.act) + 1} of {len(show.acts)}"
    return "ACT"


def result(performance: Performance, symbols: Symbols) -> str:
    """The line of an act that has begun."""
    mark = {Outcome.RUNNING: symbols.running, Outcome.HEALED: symbols.healed, Outcome.GIVEN_UP: symbols.given_up}
    parts = [f"{mark[performance.outcome]} {_name(performance.act.name, symbols):<16}"]
    if performance.noticed is not None:
        parts.append(f"noticed {seconds(performance.noticed):>5}")
    if performance.ended is not None:
        healed = performance.outcome is Outcome.HEALED
        took = seconds(performance.ended)
        parts.append(f"healed {took:>5}" if healed else f"not healed in {took}")
    return "  ".join([*parts, performance.note]).rstrip()


def _title(view: View, width: int) -> list[Text]:
    name, address = "QueueWorker demo", view.address
    time = f"t = {view.show.seconds(view.facts.at):.0f} s"
    gap = " " * max(2, width - len(name) - len(address) - len(time) - 2)
    return [Text.assemble((name, "bold"), "  ", (address, "cyan"), gap, (time, "dim"))]


def _act(show: Show, symbols: Symbols) -> Text:
    on = show.now_on is not None
    mark = (symbols.running, "bold yellow") if on else (symbols.up, "bold green")
    return Text.assemble(mark, (f" {headline(show)}", "bold"))


def _counts(view: View, width: int, symbols: Symbols) -> list[Text]:
    facts, stored = view.facts, view.facts.stored
    counts = (
        f"submitted {facts.submitted:<6} stored {stored.total:<6} under way {facts.under_way:<5} "
        f"failed {stored.failed} ({stored.on_purpose} on purpose)"
    )
    lines = _wrapped(Text(counts), width)
    room = max(10, min(60, width - 20))
    rates = list(view.rates.values)[-room:]
    legacy = list(view.legacy_rates.values)[-room:]
    top = max(_usual_top(rates), _usual_top(legacy), 1.0)
    lines.append(_rate("ours", rates, sparkline(rates, symbols, top), "green"))
    if facts.legacy is not None:
        line = _rate("legacy", legacy, sparkline(legacy, symbols, top), "magenta")
        lines.append(line)
        lost = f"the legacy loop lost {facts.legacy.lost} of {facts.legacy.handed_out} tasks so far"
        lines.append(Text(lost, "bold red" if facts.legacy.lost else "dim"))
    return lines


def _usual_top(rates: Sequence[float]) -> float:
    """The rate that one in ten seconds exceeds: after an outage, all that waited is reported in one second."""
    return sorted(rates)[len(rates) * 9 // 10] if rates else 0.0


def _rate(name: str, rates: Sequence[float], spark: str, style: str) -> Text:
    return Text.assemble(f"{name:<7}{rates[-1] if rates else 0:3.0f}/s  ", (spark, style))


def _peers(view: View, symbols: Symbols) -> Text:
    line, router = Text(), view.facts.router
    for name in ("router", "queue", "Redis"):
        down = view.down(name)
        line.append(f"{name} ")
        if down is None:
            line.append(symbols.up, "green").append(" up")
        elif not view.show.has_begun:
            line.append(f"{symbols.waiting} starting", "dim")
        else:
            line.append(f"{symbols.down} {seconds(down)}", "bold red")
        line.append("   ")
    if router is not None and router.buffered:
        line.append(f"{router.buffered} events wait", "" if router.redis else "bold")
    return line


def _executors(view: View, symbols: Symbols) -> Text:
    line, router = Text("executors "), view.facts.router
    executors = sorted(router.executors, key=lambda e: e.number) if router else []
    for executor in executors[:MAX_TILES]:
        line.append_text(_tile(executor, symbols)).append("  ")
    if len(executors) > MAX_TILES:
        line.append(f"and {len(executors) - MAX_TILES} more")
    if executors:
        return line
    return line.append("unknown while no router answers" if view.show.has_begun else "starting", "dim")


def _pods(view: View, symbols: Symbols, room: int) -> list[Text]:
    """As `kubectl get pods` has them, followed by an empty line; nothing without a cluster."""
    pods, room = view.facts.pods, max(1, room)
    lines = [_pod(pod, symbols) for pod in pods[:room]]
    if len(pods) > room:
        lines.append(Text(f"and {len(pods) - room} more pods", "dim"))
    return [*lines, Text()] if lines else []


def _pod(pod: Pod, symbols: Symbols) -> Text:
    mark, style = (symbols.up, "green") if pod.ready else (symbols.waiting, "bold yellow")
    if pod.leaving:
        mark, style = symbols.leaving, "yellow"
    leads = "  leads" if pod.leads else ""
    return Text.assemble((mark, style), f" {pod.name:<40} {pod.status:<18} {seconds(pod.age):>6}{leads}")


def _foot(view: View) -> list[Text]:
    asked = [f"{act.key} {KEYS[act.key]}" for act in view.show.acts if act.key in KEYS]
    keys = Text("  ".join([*asked, "+ - pool", "space pause", "q end"]), "dim")
    return [Text(view.hint, "cyan"), keys] if view.hint else [keys]


def _tile(executor: Executor, symbols: Symbols) -> Text:
    busy = min(executor.in_flight, executor.capacity)
    slots = symbols.busy * busy + symbols.free * (executor.capacity - busy)
    if executor.leaving:
        return Text.assemble(f"{executor.number} ", (f"{symbols.leaving} {slots}", "yellow"))
    mark, style = (symbols.up, "green") if executor.healthy else (symbols.down, "bold red")
    return Text.assemble(f"{executor.number} ", (f"{mark} {slots}", style))


def _acts(show: Show, symbols: Symbols) -> list[Text]:
    """Only the marks are coloured: yellow text can hardly be read on a light background."""
    styles = {Outcome.RUNNING: "bold yellow", Outcome.HEALED: "green", Outcome.GIVEN_UP: "bold red"}
    bold = {Outcome.RUNNING: "bold", Outcome.HEALED: "", Outcome.GIVEN_UP: "bold"}
    begun = []
    for performance in show.performances:
        line = Text(result(performance, symbols), bold[performance.outcome])
        line.stylize(styles[performance.outcome], 0, 1)
        begun.append(line)
    to_come = [Text(f"{symbols.waiting} {_name(act.name, symbols)}", "dim") for act in show.to_come]
    return begun + to_come


def _name(name: str, symbols: Symbols) -> str:
    return name.replace(">", symbols.arrow)
