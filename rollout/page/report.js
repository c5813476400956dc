"use strict";
// Whatever was written by a model, a compiler or a data set enters the page through `textContent` alone.

const PAGE = 25, CONTEXT = 3, DIFF_CELLS = 4e6;
const $ = (id) => document.getElementById(id);
const { marks, problems } = JSON.parse($("index").textContent);
const samples = new Map(problems.flatMap((problem) => problem.samples.map((sample) => [sample.key, { problem, sample }])));

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);  // a string becomes a text node
  return made;
}

// ------------------------------------------------------------------ the table of problems

problems.forEach((problem, order) => {
  problem.order = order;
  problem.statuses = new Set(problem.samples.flatMap((sample) => sample.turns.map((turn) => turn[0])));
  problem.text = `${problem.key} ${problem.name}`.toLowerCase();
});
const view = { by: "order", down: false, page: 0, shown: problems };

function compare(a, b) {
  const x = a[view.by], y = b[view.by];
  if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order;  // unknown ones last, either way
  const found = typeof x === "string" ? x.localeCompare(y) : x - y;
  return (view.down ? -found : found) || a.order - b.order;
}

function filter() {
  const words = $("text").value.toLowerCase().split(/\s+/), level = $("level").value, status = $("status").value;
  view.shown = problems.filter((problem) =>
    words.every((word) => problem.text.includes(word)) &&
    (!level || problem.level === Number(level)) &&
    (!status || problem.statuses.has(status))).sort(compare);
  view.page = 0;
  draw();
}

