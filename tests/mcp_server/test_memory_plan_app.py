"""The memory plan's page in a real browser, against the real server, in a host that these tests are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from chromium import Browser, missing
from mcp import Client
from mcp.client.extension import advertise
from mcp.server.apps import APP_MIME_TYPE, EXTENSION_ID

from compute_awareness.mcp_server.app import PLAN, page
from compute_awareness.picture import PARTS
from compute_awareness.units import GIB, KIB, MIB, gib

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

TOOL = "preflight_experiment"
CACHE = {"task": "activation_cache", "model": "pythia-2.8b", "batch_size": 4, "seq_len": 1024, "gpu": "RTX 4090"}
ALL = {"serverTools": {}, "updateModelContext": {"text": {}}, "message": {"text": {}}}
# What the ext-apps specification (2026-01-26) has a host send where a resource asks for nothing.
CSP = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; media-src 'self' data:; connect-src 'none'"
)
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}


class Server:
    """The server itself, as a host that shows apps and forms reaches it."""

    def __init__(self, portal: Any, client: Client) -> None:
        self._portal, self._client = portal, client

    def call(self, arguments: dict[str, Any]) -> dict[str, Any]:
        result = self._portal.call(self._client.call_tool, TOOL, arguments)
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)


async def no_form(*_: Any) -> Any:
    raise AssertionError("the picture's call showed the user a form")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    from compute_awareness.mcp_server.server import build_server

    shows = advertise(EXTENSION_ID, {"mimeTypes": [APP_MIME_TYPE]})
    client = Client(build_server(), extensions=[shows], elicitation_callback=no_form)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(client) as connected:
        yield Server(portal, connected)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    tab = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        tab.ask("Page.enable")
        tab.ask("Network.enable")
        tab.ask("Runtime.enable")
        tab.ask("Runtime.addBinding", name="to_host")
        tab.ask("Emulation.setDeviceMetricsOverride", width=800, height=1200, deviceScaleFactor=1, mobile=False)
        yield tab
    finally:
        tab.close()


class Host:
    """One conversation: the page of a call, what it asked for, and the answers of the server."""

    def __init__(self, browser: Browser, server: Server, capabilities: dict[str, Any], theme: str) -> None:
        self.browser, self.server = browser, server
        self.capabilities, self.theme = capabilities, theme
        self.calls: list[dict[str, Any]] = []
        self.heard: list[dict[str, Any]] = []
        self.loaded: list[str] = []
        self.held: list[dict[str, Any]] | None = None
        """Calls not answered yet, where a test answers them itself."""
        self._contexts: dict[str, int] = {}

    def _listen(self) -> None:
        self.browser.on = {
            "Runtime.bindingCalled": lambda params: self._hear(json.loads(params["payload"])),
            "Runtime.executionContextCreated": lambda params: self._context(params["context"]),
            "Network.requestWillBeSent": lambda params: self.loaded.append(params["request"]["url"]),
        }

    def _context(self, context: dict[str, Any]) -> None:
        if context["auxData"].get("isDefault"):
            self._contexts[context["auxData"]["frameId"]] = context["id"]

    def open(self, html: str) -> None:
        # A new host page for each: nothing of the test before is left.
        where = (Path(__file__).parent / "app_host.html").as_uri()
        loaded: list[Any] = []
        self.browser.on = {"Page.loadEventFired": loaded.append}  # what the page before still says is for nobody
        self.browser.ask("Page.navigate", url=where)
        self.browser.until(lambda: loaded, "the host's page")
        self._listen()
        guarded = html.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{CSP}">', 1)
        self.browser.evaluate(f"open_app({json.dumps(guarded)})")
        self.wait(lambda: self.said("ui/notifications/initialized"), "the page to be ready")
        (frame,) = self.browser.ask("Page.getFrameTree")["frameTree"]["childFrames"]
        self.frame = frame["frame"]["id"]

    def _hear(self, message: dict[str, Any]) -> None:
        self.heard.append(message)
        if "id" not in message or "method" not in message:
            return
        if message["method"] == "ui/initialize":
            context = {"theme": self.theme, "displayMode": "inline", "containerDimensions": {"maxHeight": 1200}}
            self.answer(message, {
                "protocolVersion": "2026-01-26", "hostInfo": {"name": "tests", "version": "1"},
                "hostCapabilities": self.capabilities, "hostContext": context,
            })  # fmt: skip
        elif message["method"] == "tools/call":
            assert message["params"]["name"] == TOOL
            self.calls.append(message["params"]["arguments"])
            if self.held is None:
                self.answer(message, self.server.call(message["params"]["arguments"]))
            else:
                self.held.append(message)
        else:
            assert message["method"] in ("ui/update-model-context", "ui/message"), message
            self.answer(message, {})

    def answer(self, request: dict[str, Any], result: dict[str, Any]) -> None:
        self.send({"id": request["id"], "result": result})

    def send(self, message: dict[str, Any]) -> None:
        self.browser.evaluate(f"to_app({json.dumps({'jsonrpc': '2.0', **message})})")

    def notify(self, method: str, params: dict[str, Any]) -> None:
        self.send({"method": f"ui/notifications/{method}", "params": params})

    def show(self, arguments: dict[str, Any], **change: Any) -> dict[str, Any]:
        """The call that the assistant made, and its result with `change`; the plan in it."""
        result = self.server.call(arguments | {"show_form": False}) | change
        assert not result["isError"], result["content"]
        self.notify("tool-input", {"arguments": arguments})
        self.notify("tool-result", result)
        self.settled()
        return result.get("_meta", {}).get(PLAN, {})

    def said(self, method: str) -> list[dict[str, Any]]:
        return [message.get("params", {}) for message in self.heard if message.get("method") == method]

    def wait(self, done: Any, what: str) -> None:
        def heard() -> Any:
            return done() or (self.browser.evaluate("new Promise((r) => setTimeout(r, 20, 0))") and False)

        for _ in range(1500):  # 30 s
            if heard():
                return
        raise AssertionError(f"waited in vain: {what}")

    def settled(self) -> None:
        self.wait(lambda: self.page("at('plan').getAttribute('aria-busy')") == "false", "the page to settle")

    def called(self, count: int) -> dict[str, Any]:
        """The arguments of the last call, when there were `count` and the page has their answer."""
        self.wait(lambda: len(self.calls) >= count, f"{count} calls")
        self.settled()
        # What would come of a second call for the same move would come now: a debounce is a quarter of a second.
        self.browser.evaluate("new Promise((r) => setTimeout(r, 400, 0))")
        assert len(self.calls) == count
        return self.calls[-1]

    def hold_time(self) -> None:
        """The page's timers stand still: how fast keys are pressed plays no part."""
        self.page("""{
            window.kept = new Map(); window.real = [setTimeout, clearTimeout]; let last = 0;
            window.setTimeout = (run) => { kept.set(++last, run); return last };
            window.clearTimeout = (one) => kept.delete(one) }""")

    def let_time_go_on(self) -> int:
        """How many timers were set and not taken back; they run now."""
        return self.page("""(() => {
            [window.setTimeout, window.clearTimeout] = window.real;
            for (const run of kept.values()) run();
            return kept.size })()""")

    def page(self, code: str) -> Any:
        return self.browser.evaluate(code, self._contexts[self.frame])

    def text(self, selector: str) -> str:
        return self.page(f"document.querySelector({selector!r}).textContent")

    def click(self, selector: str) -> None:
        code = f"""(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: "nearest"}});
            const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] }})()"""
        self.browser.click(*self.page(code))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.browser.press(key, KEYS[key])

    def focused(self) -> str:
        return self.page(
            "(document.activeElement.id || document.activeElement.value || document.activeElement.textContent)"
        )

    def tab_to(self, name: str) -> None:
        """Goes on by the Tab key until what is focused has this id, value or beginning of its text."""
        for _ in range(25):
            self.press("Tab")
            if self.focused().startswith(name):
                return
        raise AssertionError(f"the keyboard does not come to {name}")

    def rows(self) -> list[list[str]]:
        """The table as read: part and memory."""
        code = "[...at('parts').rows].map((r) => [r.cells[0].lastChild.textContent, r.cells[1].textContent])"
        return self.page(code)

    def bar(self) -> dict[str, float]:
        code = "[...document.querySelectorAll('.part')].map((p) => [p.dataset.part, +p.getAttribute('width')])"
        return dict(self.page(code))


