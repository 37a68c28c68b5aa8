"use strict";
// Draws the report from the JSON beside it. Text from the run enters the page by textContent alone.
const run = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");

function make(tag, about = {}, ...children) {
  const svg = ["svg", "line", "path", "circle", "text", "rect", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const section = (id) => document.getElementById(id);
const missing = (text) => make("p", { class: "missing", text });
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

function number(value, digits = 3) {
  if (!isNumber(value)) return "-";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1).replace(/\.?0+e/, "e");
  if (Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(size >= 1000 ? 4 : digits)));
}
const percent = (value, digits = 1) => (isNumber(value) ? `${(100 * value).toFixed(digits)} %` : "-");
// As many decimals as tell neighbouring ticks apart.
const decimals = (step) => Math.max(0, Math.ceil(-Math.log10(step) - 1e-9 + (String(step / 10 ** Math.floor(Math.log10(step))).startsWith("2.5") ? 1 : 0)));
const tickPercent = (value, step) => percent(value, decimals(100 * step));
const tickNumber = (value, step) => (step < 1e-4 || Math.abs(value) >= 1e5 ? number(value) : String(Number(value.toFixed(decimals(step)))));
const signed = (value, digits = 2) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(digits)}`;
const plain = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));

function showTip(event, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = event.clientX + 14 + width > innerWidth - 8;
  const below = event.clientY + 16 + height < innerHeight - 8;
  tip.style.left = `${Math.max(8, right ? event.clientX - width - 14 : event.clientX + 14)}px`;
  tip.style.top = `${Math.max(8, below ? event.clientY + 16 : event.clientY - height - 12)}px`;
}
const hideTip = () => { tip.hidden = true; };
const tipRow = (name, value) => make("div", {}, make("span", { text: name }), make("b", { text: value }));

// ---- header -------------------------------------------------------------------------------------

function header() {
  section("facts").append(...run.facts.map(([name, value]) =>
    make("div", {}, make("dt", { text: name }), make("dd", { text: value }))));
  section("files").append(...run.links.map((link) => make("a", { href: link, text: link })));
}

// ---- before and after ---------------------------------------------------------------------------

const PLAYERS = {
  random: ["Random actions", "floor"],
  expert: ["Expert", "ceiling"],
  sft: ["Warm start (SFT)", "before"],
  sft_double: ["SFT with twice the demonstrations", "for comparison"],
};

function player(result) {
  if (result.name === "final") return [`After ${run.method}`, `step ${result.step}`];
  if (result.name === "step") return [`Step ${result.step}`, null];
  return PLAYERS[result.name] ?? [result.name, result.step ? `step ${result.step}` : null];
}

function intervalBar(result) {
  const x = (share) => 5 + 170 * share;
  const line = (x1, x2, y1, y2, name) => make("line", { x1, x2, y1, y2, class: name });
  const label = `${percent(result.success)}, 95 % interval ${percent(result.low)} to ${percent(result.high)}`;
  const bar = make("svg", { class: "bar", viewBox: "0 0 180 22", role: "img", "aria-label": label });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) bar.append(line(x(share), x(share), 2, 20, "gridline"));
  if (isNumber(result.success)) bar.append(make("rect", { class: "amount", x: x(0), y: 5, width: x(result.success) - x(0), height: 12, rx: 2 }));
  bar.append(line(x(result.low), x(result.high), 11, 11, "whisker"));
  for (const end of [result.low, result.high]) bar.append(line(x(end), x(end), 7, 15, "whisker"));
  if (isNumber(result.success)) bar.append(make("circle", { cx: x(result.success), cy: 11, r: 4, class: "point" }));
  return bar;
}

function failuresOf(result) {
  const parts = Object.entries(result.failures).map(([where, count]) => `${where} ${count}`);
  return parts.length ? parts.join(", ") : "0";
}

function resultTable(results) {
  const ks = [...new Set(results.flatMap((r) => Object.keys(r.pass_at_k)))].map(Number).filter((k) => k > 1).sort((a, b) => a - b);
  const numeric = ["Episodes", "Reward", "Turns", "Tokens", "Invalid turns", ...ks.map((k) => `pass@${k}`), "Failures"];
  const head = make("tr", {}, make("th", { text: "Policy" }), make("th", { text: "Success, 95 % interval" }),
    make("th", { text: "0 to 100 %" }), ...numeric.map((text) => make("th", { class: "number", text })));
  const rows = results.map((r) => {
    const [name, note] = player(r);
    const failed = Object.values(r.failures).reduce((a, b) => a + b, 0);
    const cells = [r.episodes - failed, number(r.reward), number(r.turns), number(r.tokens), percent(r.invalid),
      ...ks.map((k) => percent(r.pass_at_k[k])), failuresOf(r)];
    return make("tr", { class: r.name === "final" && "main" },
      make("td", {}, name, note && make("small", { text: note })),
      make("td", {}, percent(r.success), make("small", { text: `${percent(r.low)} to ${percent(r.high)}` })),
      make("td", {}, intervalBar(r)), ...cells.map((text) => make("td", { class: "number", text })));
  });
  return make("div", { class: "card scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

function seedTable(rows) {
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))].sort((a, b) => (b === "seed") - (a === "seed"));
  const cell = (key, value) => (value === undefined || value === null ? "-"
    : key.startsWith("success") && isNumber(value) ? percent(value) : isNumber(value) ? number(value, 4) : plain(value));
  return make("details", { class: "fold", open: rows.length > 1 },
    make("summary", { text: rows.length > 1 ? `All ${rows.length} seeds` : "Summary of this seed" }),
    make("div", { class: "card scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ...keys.map((key) => make("th", { class: "number", text: key.replaceAll("_", " ") })))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...keys.map((key) => make("td", { class: "number", text: cell(key, row[key]) }))))))));
}

function result() {
  const here = section("result");
  if (run.evals.length) {
    const { tasks, samples } = run.evals.find((r) => r.name === "final") ?? run.evals[0];
    const splits = [...new Set(run.evals.map((r) => r.split))].join(", ");
    here.append(resultTable(run.evals), make("p", { class: "note", text:
      `Policies are sampled, not greedy, on ${tasks} tasks of split ${splits}, ${samples} episode${samples > 1 ? "s" : ""} each. Wilson intervals at 95 %. `
      + "Reward, turns and tokens are means per episode; failures are episodes that the machinery broke, and enter no other number." }));
  } else here.append(missing("There are no evaluations in this run folder (evals.jsonl is missing or empty)."));
  if (run.dev_evals.length) {
    here.append(make("details", { class: "fold" },
      make("summary", { text: `${run.dev_evals.length} evaluations during training (split ${run.dev_evals[0].split})` }), resultTable(run.dev_evals)));
  }
  const seeds = Array.isArray(run.summary) ? run.summary.filter((row) => row && typeof row === "object") : [];
  if (seeds.length) here.append(seedTable(seeds));
}

// ---- curves -------------------------------------------------------------------------------------

function ticks(low, high, about) {
  const raw = (high - low || 1) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step) found.push(Math.abs(t) < step * 1e-6 ? 0 : t);
  return found;
}

function runningMean(ys) {
  const reach = Math.floor(ys.length / 24);
  return ys.map((_, i) => {
    const near = ys.slice(Math.max(0, i - reach), i + reach + 1).filter(isNumber);
    return near.length ? near.reduce((a, b) => a + b, 0) / near.length : null;
  });
}

// A schedule or a slow drift is drawn as it is; only what jumps up and down gets a running mean.
function isNoisy(ys) {
  const steps = ys.filter(isNumber).map((y, i, all) => (i ? Math.sign(y - all[i - 1]) : 0)).filter((sign) => sign !== 0);
  const turns = steps.filter((sign, i) => i && sign !== steps[i - 1]).length;
  return ys.length >= 24 && turns > 0.2 * ys.length;
}

function path(xs, ys, X, Y) {
  let d = "", pen = false;
  ys.forEach((y, i) => {
    if (isNumber(y)) d += `${pen ? "L" : "M"}${X(xs[i]).toFixed(1)} ${Y(y).toFixed(1)}`;
    pen = isNumber(y);
  });
  return d;
}

// Each series on top of those before it, for counts of different kinds.
function stack(series) {
  const floor = new Map();
  return series.map((s) => {
    const base = s.x.map((x) => floor.get(x) ?? 0);
    const y = s.y.map((value, i) => base[i] + (isNumber(value) ? value : 0));
    s.x.forEach((x, i) => floor.set(x, y[i]));
    return { ...s, base, y, own: s.y };
  });
}

function bars(s, i, X, Y, width) {
  return s.x.flatMap((x, at) => (isNumber(s.own[at]) && s.own[at] > 0
    ? [make("rect", { class: `bar-${i}`, x: X(x) - width / 2, y: Y(s.y[at]), width, height: Y(s.base[at]) - Y(s.y[at]) })] : []));
}

const shortName = (key) => key.split("/").at(-1).replace(/_s$/, "").replace(/^failed_/, "").replaceAll("_", " ");

// Names of horizontal levels, those that would cover each other on different sides.
function levelNames(levels, Y, left, right) {
  const ends = [["end", right - 2], ["start", left + 2]];
  let before = Infinity, side = 0;
  return [...levels].sort((a, b) => a.success - b.success).map((r) => {
    side = before - Y(r.success) < 12 ? 1 - side : 0;
    before = Y(r.success);
    return make("text", { x: ends[side][1], y: Y(r.success) - 4, class: "name", "text-anchor": ends[side][0], text: r.name });
  });
}

function chart(panel) {
  const [W, H, left, right, bottom] = [360, 178, 44, 12, 22];
  let series = panel.keys.map((key) => ({ key, ...run.curves[key] }));
  const isSuccess = panel.keys[0] === "rollout/success";
  const top = isSuccess ? 18 : 10;
  const dev = isSuccess ? run.dev_evals.filter((r) => isNumber(r.success)) : [];
  const levels = isSuccess ? run.evals.filter((r) => ["random", "sft", "expert"].includes(r.name) && isNumber(r.success)) : [];
  const empty = (text) => make("figure", { class: "card" },
    make("figcaption", {}, panel.title, make("small", { text: panel.note })), make("p", { class: "nothing", text }));
  if (!series.some((s) => s.y.some(isNumber))) return empty("never a finite value");
  if (panel.stacked && !series.some((s) => s.y.some((y) => y > 0))) {
    const steps = Math.max(...series.map((s) => s.x.at(-1) ?? 0));
    return empty(`none in ${steps} step${steps === 1 ? "" : "s"}`);
  }
  if (panel.stacked) series = stack(series.filter((s) => s.y.some((y) => y > 0)));
  const values = series.flatMap((s) => s.y).filter(isNumber);
  const asShare = panel.percent && Math.max(...values) <= 1 + 1e-9 && Math.min(...values) >= 0;
  const say = asShare ? (v) => percent(v) : (v) => number(v, 4);
  const xs = [...new Set([...series.flatMap((s) => s.x), ...dev.map((r) => r.step)])].sort((a, b) => a - b);
  let [low, high] = isSuccess ? [0, 1] : [Math.min(...values), Math.max(...values)];
  if (!isSuccess) {
    if (asShare || panel.stacked || (low > 0 && low < high * 0.6)) low = 0;
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = [low === 0 ? 0 : low - room, high + room];
  }
  const X = (x) => left + ((x - xs[0]) / (xs.at(-1) - xs[0] || 1)) * (W - left - right);
  const Y = (y) => H - bottom - ((y - low) / (high - low)) * (H - top - bottom);
  const first = series[0].y.find(isNumber), last = series[0].y.findLast(isNumber);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${panel.title}: from ${say(first)} to ${say(last)}` });
  const marks = ticks(low, high, 4);
  const between = marks.length > 1 ? marks[1] - marks[0] : 1;
  for (const y of marks) {
    svg.append(make("line", { class: "gridline", x1: left, x2: W - right, y1: Y(y), y2: Y(y) }),
      make("text", { x: left - 6, y: Y(y) + 3.5, "text-anchor": "end", text: asShare ? tickPercent(y, between) : tickNumber(y, between) }));
  }
  for (const x of ticks(xs[0], xs.at(-1), 5).filter(Number.isInteger)) {
    svg.append(make("text", { x: X(x), y: H - 6, "text-anchor": "middle", text: x }));
  }
  svg.append(make("line", { class: "axis", x1: left, x2: W - right, y1: H - bottom, y2: H - bottom }));
  for (const r of levels) svg.append(make("line", { class: "level", x1: left, x2: W - right, y1: Y(r.success), y2: Y(r.success) }));
  series.forEach((s, i) => {
    if (panel.stacked) {
      svg.append(...bars(s, i, X, Y, Math.min(14, Math.max(1, (0.8 * (W - left - right)) / xs.length))));
      return;
    }
    const smooth = isNoisy(s.y);
    svg.append(make("path", { class: `curve line-${i}${smooth ? " raw" : ""}`, d: path(s.x, s.y, X, Y) }));
    if (smooth) svg.append(make("path", { class: `curve line-${i}`, d: path(s.x, runningMean(s.y), X, Y) }));
    const only = s.y.filter(isNumber).length === 1 ? s.y.findIndex(isNumber) : -1;
    if (only >= 0) svg.append(make("circle", { class: `dot line-${i}`, cx: X(s.x[only]), cy: Y(s.y[only]), r: 2.5 }));
  });
  for (const r of dev) {
    svg.append(make("line", { class: "whisker", x1: X(r.step), x2: X(r.step), y1: Y(r.low), y2: Y(r.high) }),
      make("circle", { class: "point", cx: X(r.step), cy: Y(r.success), r: 3.2 }));
  }
  svg.append(...levelNames(levels, Y, left, W - right));
  const cursor = make("line", { class: "cursor", x1: 0, x2: 0, y1: top, y2: H - bottom });
  svg.append(cursor);
  svg.addEventListener("pointerleave", () => { hideTip(); cursor.style.visibility = "hidden"; });
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * W;
    const x = xs.reduce((best, candidate) => (Math.abs(X(candidate) - at) < Math.abs(X(best) - at) ? candidate : best));
    cursor.setAttribute("x1", X(x));
    cursor.setAttribute("x2", X(x));
    cursor.style.visibility = "visible";
    const rows = series.flatMap((s) => { const i = s.x.indexOf(x); return i < 0 ? [] : [tipRow(s.key, isNumber((s.own ?? s.y)[i]) ? say((s.own ?? s.y)[i]) : "not finite")]; });
    const evaluated = dev.filter((r) => r.step === x).map((r) => tipRow(r.split, `${percent(r.success)} (${percent(r.low)} to ${percent(r.high)})`));
    showTip(event, tipRow("step", x), ...rows, ...evaluated);
  });
  const names = series.length > 1 ? make("div", { class: "keys" }, ...series.map((s, i) =>
    make("span", {}, make("i", { class: `fill-${i}` }), shortName(s.key)))) : null;
  const note = dev.length ? "circles: evaluations, with intervals" : panel.note;
  return make("figure", { class: "card" }, make("figcaption", {}, panel.title, make("small", { text: note })), names, svg);
}

