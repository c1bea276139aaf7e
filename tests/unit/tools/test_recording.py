"""The recording of the demo: from bytes of a terminal to an animated SVG."""

from __future__ import annotations

import re
import sys
from xml.etree import ElementTree as ET

from tools.recording import LAST_FRAME_SECONDS, ROWS, SPEED, Sample, frames, record
from tools.terminal import COLUMNS, Terminal
from tools.terminal_svg import Frame, Run, animation

HELLO = (Run(0, "hello", "green", bold=True),)
WORLD = (Run(3, "a < b", "default", bold=False),)
SVG = "{http://www.w3.org/2000/svg}"


def test_a_terminal_knows_colours_and_bold() -> None:
    terminal = Terminal()
    terminal.feed(b"\x1b[1;32mhello\x1b[0m   ")
    assert terminal.lines()[0] == HELLO
    assert not any(terminal.lines()[1:])


def test_a_terminal_begins_anew_after_a_full_screen_program() -> None:
    terminal = Terminal()
    terminal.feed(b"before\x1b[?1049hfull screen")
    assert terminal.text.split() == ["full", "screen"]
    terminal.feed(b"\x1b[?1049lafter")
    assert terminal.text.split() == ["after"]


def test_the_recording_begins_with_the_first_act_and_ends_with_the_program() -> None:
    program = """
import sys, time, tty
tty.setcbreak(0)
for text in ("starting", "ACT 1 of 1", "All acts are over"):
    print("\x1b[2J\x1b[H" + text, flush=True)
    time.sleep(1)
assert sys.stdin.read(1) == "q"
print("the account")
"""
    samples = record([sys.executable, "-c", program])
    first, last = ([run.text.strip() for line in sample.lines for run in line] for sample in (samples[0], samples[-1]))
    assert first == ["ACT 1 of 1"]
    assert last == ["All acts are over", "the account"]


def test_a_picture_that_stays_is_one_frame_with_all_its_time() -> None:
    samples = [Sample(0, ((),)), Sample(1, (HELLO,)), Sample(2, (HELLO,)), Sample(3, (WORLD,))]
    assert frames(samples) == [Frame((HELLO,), 2 / SPEED), Frame((WORLD,), LAST_FRAME_SECONDS)]


def test_the_picture_shows_each_frame_at_its_time_and_stores_equal_lines_once() -> None:
    text = animation([Frame((HELLO, WORLD), 1), Frame((HELLO, ()), 3)], COLUMNS, ROWS, "A title")
    picture = ET.fromstring(text)
    texts = [element.text for element in picture.iter(f"{SVG}text")]
    assert texts == ["hello", "a < b"]
    assert len(list(picture.iter(f"{SVG}use"))) == 3
    assert "animation: film 4s steps(1, end) infinite" in text
    assert re.findall(r"^([\d.]+%)", text, re.MULTILINE) == ["0.000%", "25.000%"]


def test_the_frame_in_the_middle_is_shown_where_nothing_moves() -> None:
    text = animation([Frame((HELLO,), 1), Frame((WORLD,), 1), Frame((HELLO,), 1)], COLUMNS, 1, "A title")
    height = float(ET.fromstring(text).attrib["viewBox"].split()[3])
    assert f'<g id="film" transform="translate(0 {-height:g})">' in text
    assert "#film { animation: none }" in text


def test_the_picture_needs_nothing_from_elsewhere() -> None:
    text = animation([Frame((HELLO,), 1)], COLUMNS, ROWS, "A title")
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert "<script" not in text
