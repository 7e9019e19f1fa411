// Numbers and texts for people, and the making of the page's elements. Texts of commands and workers
// become text nodes only.

export const number = (value) => (typeof value === "number" && isFinite(value) ? value : 0);

/** 7.3 s, 2:05 min, 1:02:05 h */
export function duration(seconds) {
  const s = Math.max(0, number(seconds));
  if (s < 10) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 60) return `${whole} s`;
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)} h`;
}

/** 12.3 ms, 1.23 s */
export const precise = (seconds) => (seconds < 0.1 ? `${(1000 * seconds).toFixed(1)} ms` : `${seconds.toFixed(2)} s`);

/** The directories that all paths have in common, with a slash at the end. */
export function commonDirectory(paths) {
  const found = paths.reduce((known, path) => {
    let length = 0;
    while (length < known.length && known[length] === path[length]) length += 1;
    return known.slice(0, length);
  }, paths[0] ?? "");
  return found.slice(0, found.lastIndexOf("/") + 1);
}

export const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");

export function bytes(count) {
  let value = number(count);
  for (const unit of ["B", "kB", "MB"]) {
    if (value < 1000) return `${value.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} GB`;
}

export const clock = (unix) => new Date(1000 * unix).toLocaleTimeString("en-GB");
export const day = (unix) => new Date(1000 * unix).toLocaleString("sv-SE");
export const baseName = (path) => path.slice(path.lastIndexOf("/") + 1);

/** An element; `content` is text, elements, or a list of both. */
export function element(name, attributes = {}, content = []) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...[content].flat().map((part) => (part instanceof Node ? part : String(part))));
  return made;
}

/** Fills a table's body; a row is a list of cells: text, an element, or {text, class, title}. */
export function fill(table, rows, empty) {
  const cells = (row) =>
    row.map((cell) => {
      const isPlain = cell === null || typeof cell !== "object" || cell instanceof Node;
      const { text, ...attributes } = isPlain ? { text: cell ?? "" } : cell;
      return element("td", attributes, text);
    });
  const none = [element("tr", {}, element("td", { colspan: 20, class: "quiet" }, empty))];
  const made = rows.map((row) => element("tr", {}, cells(row)));
  table.tBodies[0].replaceChildren(...(made.length ? made : none));
}

/** A word of a POSIX shell. */
export function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