function curves() {
  const here = section("curves");
  if (!run.panels.length && !run.other_panels.length) {
    here.append(missing("There are no metrics in this run folder (metrics.jsonl is missing or empty)."));
    return;
  }
  here.append(make("div", { class: "grid" }, ...run.panels.map(chart)));
  here.append(make("p", { class: "note", text: "Over training steps. Where a curve is noisy, thin is as measured and thick a running mean. Point at a chart for its values." }));
  if (run.other_panels.length) here.append(otherMetrics());
}

// Drawn when opened: a run may log hundreds.
function otherMetrics() {
  const groups = Map.groupBy ? Map.groupBy(run.other_panels, (panel) => panel.group) : run.other_panels.reduce(
    (found, panel) => found.set(panel.group, [...(found.get(panel.group) ?? []), panel]), new Map());
  const within = make("div");
  const fill = () => {
    if (within.children.length) return;
    for (const [group, members] of groups) {
      within.append(make("h3", { text: group || "without a group" }), make("div", { class: "grid" }, ...members.map(chart)));
    }
  };
  return make("details", { class: "fold", ontoggle: fill },
    make("summary", { text: `All other metrics (${run.other_panels.length}): ${[...groups.keys()].map((g) => g || "-").join(", ")}` }), within);
}

// ---- doctor -------------------------------------------------------------------------------------

