"""The page of ``replay --timeline``, looked at in a real browser."""

import re

import pytest

from greenfilter._commands.record.result import Request, Result
from greenfilter._commands.record.timeline import page

HOSTILE = (
    "</script><script>document.title='hacked'</script>",
    "<img src=x onerror=\"document.title='hacked'\">",
    "<!--<script>",
    "{{script}} {{data}} ' \" & \\ \u2028 \u202e \x00 \x1b[2J",
)
KINDS = ["proceed", "junk", "rewrite", "reject", "disconnect", "report", "message", "none"]
SHIFT, CONTROL = "\ue008", "\ue009"
RIGHT, DOWN = "\ue014", "\ue015"


def request(number, phase="ehlo", began=0.0, ended=0.1, **fields):
    values = {"parameter": b"", "asked": 1000.0 + began, "answered": 1000.05 + began}
    values |= {"recorded": b"proceed", "decision": b"proceed"} | fields
    session = f"{number:016x}"
    return Request(
        session,
        f"client{number}.example 192.0.2.1:{number}",
        phase,
        values.pop("parameter"),
        values.pop("asked"),
        began,
        ended=ended,
        **values,
    )


def result(*requests):
    changed = [request for request in requests if request.changed]
    sessions = len({request.session_id for request in requests})
    return Result(sessions, len(requests), 0, differences=changed, timeline=list(requests))


FIVE = result(
    request(1, "connect", 0.0, 0.2),
    request(1, "ehlo", 0.2, 0.4, parameter=b"one.example"),
    request(1, "mail-from", 0.4, 0.9, decision=b"reject|550 5.7.1 no", parameter=b"<spam@x>"),
    request(2, "connect", 0.5, 0.6, decision=b"disconnect|550 bye", recorded=b"disconnect|550 bye"),
    request(3, "ehlo", 1.0, 1.5, decision=b"rewrite|x", recorded=b"rewrite|x"),
    request(
        3,
        "data-line",
        1.5,
        1.7,
        recorded=b"the same message",
        decision=b"the same message",
        lines=42,
    ),
    request(4, "rcpt-to", 2.0, 2.2, decision=b"junk", recorded=b"junk"),
    request(5, "commit", 3.0, None, decision=None, recorded=b"report|x", asked=None, answered=None),
)


@pytest.fixture
def show(tmp_path):
    def show(browser, result, target="guard.py"):
        file = tmp_path / "timeline.html"
        file.write_text(page(result, target))
        browser.open(file.as_uri())
        return browser

    return show


def place(browser, session, number):
    found = browser.settled(f"return timeline.place('{session:016x}', {number})")
    return found["x"], found["y"]


def pixel(browser, x, y):
    """The colour of a pixel of the canvas."""
    data = browser.settled(
        "const canvas = document.getElementById('canvas');"
        "const place = canvas.getBoundingClientRect();"
        f"return [...canvas.getContext('2d').getImageData({x} - place.left, {y} - place.top, 1, 1)"
        ".data]"
    )
    return tuple(data[:3])


def colours(browser):
    texts = browser.run(
        "const style = getComputedStyle(document.documentElement);"
        "return ['ground', 'band', 'text', 'dim', 'mark', "
        + ", ".join(f"'{kind}'" for kind in KINDS)
        + "].map((name) => [name, style.getPropertyValue('--' + name).trim()])"
    )
    return {name: tuple(bytes.fromhex(text[1:])) for name, text in texts}


def luminance(colour):
    """WCAG 2.2, "relative luminance"."""
    parts = [part / 255 for part in colour]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def details(browser):
    """The text of the box beside the mouse, "" if it is not shown."""
    return browser.settled(
        "const box = document.getElementById('details'); return box.hidden ? '' : box.innerText"
    )


def test_the_page_needs_nothing_from_outside_and_has_no_error(chromium, show, tmp_path):
    chromium.messages()
    show(chromium, FIVE)
    assert chromium.run("return performance.getEntriesByType('resource').length") == 0
    assert chromium.messages() == []
    text = (tmp_path / "timeline.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=|https?:|@import|url\(""", text)
    assert chromium.run("return document.title") == "Timeline of guard.py"