function draw() {
  const first = view.page * PAGE, rows = view.shown.slice(first, first + PAGE);
  $("problems").tBodies[0].replaceChildren(...rows.map(row));
  const range = rows.length ? `${first + 1} to ${first + rows.length} of ` : "";
  $("count").textContent = `${range}${view.shown.length} problems (of ${problems.length})`;
  $("earlier").disabled = view.page === 0;
  $("later").disabled = first + PAGE >= view.shown.length;
  for (const head of document.querySelectorAll("#problems th[data-by]")) {
    if (head.dataset.by === view.by) head.setAttribute("aria-sort", view.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function row(problem) {
  const of = problem.samples.length, strip = element("div", { class: "samples" }, ...problem.samples.map(strips));
  for (const [place, mark] of [...strip.querySelectorAll("button")].entries()) mark.tabIndex = place ? -1 : 0;
  const cells = [
    ["Problem", problem.key], ["Name", problem.name], ["Correct", `${problem.correct} of ${of}`], ["Faster", `${problem.fast} of ${of}`],
    ["Best speedup", problem.speedup === null ? "–" : `${problem.speedup.toFixed(2)}x`],
    ["Best reward", problem.reward === null ? "–" : problem.reward.toFixed(3)], ["Turns", strip]];
  return element("tr", {}, ...cells.map(([label, content]) => element("td", { "data-label": label }, content)));
}

function strips(sample) {
  const ended = sample.why || !sample.turns.length ? [element("small", { title: sample.why || null }, sample.end)] : [];
  return element("div", { class: "sample", role: "group", "aria-label": sample.key }, ...sample.turns.map((_, index) => mark(sample, index)), ...ended);
}

function mark(sample, index) {
  const [status, reward, speedup] = sample.turns[index], [sign, kind] = marks[status];
  const worth = (reward === null ? "unscored" : `reward ${reward.toFixed(3)}`) + (speedup === null ? "" : `, ${speedup.toFixed(2)}x`);
  const told = `${sample.key} turn ${index + 1}: ${status}, ${worth}`;
  return element("button", { type: "button", class: `mark ${kind}`, "data-turn": `${sample.key}/${index + 1}`, title: told, "aria-label": told }, sign);
}

function move(event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  if (!(event.key in steps) || !event.target.matches(".mark")) return;
  const strip = [...event.target.closest(".samples, nav").querySelectorAll(".mark")];
  const place = Math.min(Math.max(strip.indexOf(event.target) + steps[event.key], 0), strip.length - 1);
  for (const each of strip) each.tabIndex = -1;
  strip[place].tabIndex = 0;
  strip[place].focus();
  event.preventDefault();
}

// ------------------------------------------------------------------ one turn

async function unpacked(key) {
  const bytes = Uint8Array.from(atob($(key).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return JSON.parse(await new Response(stream).text());
}

async function show() {
  const asked = location.hash, [key, number] = decodeURIComponent(asked.slice(1)).split("/"), found = samples.get(key), index = Number(number) - 1;
  if (!found || !found.sample.turns[index]) return $("turn").close();
  const { texts, turns } = await unpacked(key);
  if (location.hash !== asked) return;  // another one was asked for in the meantime
  $("turn-title").textContent = `${key} ${found.problem.name}: turn ${index + 1} of ${turns.length}`;
  $("turn-nav").replaceChildren(...turns.map((_, each) => mark(found.sample, each)));
  for (const [each, made] of [...$("turn-nav").children].entries()) made.tabIndex = each === index ? 0 : -1;
  const current = $("turn-nav").children[index];
  current.setAttribute("aria-current", "true");
  $("turn-body").replaceChildren(...sections(texts, turns, index));
  $("turn").dataset.shown = `${key}/${index + 1}`;
  if (!$("turn").open) $("turn").showModal();
  current.focus();
  $("turn").scrollTop = 0;
}

function sections(texts, turns, index) {
  const turn = turns[index], before = turns[index - 1], code = turn.code === null ? null : texts[turn.code];
  const earlier = before && before.code !== null ? texts[before.code] : null;
  const facts = turn.facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  const known = before ? before.shown.length : 0;
  const messages = turn.shown.map(([role, text], place) =>
    section(`Prompt, message ${place + 1} of ${turn.shown.length}: ${role}`, plain(texts[text]), place === turn.shown.length - 1 || place > known));
  return [
    element("dl", {}, ...facts),
    written("Compiler output and errors", texts[turn.message]),
    written("The candidate printed", texts[turn.log]),
    code !== null && earlier !== null ? section(`Code, changes since turn ${index}`, difference(earlier, code), true) : null,
    code === null ? element("p", {}, "The reply has no code.") : section("Code", element("pre", { class: "code", tabindex: 0 }, code), earlier === null),
    ...messages,
    written("Reasoning", texts[turn.reasoning]),
    section("Reply", plain(texts[turn.reply]), true),
    written("Feedback", texts[turn.feedback])].filter((part) => part !== null);
}

const plain = (text) => element("pre", { tabindex: 0 }, text);
const section = (title, content, open) => element("details", open ? { open: "" } : {}, element("summary", {}, title), content);
const written = (title, text) => (text ? section(title, plain(text), true) : null);

// ------------------------------------------------------------------ differences

function difference(before, after) {
  const lines = changes(before.split("\n"), after.split("\n")), shown = element("pre", { class: "code diff", tabindex: 0 });
  const near = new Uint8Array(lines.length);
  lines.forEach(([sign], place) => { if (sign !== " ") near.fill(1, Math.max(place - CONTEXT, 0), place + CONTEXT + 1); });
  for (let place = 0; place < lines.length; place++) {
    if (near[place]) {
      const [sign, text] = lines[place];
      shown.append(element("span", { class: { "+": "added", "-": "removed", " ": "same" }[sign] }, `${sign} ${text}`));
      continue;
    }
    const start = place;
    while (place + 1 < lines.length && !near[place + 1]) place++;
    shown.append(element("span", { class: "skipped" }, `  … ${place - start + 1} lines are the same`));
  }
  return shown;
}

// Lines with "+", "-" or " ": by the longest common subsequence. What differs too widely for that is replaced as a whole.
function changes(a, b) {
  let start = 0, end = 0;
  while (start < Math.min(a.length, b.length) && a[start] === b[start]) start++;
  while (end < Math.min(a.length, b.length) - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const same = (lines) => lines.map((line) => [" ", line]);
  const middle = between(a.slice(start, a.length - end), b.slice(start, b.length - end));
  return [...same(a.slice(0, start)), ...middle, ...same(a.slice(a.length - end))];
}

function between(a, b) {
  const width = b.length + 1, found = [];
  if (a.length * b.length > DIFF_CELLS) return [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])];
  const common = new Uint16Array((a.length + 1) * width);  // of what is left of both, at most the root of DIFF_CELLS
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      common[i * width + j] = a[i] === b[j] ? common[(i + 1) * width + j + 1] + 1 : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { found.push([" ", a[i]]); i++; j++; }
    else if (i < a.length && (j === b.length || common[(i + 1) * width + j] >= common[i * width + j + 1])) found.push(["-", a[i++]]);
    else found.push(["+", b[j++]]);
  }
  return found;
}

// ------------------------------------------------------------------ start

for (const level of [...new Set(problems.map((problem) => problem.level))].sort((a, b) => a - b)) $("level").append(element("option", {}, String(level)));
for (const [status, [sign, kind]] of Object.entries(marks)) {
  if (!problems.some((problem) => problem.statuses.has(status))) continue;
  $("status").append(element("option", {}, status));
  $("legend").append(element("span", {}, element("span", { class: `mark ${kind}` }, sign), status));
}
$("filters").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("reset", () => setTimeout(filter));
$("earlier").addEventListener("click", () => { view.page--; draw(); });
$("later").addEventListener("click", () => { view.page++; draw(); });
for (const head of document.querySelectorAll("#problems th[data-by]")) {
  head.firstElementChild.addEventListener("click", () => {
    const by = head.dataset.by, text = by === "order" || by === "name";
    Object.assign(view, { by, down: by === view.by ? !view.down : !text });
    filter();
  });
}
document.addEventListener("click", (event) => {
  const turn = event.target.closest("[data-turn]");
  if (turn) location.hash = turn.dataset.turn;
});
document.addEventListener("keydown", move);
$("close").addEventListener("click", () => $("turn").close());
$("turn").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
$("turn").addEventListener("click", (event) => { if (event.target === $("turn")) $("turn").close(); });
window.addEventListener("hashchange", show);
draw();
if (location.hash) show();