function doctor() {
  const here = section("doctor");
  if (!run.doctor.length) {
    here.append(missing("No check of the training metrics found anything."));
    return;
  }
  const rows = run.doctor.map((f) => make("tr", {}, make("td", { text: f.kind }), make("td", { class: "number", text: f.step }),
    make("td", { class: "wide", text: f.what }), make("td", { class: "wide", text: f.try })));
  here.append(make("div", { class: "card scroll" }, make("table", {}, make("thead", {}, make("tr", {},
    ...["Found", "First at step", "Figures", "Try"].map((text, i) => make("th", { class: i === 1 ? "number" : null, text })))), make("tbody", {}, ...rows))));
}

// ---- failures -----------------------------------------------------------------------------------

function failures() {
  const here = section("failures");
  if (!run.failures.length) {
    here.append(missing(run.n_episodes ? `None of the ${run.n_episodes} episodes on disk was broken by the environment, the engine or the reward.`
      : "There are no episodes in this run folder (trajectories/ is missing or empty)."));
    return;
  }
  const span = (f) => (f.first_step === f.last_step ? String(f.first_step) : `${f.first_step} to ${f.last_step}`);
  const head = ["Broke", "What it said", "Episodes", "Steps", "While"];
  const rows = run.failures.map((f) => make("tr", {}, make("td", { text: f.where }), make("td", { class: "wide", text: f.text }),
    make("td", { class: "number", text: f.episodes }), make("td", { class: "number", text: span(f) }), make("td", { text: f.phases.join(", ") })));
  const total = run.failures.reduce((sum, f) => sum + f.episodes, 0);
  here.append(make("div", { class: "card scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((text, i) => make("th", { class: i === 2 || i === 3 ? "number" : null, text })))), make("tbody", {}, ...rows))),
  make("p", { class: "note", text: `${total} of ${run.n_episodes} episodes on disk, by what broke; messages that differ in numbers only are counted together, and the first is shown. Such episodes are never trained on.` }));
}

// ---- settings -----------------------------------------------------------------------------------

function settings() {
  const config = run.config ? make("details", { class: "card" }, make("summary", { text: "config.yaml, as resolved" }), make("pre", { text: run.config }))
    : missing("There is no config.yaml in this run folder.");
  const versions = run.versions && typeof run.versions === "object" ? make("div", { class: "card scroll" }, make("table", { class: "pair" }, make("tbody", {},
    ...Object.entries(run.versions).map(([name, value]) => make("tr", {}, make("td", { text: name }), make("td", { text: plain(value) }))))))
    : missing("There is no versions.json in this run folder.");
  section("settings").append(make("div", { class: "columns" }, config, versions));
}
