// Without this script the page has every figure and number; with it they can be pointed at, picked, sorted and filtered.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

/* Pickers: of the parts of a .pick one is shown, chosen from a list. */

function facetsOf(element) {
  const told = JSON.parse(element.dataset.facets || "[]");
  return Array.isArray(told) ? Object.fromEntries(told) : told;
}

/* The facts in which elements differ, each with its values. */
function differing(facets) {
  const names = [...new Set(facets.flatMap(Object.keys))];
  return names.map((name) => [name, [...new Set(facets.map((each) => each[name] ?? ""))]]).filter(([, values]) => values.length > 1);
}

const choices = []; // of all pickers with facets, so that a fact that is chosen in one is in those that have it

for (const pick of all(".pick")) {
  const parts = [...pick.children].filter((part) => part.dataset.pick !== undefined);
  if (parts.length < 2) continue;
  const facets = parts.map(facetsOf);
  const facts = differing(facets);
  const show = (chosen) => parts.forEach((part, place) => { part.hidden = place !== chosen; });
  let chosen = Number(pick.dataset.first || 0);
  if (facts.length < 2) {
    const select = make("select", {}, ...parts.map((part, place) => new Option(part.dataset.pick, place)));
    select.value = chosen;
    select.addEventListener("change", () => show(Number(select.value)));
    pick.prepend(make("label", { className: "choice" }, `${pick.dataset.label} `, select));
  } else {
    const selects = facts.map(([name, values]) =>
      [name, make("select", {}, ...values.map((value) => new Option(value || "(all)", value)))]);
    // Not all combinations are there: of those with what was chosen last, the one that has most of the others.
    const choose = (name, value) => {
      const wanted = { ...facets[chosen], [name]: value };
      const score = (each) => (each[name] === value ? 100 : 0) + facts.filter(([key]) => each[key] === wanted[key]).length;
      const best = facets.reduce((found, each, place) => (score(each) > score(facets[found]) ? place : found), 0);
      if ((facets[best][name] ?? "") !== value) return;
      chosen = best;
      selects.forEach(([key, select]) => { select.value = facets[chosen][key] ?? ""; });
      show(chosen);
    };
    selects.forEach(([name, select]) => {
      select.value = facets[chosen][name] ?? "";
      select.addEventListener("change", () => choices.forEach((each) => each(name, select.value)));
    });
    choices.push(choose);
    const labels = selects.map(([name, select]) => make("label", {}, `${name} `, select));
    pick.prepend(make("div", { className: "facets" }, `${pick.dataset.label} `, ...labels));
  }
  show(chosen);
}

/* Legends: many series are shown and hidden by what they have in common. */

for (const legend of all(".legend")) {
  const labels = all("label", legend);
  const facets = labels.map(facetsOf);
  const facts = differing(facets).filter(([name]) => name !== "shared");
  if (labels.length < 9 || !facts.length) continue;
  const selects = facts.map(([name, values]) =>
    [name, make("select", {}, new Option("all", "*"), ...values.filter(Boolean).map((value) => new Option(value, value)))]);
  const apply = () => labels.forEach((label, place) => {
    const fits = selects.every(([name, select]) => select.value === "*" || facets[place][name] === select.value);
    label.querySelector("input").checked = fits || facets[place].shared === "shared";
  });
  selects.forEach(([, select]) => select.addEventListener("change", apply));
  legend.before(make("div", { className: "facets" }, "Only ", ...selects.map(([name, select]) => make("label", {}, `${name} `, select))));
}

/* Charts: the point nearest to the pointer, or the one the arrow keys lead to, tells its values. */

const tip = document.getElementById("tip");
let selected = null;

function tell(point) {
  if (point === selected && tip.hidden === !point) return;
  selected?.classList.remove("on");
  selected = point;
  tip.hidden = !point;
  if (!point) return;
  point.classList.add("on");
  tip.textContent = point.getAttribute("aria-label");
  const spot = point.getBoundingClientRect();
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, spot.left + spot.width / 2 - box.width / 2), innerWidth - box.width - 8);
  tip.style.left = `${left}px`;
  tip.style.top = `${spot.top > box.height + 14 ? spot.top - box.height - 8 : spot.bottom + 8}px`;
}

const place = (point) => [Number(point.dataset.x), Number(point.dataset.y)];

function nearest(points, x, y, stretch = 1) {
  const far = (point) => Math.hypot(place(point)[0] - x, (place(point)[1] - y) * stretch);
  return points.reduce((best, point) => (best && far(best) <= far(point) ? best : point), null);
}

