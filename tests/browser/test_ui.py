"""The profile page in a real Chromium, against a real gateway, worker and store."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
import pytest

from eventstore.tenancy import KeyUse
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.stacks import RunningStack
from tests.world import World, own_world

pytestmark = pytest.mark.browser

api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: `make test-browser` installs it")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs a Chromium: `apt-get install chromium`, or name one in CHROMIUM", allow_module_level=True)

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
HOUR_MS = 3_600_000
READ = key("shop", KeyUse.READ)
UID = "alice/1 ä"
HOSTILE = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'
PATIENCE_MS = 60_000.0
UNANSWERED_MS = 20_000.0
"""Less than the page waits for a feed."""


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with own_world(stack, tmp_path_factory.mktemp("ui"), {"shop": with_keys("shop", tier="t30")}) as made:
        made.start_worker()
        publish(made, *(("viewed" if n % 3 else "bought", {"sku": f"A-{n}", "price": n}, n * 9) for n in range(40)))
        publish(made, ("identify", {"plan": "free", "city": "Bonn"}, 50), ("identify", {"plan": "pro"}, 5))
        publish(made, (HOSTILE, {HOSTILE: HOSTILE}, 1))
        made.wait_until_committed()
        yield made


def publish(world: World, *events: tuple[str, Any, int], uid: str = UID) -> None:
    """Events by name, properties and age in hours."""
    now = time.time_ns() // 1_000_000
    records = [
        {"tenant": "shop", "uid": uid, "event": event, "message_id": str(uuid4()), "timestamp": now - age * HOUR_MS,
         "properties": properties}
        for event, properties, age in events
    ]  # fmt: skip
    world.publish([(f"shop:{uid}".encode(), msgspec.json.encode(each)) for each in records])


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[GatewayUnderTest]:
    with running_gateway(world, "--only", "read", EVENTSTORE_GATEWAY__LIVE_HEARTBEAT="1") as made:
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page on which nothing goes wrong unheard: scripts that fail and rules of the policy that are broken."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    made.set_default_timeout(PATIENCE_MS)
    api.expect.set_options(timeout=PATIENCE_MS)
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    yield made
    context.close()
    assert not wrong


def open_user(page: Any, gateway: GatewayUnderTest, uid: str = UID, with_key: str = READ) -> None:
    page.goto(f"{gateway.address}/ui")
    page.get_by_label("Tenant").fill("shop")
    page.get_by_label("User").fill(uid)
    page.get_by_label("Read key").fill(with_key)
    page.get_by_role("button", name="Open").click()


def rows(page: Any, name: str = "") -> Any:
    return page.locator("#days li", has_text=name)


def is_live(page: Any) -> None:
    api.expect(page.locator("#status")).to_have_text("live")


def test_it_shows_a_users_past_by_day(page: Any, gateway: GatewayUnderTest) -> None:
    open_user(page, gateway)
    is_live(page)
    api.expect(rows(page)).to_have_count(43)
    api.expect(page.locator("#total")).to_have_text("43")
    assert page.locator(".day").count() > 10
    api.expect(page.locator("#attributes")).to_have_text("planprocityBonn")
    assert page.locator("#chart rect").count() >= 14
    keep_picture(page, "past")


def test_it_filters_by_name_and_by_text(page: Any, gateway: GatewayUnderTest) -> None:
    open_user(page, gateway)
    page.locator("#names").get_by_role("button", name="bought").click()
    api.expect(rows(page)).to_have_count(14)
    page.get_by_label("Search in events").fill("a-27")
    api.expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Clear filters").click()
    api.expect(rows(page)).to_have_count(43)


def test_it_shows_an_event_as_it_happens(page: Any, gateway: GatewayUnderTest, world: World) -> None:
    uid = f"live {uuid4().hex[:6]}"
    open_user(page, gateway, uid)
    is_live(page)
    api.expect(page.locator("#none")).to_contain_text("No events")
    publish(world, ("checked out", {"total": 12}, 0), uid=uid)
    api.expect(rows(page, "checked out")).to_have_count(1)
    api.expect(page.locator("#total")).to_have_text("1")


def test_it_survives_a_restart_of_the_gateway(page: Any, world: World) -> None:
    uid = f"restart {uuid4().hex[:6]}"
    with running_gateway(world, "--only", "read") as first:
        open_user(page, first, uid)
        is_live(page)
        publish(world, ("before", {}, 0), uid=uid)
        api.expect(rows(page, "before")).to_have_count(1)
        first.process.send_signal(signal.SIGKILL)
        api.expect(page.locator("#status")).to_have_text("reconnecting …")
    publish(world, ("meanwhile", {}, 0), uid=uid)
    with running_gateway(world, "--only", "read", port=first.port):
        api.expect(rows(page, "meanwhile")).to_have_count(1)
        is_live(page)
        publish(world, ("after", {}, 0), uid=uid)
        api.expect(rows(page, "after")).to_have_count(1)
        api.expect(rows(page)).to_have_count(3)


def test_the_past_is_shown_while_kafka_is_away(page: Any, world: World) -> None:
    publish(world, ("viewed", {}, 1), ("bought", {}, 2), uid="no-feed")
    world.wait_until_committed()
    with running_gateway(world, "--only", "read", EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1") as gateway:
        open_user(page, gateway, "no-feed")
        api.expect(rows(page)).to_have_count(2)
        api.expect(page.locator("#status")).to_have_text("reconnecting …")


def test_the_past_is_shown_at_once_while_the_feed_does_not_answer(page: Any, gateway: GatewayUnderTest) -> None:
    page.route("**/live?*", lambda _: None)
    open_user(page, gateway)
    api.expect(rows(page)).to_have_count(43, timeout=UNANSWERED_MS)
    api.expect(page.locator("#status")).to_have_text("connecting …")


def test_while_the_store_is_away_that_is_told_and_what_happens_is_shown(
    page: Any, gateway: GatewayUnderTest, world: World
) -> None:
    away = {"status": 503, "json": {"error": "unavailable", "detail": "its store does not answer: try again"}}
    page.route("**/events?*", lambda route: route.fulfill(**away))
    open_user(page, gateway, "no-store")
    api.expect(page.locator("#notice")).to_contain_text("The timeline cannot be read now")
    publish(world, ("viewed", {}, 0), uid="no-store")
    api.expect(rows(page)).to_have_count(1)
    world.wait_until_committed()
    page.unroute("**/events?*")
    api.expect(page.locator("#notice")).to_be_hidden()
    api.expect(rows(page)).to_have_count(1)


def test_the_chart_covers_days_whose_events_are_not_loaded(page: Any, gateway: GatewayUnderTest, world: World) -> None:
    publish(world, *(("viewed", {"n": n}, n // 3) for n in range(1_200)), uid="busy")  # 72 a day, 17 days
    world.wait_until_committed()
    open_user(page, gateway, "busy")
    api.expect(page.locator("#total")).to_have_text("1,200")
    api.expect(page.locator("#chart svg")).to_have_attribute(
        "aria-label", re.compile("^1,200 events in 1[78] days, at most 7[0-9] a day$")
    )
    api.expect(page.locator("#span")).to_have_text(re.compile("^1[78] days$"))


def test_a_chart_whose_older_days_cannot_be_counted_says_that_it_shows_what_is_loaded(
    page: Any, gateway: GatewayUnderTest, world: World
) -> None:
    publish(world, *(("viewed", {"n": n}, n // 3) for n in range(1_200)), uid="busy, uncounted")
    world.wait_until_committed()
    page.route("**/count?from=*", lambda route: route.fulfill(status=503, json={"detail": "too many reads: try again"}))
    open_user(page, gateway, "busy, uncounted")
    api.expect(page.locator("#total")).to_have_text("1,200")
    api.expect(page.locator("#span")).to_have_text(re.compile("^1[3-5] days, what is loaded$"))


def test_what_producers_publish_stays_text(page: Any, gateway: GatewayUnderTest) -> None:
    open_user(page, gateway)
    row = rows(page, "onerror")
    api.expect(row).to_have_count(1)
    row.locator("summary").click()
    api.expect(row.locator("pre")).to_contain_text("<script>")
    assert page.evaluate("window.harmed") is None
    assert page.locator("main img, main script").count() == 0


def test_a_user_may_have_any_name(page: Any, gateway: GatewayUnderTest) -> None:
    page.goto(f"{gateway.address}/ui#shop/{quote(HOSTILE, safe='')}")
    page.get_by_label("Read key").fill(READ)
    page.keyboard.press("Enter")
    is_live(page)
    api.expect(page.locator("#name")).to_have_text(HOSTILE)
    assert page.evaluate("window.harmed") is None


def test_a_wrong_key_is_told_and_the_right_one_then_opens(page: Any, gateway: GatewayUnderTest) -> None:
    open_user(page, gateway, with_key="wrong")
    api.expect(page.locator("#notice")).to_contain_text("This key opens nothing")
    page.get_by_label("Read key").fill(READ)
    page.keyboard.press("Enter")
    api.expect(rows(page)).to_have_count(43)
    assert READ not in page.url


def test_it_can_be_used_by_keyboard_alone(page: Any, gateway: GatewayUnderTest) -> None:
    open_user(page, gateway)
    api.expect(rows(page)).to_have_count(43)
    page.keyboard.press("/")
    page.keyboard.type("identify")
    api.expect(rows(page)).to_have_count(2)
    summary = rows(page).first.locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    api.expect(rows(page).first.locator("pre")).to_contain_text('"plan": "pro"')


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1280), ("light", 390)])
def test_it_fits(page: Any, gateway: GatewayUnderTest, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    open_user(page, gateway)
    api.expect(rows(page)).to_have_count(43)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    keep_picture(page, f"{scheme}-{width}")


def keep_picture(page: Any, name: str) -> None:
    """For people to look at, where a folder for it is named."""
    if folder := os.environ.get("EVENTSTORE_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")
