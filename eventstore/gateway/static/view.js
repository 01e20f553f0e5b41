// From values to elements. Texts become text nodes and attributes become attributes: nothing is ever parsed as HTML.

import { byDay, gist, hue, startOfDay, DAY } from "./profile.js";

const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayName = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const shortDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const number = new Intl.NumberFormat();
const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function element(tag, fields = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(fields)) {
    if (name === "class") made.className = value;
    else if (name === "hue") made.style.setProperty("--hue", String(hue(value)));
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function count(n, what = "event") {
  return `${number.format(n)} ${what}${n === 1 ? "" : "s"}`;
}

export function showUser({ tenant, uid }) {
  document.title = `${uid} · Eventstore`;
  $("name").textContent = uid;
  $("of").textContent = tenant;
  $("avatar").textContent = [...uid.replace(/[^\p{L}\p{N}]/gu, "")][0]?.toUpperCase() ?? "·";
  $("avatar").style.setProperty("--hue", String(hue(uid)));
}

export function showFigures(profile, total, now) {
  const [newest, oldest] = [profile.events[0], profile.events.at(-1)];
  $("total").textContent = total === null ? "–" : number.format(Math.max(total, profile.size));
  $("last").textContent = newest ? ago(newest.timestamp, now) : "–";
  $("first").textContent = oldest && total !== null && profile.size >= total ? shortDay.format(oldest.timestamp) : "–";
}

export function showActivity(profile, covered, now) {
  const bins = profile.activity(now);
  const most = Math.max(...bins.map((bin) => bin.count), 1);
  const [width, height] = [bins.length * 10, 64];
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" });
  const sum = bins.reduce((total, bin) => total + bin.count, 0);
  svg.setAttribute("aria-label", `${count(sum)} in ${bins.length} days, at most ${number.format(most)} a day`);
  svg.append(shape("line", { x1: 0, x2: width, y1: height - 0.5, y2: height - 0.5 }));
  bins.forEach(({ day, count: n }, at) => {
    const tall = n ? Math.max((n / most) * (height - 6), 2) : 0;
    const bar = shape("rect", { x: at * 10 + 1, y: height - tall, width: 8, height: tall, rx: 1.5 });
    if (at === bins.length - 1) bar.setAttribute("class", "now");
    const title = document.createElementNS(SVG, "title");
    title.textContent = `${dayName.format(day)}: ${count(n)}`;
    bar.append(title);
    svg.append(bar);
  });
  const axis = element("div", { class: "axis", "aria-hidden": "true" },
    element("span", {}, shortDay.format(bins[0].day)), element("span", {}, `max ${number.format(most)} a day`), element("span", {}, "today"));
  $("span").textContent = `${bins.length} days${covered ? "" : ", what is loaded"}`;
  $("chart").replaceChildren(svg, axis);
}

function shape(tag, fields) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(fields)) made.setAttribute(name, String(value));
  return made;
}

export function showNames(profile, chosen) {
  const focused = document.activeElement?.dataset?.name;
  const buttons = profile.names().map(([name, n]) => {
    const button = element("button", { type: "button", "aria-pressed": String(chosen.has(name)), "data-name": name, title: name },
      element("span", { class: "dot", hue: name }), element("span", {}, name), element("span", { class: "n" }, number.format(n)));
    return button;
  });
  $("names").replaceChildren(...buttons);
  if (focused !== undefined) buttons.find((button) => button.dataset.name === focused)?.focus();
}

export function showAttributes(profile) {
  const { values, at } = profile.attributes();
  $("attributes-card").hidden = !values.length;
  $("attributes-of").textContent = at ? `as of ${shortDay.format(at)}, ${time.format(at)}` : "";
  $("attributes").replaceChildren(
    ...values.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, typeof value === "string" ? value : JSON.stringify(value))]),
  );
}

// Rows that are open stay open, and the focus stays where it is: rows are kept and moved, not made again.
export function showDays(events, rows, fresh, now) {
  const days = byDay(events).map(({ day, events: of }) => {
    const list = element("ol", {}, ...of.map((event) => row(event, rows, fresh)));
    return element("section", { class: "day" }, element("h3", {}, dayTitle(day, now), element("span", {}, count(of.length))), list);
  });
  const focused = document.activeElement;
  $("days").replaceChildren(...days);
  if (focused instanceof HTMLElement && $("days").contains(focused)) focused.focus({ preventScroll: true });
}

function row(event, rows, fresh) {
  let made = rows.get(event.eid);
  if (!made) {
    const moment = new Date(event.timestamp);
    const line = element("summary", {},
      element("time", { datetime: moment.toISOString(), title: moment.toLocaleString() }, time.format(moment)),
      element("span", { class: "event" }, element("span", { class: "dot", hue: event.event }), element("span", { title: event.event }, event.event)),
      element("span", { class: "gist" }, ...gist(event.properties).flatMap(([name, value]) => [element("b", {}, `${name} `), element("i", {}, value), "  "])));
    const details = element("details", {}, line);
    details.addEventListener("toggle", () => details.open && details.children.length === 1 && details.append(body(event)));
    made = element("li", { "data-eid": event.eid }, details);
    rows.set(event.eid, made);
  }
  made.classList.toggle("new", fresh.has(event.eid));
  return made;
}

function body(event) {
  const block = (title, value) => element("div", {}, element("h4", {}, title), element("pre", {}, JSON.stringify(value, null, 2)));
  const parts = [block("properties", event.properties)];
  if (Object.keys(event.context).length) parts.push(block("context", event.context));
  parts.push(element("div", { class: "soft" }, element("code", {}, event.eid)));
  return element("div", { class: "body" }, ...parts);
}

function dayTitle(day, now) {
  const today = startOfDay(now);
  if (day === today) return "Today";
  if (day === startOfDay(today - DAY / 2)) return "Yesterday";
  return dayName.format(day);
}

function ago(then, now) {
  const seconds = Math.max(Math.round((now - then) / 1_000), 0);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}