@pytest.fixture
def host(browser: Browser, server: Server) -> Host:
    opened = Host(browser, server, ALL, "light")
    opened.open(page())
    return opened


def test_it_draws_what_the_tool_said_and_loads_nothing(host: Host) -> None:
    plan = host.show(CACHE)
    assert plan["status"] == "does_not_fit" and len(plan["parts"]) >= 4
    assert host.rows() == [[name, gib(size)] for name, size in plan["parts"]]
    whole, across = max(plan["needed"], plan["room"]), 800 - 2 * 12 - 2 * 4
    assert host.bar() == pytest.approx({name: size / whole * across for name, size in plan["parts"]})
    line = float(host.page("document.querySelector('.free').getAttribute('x1')"))
    assert line == pytest.approx(4 + plan["free"] / whole * across)
    assert host.text("#verdict") == f"Does not fit. {plan['why']}"
    assert host.text("#title") == "activation_cache of pythia-2.8b"
    assert [url for url in host.loaded if not url.startswith(("file:", "about:"))] == []
    assert host.calls == [], "drawing needs no call"
    sizes = host.said("ui/notifications/size-changed")
    assert sizes and sizes[-1]["height"] == host.page("Math.ceil(document.body.getBoundingClientRect().height)")


def test_a_slider_moved_is_one_call_and_a_new_picture(host: Host) -> None:
    host.show(CACHE)
    host.page("at('size-batch_size').focus()")
    host.hold_time()
    host.press("ArrowLeft", "ArrowLeft")  # 4, 2, 1: one call when the hand rests
    assert host.page("document.querySelector('#row-batch_size output').value") == "1" and host.calls == []
    assert host.let_time_go_on() == 1
    asked = host.called(1)
    assert asked == CACHE | {"batch_size": 1, "show_form": False}
    plan = host.server.call(asked)["_meta"][PLAN]
    assert host.rows() == [[name, gib(size)] for name, size in plan["parts"]]
    assert host.page("at('size-batch_size').getAttribute('aria-valuetext')") == "1"
    assert host.focused() == "size-batch_size", "the focus stays on the slider"
    (context,) = host.said("ui/update-model-context")
    assert "batch_size 1" in context["content"][0]["text"]
    host.press("End")
    assert host.called(2)["batch_size"] == 1024