function step(points, key) {
  if (!selected || !points.includes(selected)) return points[0] || null;
  const [x, y] = place(selected);
  const along = key === "ArrowLeft" || key === "ArrowRight";
  const own = points.filter((point) => (point.parentNode === selected.parentNode) === along && point !== selected);
  const ahead = own.filter((point) => {
    const [other, height] = place(point);
    return { ArrowLeft: other < x, ArrowRight: other > x, ArrowUp: height <= y, ArrowDown: height > y }[key];
  });
  return nearest(ahead, x, y, along ? 1 : 0.2) || selected;
}

for (const chart of all("svg.chart")) {
  const points = all(".pt", chart);
  for (const point of points) {
    const title = point.querySelector("title");
    point.setAttribute("role", "img");
    point.setAttribute("aria-label", title.textContent);
    title.remove(); // or the browser would tell it a second time
  }
  const shown = () => points.filter((point) => getComputedStyle(point.parentNode).display !== "none");
  chart.setAttribute("tabindex", "0");
  const point = (event) => {
    const box = chart.getBoundingClientRect();
    const scale = chart.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const found = nearest(shown(), x, y);
    tell(found && Math.hypot(place(found)[0] - x, place(found)[1] - y) < 40 ? found : null);
  };
  chart.addEventListener("pointermove", point);
  chart.addEventListener("pointerdown", point);
  chart.addEventListener("pointerleave", () => tell(null));
  chart.addEventListener("blur", () => tell(null));
  chart.addEventListener("keydown", (event) => {
    if (event.key === "Escape") tell(null);
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    tell(step(shown(), event.key));
  });
}

// What was selected stays the place from which the arrow keys go on.
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

/* The table of all means: sorted by a column, filtered by words, each mean opened into its trainings. */

function table(numbers) {
  const body = numbers.tBodies[0];
  const lines = [...body.rows];
  const heads = all("thead th", numbers);
  const trainings = JSON.parse(document.getElementById("trainings").textContent);

  function sort(column) {
    const head = heads[column];
    const falling = head.ariaSort === "ascending";
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const numeric = head.classList.contains("num");
    const value = (line) => (numeric ? parseFloat(line.cells[column].textContent) : line.cells[column].textContent);
    const keys = new Map(lines.map((line) => [line, value(line)]));
    const compare = (one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      // What was not measured stays at the end either way.
      if (numeric && (Number.isNaN(a) || Number.isNaN(b))) return Number.isNaN(a) - Number.isNaN(b);
      return (numeric ? a - b : a.localeCompare(b, "en", { numeric: true })) * (falling ? -1 : 1);
    };
    lines.sort(compare);
    closed();
    body.append(...lines);
  }

  function closed() {
    all("tr.opened", body).forEach((each) => each.remove());
    all("button[aria-expanded]", body).forEach((each) => each.setAttribute("aria-expanded", "false"));
  }

  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });

  const filter = document.getElementById("filter");
  const count = document.getElementById("count");
  filter.closest("label").hidden = false;
  filter.addEventListener("input", () => {
    closed();
    const words = filter.value.toLowerCase().split(/\s+/);
    lines.forEach((line) => {
      const text = [...line.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      line.hidden = !words.every((word) => text.includes(word));
    });
    count.textContent = `${lines.filter((line) => !line.hidden).length} of ${lines.length} shown`;
  });

  function opened(line) {
    const columns = ["Search seed", "Seed", "Top-1, %", "Run", "Command", "Commit", "Data"];
    const cells = (name, words) => words.map((each) => make(name, { textContent: each ?? "–" }));
    const rows = trainings.means[line.dataset.mean].map(([search, seed, top1, made]) =>
      make("tr", {}, ...cells("td", [search, seed, (100 * top1).toFixed(2), ...trainings.made[made]])));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", columns))), make("tbody", {}, ...rows));
    const cell = make("td", { colSpan: heads.length }, make("div", { className: "scroll", tabIndex: 0 }, table));
    return make("tr", { className: "opened" }, cell);
  }

  for (const line of lines) {
    const cell = line.cells[line.cells.length - 1];
    const button = make("button", { type: "button" }, ...cell.childNodes);
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-label", `${button.textContent} trainings: how this number was made`);
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) line.nextElementSibling.remove();
      else line.after(opened(line));
    });
    cell.append(button);
  }
}

const numbers = document.getElementById("numbers");
if (numbers) table(numbers);
