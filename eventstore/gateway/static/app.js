// The profile page: finds a user, shows his timeline, and puts what happens to him on top of it.

import { Api, ApiError } from "./api.js";
import { Profile } from "./profile.js";
import { $, count, showActivity, showAttributes, showDays, showFigures, showNames, showUser } from "./view.js";

const PAGE = 1_000;
const ROWS = 200;
const KEY = "eventstore.read-key";

let open = null; // what is shown: one user, his events, and how to stop following them

class Shown {
  constructor(who) {
    this.api = new Api(who);
    this.profile = new Profile();
    this.rows = new Map();
    this.fresh = new Set();
    this.filter = { names: new Set(), text: "" };
    this.rowsShown = ROWS;
    this.cursor = null;
    this.total = null;
    this.loaded = false;
    this.joined = false; // whether the timeline has been read since the feed opened first
    this.covered = false; // whether the chart covers what is not loaded, too
    this.counting = false;
    this.again = undefined; // the timer of the next attempt to read the timeline
    this.ending = new AbortController();
    this.drawing = false;
  }

  get signal() {
    return this.ending.signal;
  }

  // The past at once, whether or not the feed opens: Kafka may be away while the store is there.
  async run() {
    this.reload();
    try {
      await this.api.follow({
        onOpen: () => this.opened(),
        onEvent: (event) => this.arrived(event),
        onReset: () => this.reload(),
        onBreak: () => status("reconnecting …"),
      }, this.signal);
    } catch (error) {
      if (!this.signal.aborted) this.failed(error);
    }
  }

  // When the feed has opened the timeline is read once more: only what is read after that leaves no gap before the feed. Doubles
  // are told by their ids.
  async opened() {
    status("live", true);
    if (!this.joined) await this.load();
    else notice(null);
    this.joined = true;
  }

  // As `load`, with nobody to wait for it.
  reload() {
    this.load().catch((refused) => this.failed(refused));
  }

  async load() {
    try {
      const page = await this.api.page(PAGE, null, this.signal);
      for (const event of page.events) this.profile.add(event);
      if (!this.loaded) this.cursor = page.cursor;
      this.loaded = true;
      clearTimeout(this.again);
      notice(null);
      this.draw();
      this.total = this.cursor ? (await this.api.count(this.signal)).count : this.profile.size;
      this.olderDays(); // nobody waits for it
    } catch (error) {
      if (this.signal.aborted) return;
      if (error instanceof ApiError && error.refused) throw error;
      notice("The timeline cannot be read now", `${error.message}. Trying again; what happens meanwhile is shown.`);
      clearTimeout(this.again);
      this.again = setTimeout(() => this.signal.aborted || this.reload(), 3_000);
    }
    this.draw();
  }

  // The chart covers days whose events are not loaded, too: the servers count them, one day after the other into the past.
  async olderDays() {
    if (this.counting) return;
    this.counting = true;
    try {
      let left = this.total - this.profile.size;
      for (const day of this.profile.daysBefore(Date.now())) {
        if (left <= 0) break;
        const { count: found } = await this.api.count(this.signal, day.from, day.to);
        left -= found - this.profile.counted(day.from, found);
        this.draw();
      }
      this.covered = true;
    } catch {
      // the chart then says that it covers what is loaded
    } finally {
      this.counting = false;
    }
    this.draw();
  }

  async older() {
    this.rowsShown += ROWS;
    if (this.rowsShown > this.matching().length && this.cursor) {
      $("more").disabled = true;
      try {
        const page = await this.api.page(PAGE, this.cursor, this.signal);
        for (const event of page.events) this.profile.add(event);
        this.cursor = page.cursor;
      } catch (error) {
        if (!this.signal.aborted) notice("Older events cannot be read now", error.message);
      } finally {
        $("more").disabled = false;
      }
    }
    this.draw();
  }

  arrived(event) {
    if (!this.profile.add(event)) return;
    if (this.loaded && this.total !== null) this.total += 1;
    this.fresh.add(event.eid);
    setTimeout(() => this.fresh.delete(event.eid), 2_500);
    if (this.loaded) $("news").textContent = `New event: ${event.event}`;
    this.draw();
  }

  matching() {
    return this.profile.matching(this.filter);
  }