def test_a_slider_is_dragged_with_the_mouse(host: Host) -> None:
    host.show(CACHE)
    box = host.page(
        "(() => { const b = at('size-seq_len').getBoundingClientRect(); return [b.x, b.y, b.width, b.height] })()"
    )
    host.browser.click(box[0] + 10, box[1] + box[3] / 2)
    assert host.called(1)["seq_len"] == 1


def test_dtype_by_the_keyboard(host: Host) -> None:
    host.show(CACHE)
    host.tab_to("float32")
    host.press("ArrowRight")
    asked = host.called(1)
    assert asked["dtype"] == "bfloat16"
    assert host.page("document.querySelector('input[name=dtype]:checked').value") == "bfloat16"
    assert host.rows() == [[n, gib(size)] for n, size in host.server.call(asked)["_meta"][PLAN]["parts"]]


def test_a_fix_is_one_click_and_can_be_taken_back_and_used(host: Host) -> None:
    plan = host.show(CACHE)
    first = plan["changes"][0]
    assert first["fits"] is True
    titles = host.page("[...document.querySelectorAll('#changes button')].map((b) => b.firstChild.textContent)")
    assert titles == [change["title"] for change in plan["changes"]]
    assert gib(first["peak_after"]) in host.text("#changes button small")
    before = host.rows()
    host.click("#changes button")
    assert host.called(1) == CACHE | first["patch"] | {"show_form": False}
    assert host.text("#verdict").startswith("Fits")
    host.click("#use")
    host.wait(lambda: host.said("ui/message"), "the message")
    (message,) = host.said("ui/message")
    assert message["role"] == "user" and "names_filter" in message["content"][0]["text"]
    host.click("#back")
    assert host.rows() == before and host.text("#verdict").startswith("Does not fit")
    assert len(host.calls) == 1 and host.page("at('back').hidden && at('use').hidden")


