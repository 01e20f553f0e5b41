// One user's events and what follows from them. No page, no network: only values.

export const DAY = 86_400_000;
const GIST_FIELDS = 8;
const LEAST_DAYS = 14;
const MOST_DAYS = 90;

export class Profile {
  #byId = new Map();
  #sorted = null;
  #perDay = new Map();

  // Whether the event is new; the same one may come from the timeline and from the feed.
  add(event) {
    if (this.#byId.has(event.eid)) return false;
    this.#byId.set(event.eid, { ...event, text: `${event.event} ${JSON.stringify(event.properties)}`.toLowerCase() });
    this.#sorted = null;
    return true;
  }

  get size() {
    return this.#byId.size;
  }

  get events() {
    this.#sorted ??= [...this.#byId.values()].sort((a, b) => b.timestamp - a.timestamp || (a.eid < b.eid ? 1 : -1));
    return this.#sorted;
  }

  matching({ names, text }) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return this.events.filter(
      (event) => (!names.size || names.has(event.event)) && words.every((word) => event.text.includes(word)),
    );
  }

  names() {
    const counts = new Map();
    for (const { event } of this.events) counts.set(event, (counts.get(event) ?? 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
  }

  // Traits of all `identify` events, the newest value of each.
  attributes() {
    const told = this.events.filter((event) => event.event === "identify");
    const found = new Map();
    for (const { properties } of told) {
      for (const [name, value] of Object.entries(properties)) if (!found.has(name)) found.set(name, value);
    }
    return { values: [...found], at: told[0]?.timestamp };
  }

  // The days whose events are not all loaded, the newest first, as far back as the chart may go.
  *daysBefore(now) {
    const first = startOfDay(this.events.at(-1)?.timestamp ?? now);
    for (let day = first; now - day < MOST_DAYS * DAY; day = startOfDay(day - DAY / 2)) {
      yield { from: day, to: startOfDay(day + 1.5 * DAY) };
    }
  }

  // Note how many events a day has, loaded or not; how many of them are loaded.
  counted(day, count) {
    this.#perDay.set(day, count);
    return this.events.filter(({ timestamp }) => startOfDay(timestamp) === day).length;
  }

  // Events a day, oldest first, up to today: as far back as there are events, within bounds.
  activity(now) {
    const today = startOfDay(now);
    const counted = [...this.#perDay].filter(([, count]) => count).map(([day]) => day);
    const oldest = Math.min(this.events.at(-1)?.timestamp ?? now, ...counted);
    const days = Math.min(Math.max(Math.round((today - startOfDay(oldest)) / DAY) + 1, LEAST_DAYS), MOST_DAYS);
    const bins = Array.from({ length: days }, (_, n) => ({ day: startOfDay(today - (days - 1 - n) * DAY + DAY / 2), count: 0 }));
    const index = new Map(bins.map((bin, n) => [bin.day, n]));
    for (const { timestamp } of this.events) {
      const n = index.get(startOfDay(timestamp));
      if (n !== undefined) bins[n].count += 1;
    }
    for (const bin of bins) bin.count = Math.max(bin.count, this.#perDay.get(bin.day) ?? 0);
    return bins;
  }
}

export function startOfDay(ms) {
  const day = new Date(ms);
  day.setHours(0, 0, 0, 0);
  return day.getTime();
}

export function byDay(events) {
  const days = [];
  for (const event of events) {
    const day = startOfDay(event.timestamp);
    if (days.at(-1)?.day !== day) days.push({ day, events: [] });
    days.at(-1).events.push(event);
  }
  return days;
}

// The few properties that fit into a line.
export function gist(properties) {
  return Object.entries(properties)
    .filter(([, value]) => value !== null && value !== false && value !== "")
    .slice(0, GIST_FIELDS)
    .map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
}

export function hue(name) {
  let found = 7;
  for (const letter of name) found = (found * 31 + letter.codePointAt(0)) % 36_000;
  return (found * 47) % 360;
}