  // Once a frame, however many events have come.
  draw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (!this.signal.aborted) this.drawNow();
    });
  }

  drawNow() {
    const now = Date.now();
    const found = this.matching();
    const filtered = this.filter.names.size > 0 || this.filter.text !== "";
    showFigures(this.profile, this.total, now);
    showActivity(this.profile, this.covered, now);
    showNames(this.profile, this.filter.names);
    showAttributes(this.profile);
    showDays(found.slice(0, this.rowsShown), this.rows, this.fresh, now);
    $("shown").textContent = filtered ? `${count(found.length)} of ${count(this.profile.size)} loaded` : "";
    $("clear").hidden = !filtered;
    $("none").hidden = found.length > 0;
    $("none").textContent = this.nothing(filtered);
    $("more").hidden = found.length <= this.rowsShown && !this.cursor;
    $("timeline").classList.toggle("loading", !this.loaded);
  }

  nothing(filtered) {
    if (!this.loaded) return "Reading the timeline …";
    if (filtered) return "No loaded event matches. Clear the filters, or load older events.";
    return "No events within the retention. What this user does next will appear here.";
  }

  failed(error) {
    this.stop();
    status(null);
    $("profile").hidden = true;
    $("welcome").hidden = false;
    const titles = { 401: "This key opens nothing", 403: "This key does not open that", 404: "There is nothing at this address" };
    notice(titles[error.status] ?? "That did not work", error.message);
    $(error.status === 401 || error.status === 403 ? "key" : "uid").focus();
  }

  stop() {
    this.ending.abort();
  }
}

function status(text, live = false) {
  $("status").hidden = text === null;
  $("status").textContent = text ?? "";
  $("status").classList.toggle("live", live);
}

function notice(title, detail = "") {
  $("notice").hidden = title === null;
  if (title === null) return $("notice").replaceChildren();
  const strong = document.createElement("b");
  strong.textContent = title;
  $("notice").replaceChildren(strong, detail);
}

function show(who) {
  open?.stop();
  notice(null);
  status("connecting …");
  $("welcome").hidden = true;
  $("profile").hidden = false;
  $("search").value = "";
  showUser(who);
  open = new Shown(who);
  open.drawNow();
  open.run();
}

// The address names the user, so that it can be sent on and reloaded; it does not hold the key.
function told() {
  const [tenant, uid] = location.hash.slice(1).split("/").map(decoded);
  return { tenant: tenant ?? "", uid: uid ?? "", key: sessionStorage.getItem(KEY) ?? "" };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function fromAddress() {
  const who = told();
  for (const name of ["tenant", "uid", "key"]) if (who[name]) $(name).value = who[name];
  if (who.tenant && who.uid && who.key) return show(who);
  const empty = ["tenant", "uid", "key"].find((name) => !$(name).value);
  if (empty) $(empty).focus();
}

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const [tenant, uid, key] = ["tenant", "uid", "key"].map((name) => $(name).value.trim());
  sessionStorage.setItem(KEY, key);
  history.pushState(null, "", `#${encodeURIComponent(tenant)}/${encodeURIComponent(uid)}`);
  show({ tenant, uid, key });
});
addEventListener("hashchange", fromAddress);

$("names").addEventListener("click", (event) => {
  const name = event.target.closest("button")?.dataset.name;
  if (name === undefined || !open) return;
  const { names } = open.filter;
  if (!names.delete(name)) names.add(name);
  open.rowsShown = ROWS;
  open.drawNow();
});
$("search").addEventListener("input", () => {
  if (!open) return;
  open.filter.text = $("search").value.trim();
  open.rowsShown = ROWS;
  open.draw();
});
$("clear").addEventListener("click", () => {
  $("search").value = "";
  open.filter = { names: new Set(), text: "" };
  open.drawNow();
  $("search").focus();
});
$("more").addEventListener("click", () => open?.older());
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest?.("input") && open) {
    event.preventDefault();
    $("search").focus();
  }
  if (event.key === "Escape" && event.target === $("search")) $("clear").click();
});
setInterval(() => open?.loaded && !open.signal.aborted && showFigures(open.profile, open.total, Date.now()), 10_000);

fromAddress();