def test_all_of_it_is_reached_and_used_by_the_keyboard_alone(host: Host) -> None:
    host.show(CACHE)
    for name in ("size-batch_size", "size-seq_len", "float32", "cache only the residual stream"):
        host.tab_to(name)
    host.press("Enter")
    assert host.called(1)["names_filter"] == ["*hook_resid_post"]
    assert host.focused() == "title", "the focus is not lost with the button that was pressed"
    host.tab_to("back")
    host.press(" ")
    host.wait(lambda: host.text("#verdict").startswith("Does not fit"), "the first setting")


def test_a_screen_reader_is_told_all_of_it(host: Host) -> None:
    plan = host.show(CACHE)
    nodes = host.browser.ask("Accessibility.getFullAXTree", frameId=host.frame)["nodes"]
    seen = [
        (node["role"]["value"], node.get("name", {}).get("value", ""), node.get("description", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    told = {(role, name) for role, name, _ in seen}
    described = next(
        name + said for role, name, said in seen if role in ("image", "img") and "Memory at the peak" in name
    )
    assert all(f"{name} {gib(size)}" in described for name, size in plan["parts"])
    assert {("slider", "batch size"), ("slider", "sequence length"), ("radiogroup", "dtype")} <= told
    assert {("radio", "float32"), ("radio", "bfloat16"), ("radio", "float16")} <= told
    assert ("heading", "activation_cache of pythia-2.8b") in told
    assert {"status", "alert", "table"} <= {role for role, _ in told}
    assert {("rowheader", name) for name, _ in plan["parts"]} <= told, "letters are not read out"
    buttons = [name for role, name in told if role == "button"]
    assert all(any(name.startswith(change["title"]) for name in buttons) for change in plan["changes"])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("said_by", ["host", "system"])
def test_the_screenshot_has_the_bar_in_its_colours(browser: Browser, server: Server, theme: str, said_by: str) -> None:
    """The structure of the picture, not the shapes of letters, which differ from font to font."""
    other = {"light": "dark", "dark": "light"}[theme]
    system = theme if said_by == "system" else other
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": system}])
    try:
        host = Host(browser, server, ALL, theme if said_by == "host" else "")
        host.open(page())
        plan = host.show(CACHE | {"batch_size": 1})
        boxes = host.page(
            "[...document.querySelectorAll('.part')].map((p) => { const b = p.getBoundingClientRect();"
            " return [p.dataset.part, b.x, b.y, b.width, b.height] })"
        )
        height = int(max(y + tall for _, _, y, _, tall in boxes)) + 30
        shot = browser.screenshot(800, height)
    finally:
        browser.ask("Emulation.setEmulatedMedia", features=[])
    close = lambda one, other: all(abs(a - b) <= 3 for a, b in zip(one, other, strict=True))  # noqa: E731
    rgb = lambda colour: tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))  # noqa: E731
    page_colour = rgb({"light": "#ffffff", "dark": "#0d1117"}[theme])
    assert close(shot[height - 1][2], page_colour) and close(shot[2][798], page_colour)
    seen = 0
    for name, x, y, wide, tall in boxes:
        if wide >= 4:
            # Below the upper edge, where no letter is, and in the middle of the part.
            assert close(shot[int(y + tall * 0.15)][int(x + wide / 2)], rgb(PARTS[name][1])), name
            seen += 1
    assert seen >= 3
    assert len(boxes) == len(plan["parts"])


def test_the_hosts_own_colours_are_taken(host: Host) -> None:
    host.show(CACHE)
    host.notify(
        "host-context-changed", {"theme": "dark", "styles": {"variables": {"--color-background-primary": "#123456"}}}
    )
    host.wait(lambda: host.page("getComputedStyle(document.body).backgroundColor") == "rgb(18, 52, 86)", "the colour")
    assert host.page("document.documentElement.style.colorScheme") == "dark"


def test_a_narrow_window_needs_no_scrolling_to_the_side(host: Host) -> None:
    """WCAG 2.2, 1.4.10: 320 CSS pixels, which is also what a zoom of 250 % leaves of 800."""
    host.show(CACHE)
    host.browser.evaluate("document.getElementById('app').style.width = '320px'")
    host.wait(lambda: sum(host.bar().values()) < 320, "the bar to be drawn again")
    assert host.page("document.documentElement.scrollWidth") <= 320
    assert sum(host.bar().values()) == pytest.approx(320 - 2 * 12 - 2 * 4)
    letters = host.page("[...document.querySelectorAll('#drawn text')].map((t) => t.getBoundingClientRect().height)")
    assert letters and min(letters) > 10, "letters keep their size"
    sliders = host.page("[...document.querySelectorAll('input[type=range]')].map((r) => r.clientWidth)")
    assert min(sliders) > 150


def test_an_error_is_shown_and_the_control_goes_back(host: Host) -> None:
    host.show(CACHE)
    before = host.rows()
    host.page("at('size-seq_len').focus()")
    host.held = []
    host.press("End")
    host.wait(lambda: host.held, "the call")
    assert host.held is not None
    error = {"isError": True, "content": [{"type": "text", "text": "seq_len: 131072 is beyond the model's 2048"}]}
    host.answer(host.held[0], error)
    host.settled()
    assert host.text("#trouble") == "seq_len: 131072 is beyond the model's 2048"
    assert host.rows() == before and host.page("at('size-seq_len').getAttribute('aria-valuetext')") == "1024"
    assert host.said("ui/update-model-context") == []
    host.press("ArrowLeft")
    host.wait(lambda: len(host.held or []) == 2, "the next call")
    host.send({"id": host.held[1]["id"], "error": {"code": -32000, "message": "the user said no"}})
    host.settled()
    assert "the user said no" in host.text("#trouble")


def test_only_the_last_answer_counts(host: Host) -> None:
    host.show(CACHE)
    host.held = []
    host.page("at('size-batch_size').focus()")
    host.press("ArrowLeft")
    host.wait(lambda: len(host.held or []) == 1, "the first call")
    host.press("ArrowLeft")
    host.wait(lambda: len(host.held or []) == 2, "the second call")
    early, late = host.held
    answers = [host.server.call(message["params"]["arguments"]) for message in (early, late)]
    assert [message["params"]["arguments"]["batch_size"] for message in (early, late)] == [2, 1]
    host.answer(late, answers[1])
    host.answer(early, answers[0])
    host.settled()
    assert host.rows() == [[name, gib(size)] for name, size in answers[1]["_meta"][PLAN]["parts"]]


def test_fields_given_in_options_are_changed_there(host: Host) -> None:
    nested = {
        "task": "activation_cache",
        "model": "gpt2",
        "gpu": "T4",
        "options": {"batch_size": 8, "stop_at_layer": 3},
    }
    host.show(nested)
    host.page("at('size-batch_size').focus()")
    host.press("ArrowLeft")
    asked = host.called(1)
    assert asked["options"] == {"stop_at_layer": 3} and asked["batch_size"] == 4
    assert host.text("#trouble") == ""


def test_a_host_that_calls_no_tools_gets_a_picture_without_controls(browser: Browser, server: Server) -> None:
    host = Host(browser, server, {}, "light")
    host.open(page())
    plan = host.show(CACHE)
    assert len(host.rows()) == len(plan["parts"])
    assert host.page("at('controls').hidden && at('use').hidden && at('back').hidden")
    assert host.page("[...document.querySelectorAll('#changes button')].every((b) => b.disabled)")


def test_a_host_that_hands_on_no_meta_gets_the_sum_and_then_the_parts(host: Host) -> None:
    """A short answer names no parts where it does not fit; what the page asks for itself is the full one."""
    host.show(CACHE, _meta={})
    verdict = host.server.call(CACHE | {"show_form": False})["structuredContent"]["verdict"]
    assert host.rows() == [["all together", gib(verdict["needed_bytes"])]]
    assert f"{gib(verdict['free_bytes'])} free" in host.page("at('drawn').textContent")
    assert host.text("#verdict").startswith("Does not fit. ")
    host.held = []
    host.page("at('size-batch_size').focus()")
    host.press("ArrowLeft")
    host.wait(lambda: host.held, "the call")
    asked = host.held[0]["params"]["arguments"]
    assert asked == CACHE | {"batch_size": 2, "detail": "full", "show_form": False}
    result = host.server.call(asked)
    plan = result.pop("_meta")[PLAN]
    host.answer(host.held[0], result)
    host.settled()
    assert host.rows() == [[name, gib(size)] for name, size in plan["parts"]]
    titles = host.page("[...document.querySelectorAll('#changes button')].map((b) => b.firstChild.textContent)")
    assert titles == [change["title"] for change in plan["changes"]][: len(titles)] and titles


def test_what_was_answered_by_a_form_is_said_by_the_pictures_calls_too(host: Host) -> None:
    """The assistant's call named no card; the user did."""
    result = host.server.call(CACHE | {"show_form": False})
    result["_meta"][PLAN]["answered"] = {"gpu": "RTX 4090"}
    host.notify("tool-input", {"arguments": {k: v for k, v in CACHE.items() if k != "gpu"}})
    host.notify("tool-result", result)
    host.settled()
    host.page("at('size-batch_size').focus()")
    host.press("ArrowLeft")
    assert host.called(1)["gpu"] == "RTX 4090"


def test_names_from_outside_are_text(host: Host) -> None:
    name = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    own = {"n_layers": 2, "d_model": 64, "n_heads": 2, "d_vocab": 100, "n_ctx": 64, "name": name}
    host.show({"task": "inference", "model": own, "gpu": "T4", "seq_len": 64})
    assert host.text("#title") == f"inference of {name}"
    assert host.page("document.title") == "Memory plan" and host.page("document.images.length") == 0


def test_a_cancelled_call_and_a_host_that_ends_the_page(host: Host) -> None:
    host.notify("tool-cancelled", {"reason": "user action"})
    host.wait(lambda: "cancelled: user action" in host.text("#verdict"), "the words")
    host.send({"id": 7, "method": "ui/resource-teardown", "params": {}})
    host.send({"id": 8, "method": "ui/unheard-of", "params": {}})
    host.wait(lambda: [m for m in host.heard if m.get("id") == 8], "the answers")
    answers = {m["id"]: m for m in host.heard if m.get("id") in (7, 8) and "method" not in m}
    assert answers[7]["result"] == {} and answers[8]["error"]["code"] == -32601


def test_sizes_are_said_as_everywhere_else(host: Host) -> None:
    sizes = [
        0,
        1,
        1023,
        KIB,
        12 * MIB,
        GIB // 10 - 1,
        GIB // 10 + 1,
        5 * GIB,
        10 * GIB,
        61 * GIB + 7,
        159 * GIB,
        10**15,
    ]
    assert host.page(f"{json.dumps(sizes)}.map(gib)") == [gib(size) for size in sizes]


def test_an_sae_has_its_own_sliders(host: Host) -> None:
    host.show(
        {
            "task": "sae_training",
            "model": "gpt2",
            "hook_name": "blocks.6.hook_resid_pre",
            "expansion_factor": 16,
            "gpu": "T4",
        }
    )
    rows = host.page("[...at('sizes').children].map((row) => row.id)")
    assert rows == ["row-train_batch_size_tokens", "row-context_size", "row-store_batch_size_prompts"]
    host.page("at('size-context_size').focus()")
    host.press("ArrowLeft")
    asked = host.called(1)
    assert asked["task"] == "sae_training" and asked["context_size"] > 0 and host.text("#trouble") == ""