@pytest.mark.parametrize("browser", ["chromium", "dark_chromium"])
def test_a_bar_has_the_colour_of_its_decision(browser, show, request):
    browser = show(request.getfixturevalue(browser), FIVE)
    expected = [
        (1, 0, "proceed"),
        (1, 2, "reject"),
        (2, 0, "disconnect"),
        (3, 0, "rewrite"),
        (3, 1, "message"),
        (4, 0, "junk"),
        (5, 0, "none"),
    ]
    palette = colours(browser)
    for session, number, kind in expected:
        x, y = place(browser, session, number)
        # Below the words in a wide bar.
        assert pixel(browser, round(x), round(y) + 6) == palette[kind], kind


@pytest.mark.parametrize("browser", ["chromium", "dark_chromium"])
def test_colours_can_be_told_from_the_ground_and_texts_can_be_read(browser, show, request):
    palette = colours(show(request.getfixturevalue(browser), FIVE))
    assert (luminance(palette["ground"]) < 0.5) == (browser == "dark_chromium")
    for ground in ("ground", "band"):
        for kind in [*KINDS, "mark"]:
            assert contrast(palette[kind], palette[ground]) >= 3, (kind, ground)
        for text in ("text", "dim"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for kind in KINDS:
        assert contrast(palette[kind], palette["ground"]) >= 4, f"words in a bar: {kind}"
    assert len({palette[kind] for kind in KINDS}) == len(KINDS)


def test_a_bar_goes_from_question_to_answer(chromium, show):
    show(chromium, FIVE)
    first, second = (place(chromium, 1, number)[0] for number in (0, 1))
    third = place(chromium, 1, 2)[0]
    # Their middles: 0.1 s, 0.3 s and 0.65 s.
    assert (third - second) / (second - first) == pytest.approx(1.75, rel=0.05)


def test_hovering_over_a_bar_shows_its_details(chromium, show):
    show(chromium, FIVE)
    chromium.move(*place(chromium, 1, 2))
    text = details(chromium)
    for part in (
        "mail-from <spam@x> (changed)",
        "0000000000000001",
        "client1.example 192.0.2.1:1",
        "reject|550 5.7.1 no",
        "proceed",
        "500.0 ms",
        "1970-01-01T00:16:40.400Z",
    ):
        assert part in text
    chromium.move(*place(chromium, 3, 1))
    assert "42" in details(chromium)
    x, y = place(chromium, 2, 0)
    chromium.move(x - 60, y)
    assert details(chromium) == ""


def search(browser, words):
    browser.run(
        f"const box = document.getElementById('search'); box.value = {words!r};"
        "box.dispatchEvent(new Event('input'))"
    )
    return [int(session, 16) for session in browser.settled("return timeline.shown")]


def test_the_search_box_finds_sessions_by_client_parameter_and_decision(chromium, show):
    show(chromium, FIVE)
    box = chromium.run("return document.getElementById('search').getBoundingClientRect()")
    chromium.click(box["x"] + 10, box["y"] + 10)
    chromium.press(*"SPAM@")
    assert chromium.settled("return timeline.shown") == ["0000000000000001"]
    assert chromium.run("return document.getElementById('count').textContent") == "1 of 5 sessions"
    assert search(chromium, "client3.") == [3]
    assert search(chromium, "rewrite|x") == [3]
    assert search(chromium, "disconnect") == [2]
    assert search(chromium, "client spam@x") == [1]
    assert search(chromium, "nothing like this") == []
    assert search(chromium, "") == [1, 2, 3, 4, 5]


def test_only_changed_sessions_can_be_shown(chromium, show):
    show(chromium, FIVE)
    chromium.run("document.getElementById('changed').click()")
    assert chromium.settled("return timeline.shown") == ["0000000000000001"]


def span(browser):
    view = browser.settled("return timeline.view")
    return view["to"] - view["from"]


def test_zoom_by_buttons_wheel_and_keys(chromium, show):
    show(chromium, FIVE)
    whole = span(chromium)
    chromium.run("document.getElementById('zoom-in').click()")
    assert span(chromium) == pytest.approx(whole / 2)
    chromium.run("document.getElementById('zoom-out').click()")
    assert span(chromium) == pytest.approx(whole)
    x, y = place(chromium, 1, 2)
    chromium.wheel(x, y, -400, CONTROL)
    assert span(chromium) < whole * 0.6
    # What is under the mouse stays there.
    assert place(chromium, 1, 2)[0] == pytest.approx(x, abs=2)
    chromium.run("document.getElementById('scroll').focus()")
    chromium.press("0")
    assert span(chromium) == pytest.approx(whole)
    chromium.press("+", "+", "-")
    assert span(chromium) == pytest.approx(whole / 2)


def test_pan_by_dragging_and_by_the_wheel_with_shift(chromium, show):
    show(chromium, FIVE)
    x, y = place(chromium, 1, 2)
    chromium.drag(x, y, 120)
    assert place(chromium, 1, 2)[0] == pytest.approx(x + 120, abs=1)
    chromium.wheel(x, y, 120, SHIFT)
    assert place(chromium, 1, 2)[0] == pytest.approx(x, abs=2)


def test_a_click_on_a_sessions_name_zooms_to_it(chromium, show):
    show(chromium, FIVE)
    _, y = place(chromium, 4, 0)
    chromium.click(40, y)
    view = chromium.settled("return timeline.view")
    assert 1.9 < view["from"] < 2.0
    assert 2.2 < view["to"] < 2.3


def test_arrow_keys_go_from_request_to_request(chromium, show):
    show(chromium, FIVE)
    chromium.run("document.getElementById('scroll').focus()")
    chromium.press(RIGHT)
    assert details(chromium).startswith("connect")
    chromium.press(RIGHT)
    assert details(chromium).startswith("ehlo one.example")
    chromium.press(DOWN, DOWN)
    assert "client3.example" in details(chromium)


def test_the_times_of_the_recording_can_be_shown_instead(chromium, show):
    show(chromium, FIVE)
    chromium.run(
        "const times = document.getElementById('times'); times.value = 'recorded';"
        "times.dispatchEvent(new Event('change'))"
    )
    view = chromium.settled("return timeline.view")
    assert 999 < view["from"] < 1000
    assert 1002 < view["to"] < 1003
    x, y = place(chromium, 1, 2)
    # Refused in the replay, not in the recording.
    assert pixel(chromium, round(x), round(y) + 6) == colours(chromium)["proceed"]


def test_hostile_text_is_text(chromium, show):
    chromium.messages()
    requests = [
        request(number, parameter=text.encode(), decision=f"reject|550 {text}".encode())
        for number, text in enumerate(HOSTILE, 1)
    ]
    for hostile in requests:
        hostile.client = hostile.parameter.decode()
    show(chromium, result(*requests), target=HOSTILE[0])
    assert chromium.run("return document.title") == f"Timeline of {HOSTILE[0]}"
    assert len(chromium.settled("return timeline.shown")) == len(HOSTILE)
    assert chromium.run("return document.scripts.length") == 2
    assert chromium.run("return document.images.length") == 0
    for number, text in enumerate(HOSTILE[:3], 1):
        chromium.move(*place(chromium, number, 0))
        assert f"ehlo {text}" in details(chromium)
    chromium.move(*place(chromium, 4, 0))
    assert r"\u2028 \u202e \x00 \x1b[2J" in details(chromium)
    assert chromium.run("return document.images.length") == 0
    assert chromium.messages() == []


def test_scripts_that_are_not_the_pages_own_do_not_run(chromium, show):
    show(chromium, FIVE)
    chromium.run(
        "const script = document.createElement('script');"
        "script.textContent = 'document.title = \"hacked\"'; document.body.append(script)"
    )
    assert chromium.run("return document.title") == "Timeline of guard.py"
    assert any("Content Security Policy" in message for message in chromium.messages())


def test_ten_thousand_sessions_can_be_scrolled_searched_and_zoomed(chromium, show):
    requests = [
        request(number, phase, number / 100 + index / 1000, number / 100 + index / 1000 + 0.001)
        for number in range(1, 10_001)
        for index, phase in enumerate(("connect", "ehlo", "mail-from", "rcpt-to", "data", "quit"))
    ]
    show(chromium, result(*requests))
    assert chromium.run("return document.getElementById('canvas').height") < 2000
    assert chromium.run("return document.querySelectorAll('*').length") < 100
    chromium.run("document.getElementById('scroll').scrollTop = 1e9")
    x, y = place(chromium, 10_000, 5)
    assert pixel(chromium, round(x), round(y)) == colours(chromium)["proceed"]
    assert search(chromium, "client777.example") == [777]
    search(chromium, "")
    chromium.run("for (let n = 0; n < 20; n++) document.getElementById('zoom-in').click();")
    assert span(chromium) < 1
