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

function chart(panel) {
  const [W, H, left, right, bottom] = [360, 178, 44, 12, 22];
  const series = panel.keys.slice(0, 5).map((key) => ({ key, ...run.curves[key] }));
  const isSuccess = panel.keys[0] === "rollout/success";
  const top = isSuccess ? 18 : 10;
  const dev = isSuccess ? run.dev_evals.filter((r) => isNumber(r.success)) : [];
  const levels = isSuccess ? run.evals.filter((r) => ["random", "sft", "expert"].includes(r.name) && isNumber(r.success)) : [];
  const values = series.flatMap((s) => s.y).filter(isNumber);
  if (!values.length) return make("figure", { class: "card" }, make("figcaption", { text: panel.title }), make("p", { class: "note", text: "never a finite value" }));
  const asShare = panel.percent && Math.max(...values) <= 1 + 1e-9 && Math.min(...values) >= 0;
  const say = asShare ? (v) => percent(v) : (v) => number(v, 4);
  const xs = [...new Set([...series.flatMap((s) => s.x), ...dev.map((r) => r.step)])].sort((a, b) => a - b);
  let [low, high] = isSuccess ? [0, 1] : [Math.min(...values), Math.max(...values)];
  if (!isSuccess) {
    if (low > 0 && low < high * 0.6) low = 0;
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = [low === 0 ? 0 : low - room, high + room];
  }
  const X = (x) => left + ((x - xs[0]) / (xs.at(-1) - xs[0] || 1)) * (W - left - right);
  const Y = (y) => H - bottom - ((y - low) / (high - low)) * (H - top - bottom);
  const first = series[0].y.find(isNumber), last = series[0].y.findLast(isNumber);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${panel.title}: from ${say(first)} to ${say(last)}` });
  for (const y of ticks(low, high, 4)) {
    svg.append(make("line", { class: "gridline", x1: left, x2: W - right, y1: Y(y), y2: Y(y) }),
      make("text", { x: left - 6, y: Y(y) + 3.5, "text-anchor": "end", text: asShare ? percent(y, 0) : number(y) }));
  }
  for (const x of ticks(xs[0], xs.at(-1), 5).filter(Number.isInteger)) {
    svg.append(make("text", { x: X(x), y: H - 6, "text-anchor": "middle", text: x }));
  }
  svg.append(make("line", { class: "axis", x1: left, x2: W - right, y1: H - bottom, y2: H - bottom }));
  for (const r of levels) {
    svg.append(make("line", { class: "level", x1: left, x2: W - right, y1: Y(r.success), y2: Y(r.success) }),
      make("text", { x: W - right - 2, y: Y(r.success) - 4, class: "name", "text-anchor": "end", text: r.name }));
  }
  series.forEach((s, i) => {
    const smooth = isNoisy(s.y);
    svg.append(make("path", { class: `curve line-${i}${smooth ? " raw" : ""}`, d: path(s.x, s.y, X, Y) }));
    if (smooth) svg.append(make("path", { class: `curve line-${i}`, d: path(s.x, runningMean(s.y), X, Y) }));
  });
  for (const r of dev) {
    svg.append(make("line", { class: "whisker", x1: X(r.step), x2: X(r.step), y1: Y(r.low), y2: Y(r.high) }),
      make("circle", { class: "point", cx: X(r.step), cy: Y(r.success), r: 3.2 }));
  }
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
    const rows = series.flatMap((s) => { const i = s.x.indexOf(x); return i < 0 ? [] : [tipRow(s.key, isNumber(s.y[i]) ? say(s.y[i]) : "not finite")]; });
    const evaluated = dev.filter((r) => r.step === x).map((r) => tipRow(r.split, `${percent(r.success)} (${percent(r.low)} to ${percent(r.high)})`));
    showTip(event, tipRow("step", x), ...rows, ...evaluated);
  });
  const names = series.length > 1 ? make("div", { class: "keys" }, ...series.map((s, i) =>
    make("span", {}, make("i", { class: `fill-${i}` }), s.key.split("/").at(-1).replace(/_s$/, "")))) : null;
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
  if (run.other_panels.length) {
    const grid = make("div", { class: "grid" });
    here.append(make("details", { class: "fold", ontoggle: () => { if (!grid.children.length) grid.append(...run.other_panels.map(chart)); } },
      make("summary", { text: `All other metrics (${run.other_panels.length})` }), grid));
  }
}

// ---- episodes -----------------------------------------------------------------------------------

const spansOf = (episode) => episode.turns.flatMap((turn) => turn.spans);
const largest = Math.max(1e-9, ...run.episodes.flatMap(spansOf).flatMap((s) => s.advantages ?? []).filter(isNumber).map(Math.abs));
let colourBy = "advantage";

function paint(chip) {
  const { advantage, logprob } = chip.facts;
  let colour = "";
  if (colourBy === "advantage" && isNumber(advantage) && advantage !== 0) {
    const strength = 0.1 + 0.5 * Math.abs(advantage) / largest;
    colour = `rgba(var(${advantage > 0 ? "--plus" : "--minus"}), ${strength.toFixed(3)})`;
  } else if (colourBy === "probability" && isNumber(logprob)) {
    colour = `rgba(var(--minus), ${(0.6 * (1 - Math.exp(logprob))).toFixed(3)})`;
  }
  chip.style.backgroundColor = colour;
}

function chipText(piece) {
  if (piece === "") return [make("span", { class: "mark", text: "\u2205" })];
  const parts = [];
  for (const part of piece.split(/(\n|\t)/)) {
    if (part === "\n") parts.push(make("span", { class: "mark", text: "\u21b5" }));
    else if (part === "\t") parts.push(make("span", { class: "mark", text: "\u21e5" }));
    else if (part !== "" && part.trim() === "") parts.push(make("span", { class: "mark", text: "\u00b7".repeat(part.length) }));
    else if (part) parts.push(part);
  }
  return parts;
}

function describe(chip) {
  const { piece, id, sampled, advantage, logprob } = chip.facts;
  const rows = [make("code", { text: JSON.stringify(piece) }), tipRow("token id", id)];
  if (!sampled) return [...rows, tipRow("mask", "0: prompt, not trained")];
  rows.push(tipRow("mask", "1: sampled"));
  rows.push(tipRow("logprob", isNumber(logprob) ? `${logprob.toFixed(4)} (${percent(Math.exp(logprob))})` : "not finite"));
  rows.push(tipRow("advantage", isNumber(advantage) ? signed(advantage, 4) : "none: not trained on"));
  return rows;
}

function chips(span) {
  return span.pieces.flatMap((index, i) => {
    const facts = { piece: run.pieces[index], id: span.ids[i], sampled: span.sampled, logprob: span.logprobs?.[i], advantage: span.advantages?.[i] };
    const chip = make("span", { class: `tok${span.sampled ? " sampled" : ""}` }, ...chipText(facts.piece));
    chip.facts = facts;
    if (span.sampled) {
      chip.append(make("span", { class: "numbers", text: `lp ${isNumber(facts.logprob) ? signed(facts.logprob).replace("+", "") : "-"}` }),
        make("span", { class: "numbers", text: `A ${isNumber(facts.advantage) ? signed(facts.advantage) : "-"}` }));
      paint(chip);
    }
    const gap = span.cut && span.cut.at === i ? [make("span", { class: "gap", text: `${span.cut.tokens} tokens left out` })] : [];
    return [...gap, chip, facts.piece.endsWith("\n") ? make("br") : null].filter(Boolean);
  });
}

function turn(one) {
  const badge = (text, warns = false) => make("span", { class: warns ? "badge warn" : "badge", text });
  const reward = isNumber(one.reward) && one.reward !== 0 ? `reward ${number(one.reward, 4)}` : null;
  const side = make("div", { class: "side" }, make("p", {}, make("b", { text: `Turn ${one.number + 1}` })),
    make("p", {}, one.invalid ? badge("invalid action", true) : null, one.finish === "length" ? badge("cut off", true) : null,
      one.new_row && one.number > 0 ? badge(`new row ${one.row}: history rewritten`) : null),
    one.action === null ? null : make("p", { class: "act", text: one.action, title: "the action that the environment got" }),
    reward && make("p", { text: reward }), one.state_key && make("p", { text: `state ${one.state_key}` }));
  const shots = one.images.map((hash) => (run.images[hash] ? make("img", { src: run.images[hash], alt: `observation of turn ${one.number + 1}` })
    : make("span", { class: "gap", text: "a picture is left out to keep this page small" })));
  const tokens = make("div", { class: "tokens" }, ...one.spans.flatMap(chips));
  return make("div", { class: "turn" }, side, make("div", {}, shots.length ? make("div", { class: "shots" }, ...shots) : null, tokens));
}

const STOPS = {
  done: "the environment ended the episode", max_turns: "cut off at the limit of turns", max_tokens: "cut off at the limit of tokens",
  bad_action: "ended by an action that could not be read", timeout: "something did not answer in time", error: "something broke",
};

function body(episode) {
  const facts = [["task", episode.task], ["task seed", episode.seed], ["group", `${episode.group}, sibling ${episode.sibling}`],
    ["return", number(episode.env_return, 4)], ["score", number(episode.reward, 4)], ["seconds", number(episode.seconds)]];
  const parts = Object.entries(episode.parts);
  if (parts.length > 1) facts.push(...parts.map(([name, value]) => [`part ${name}`, number(value, 4)]));
  const about = make("div", { class: "about" }, make("dl", { class: "facts" }, ...facts.map(([name, value]) =>
    make("div", {}, make("dt", { text: name }), make("dd", { text: value })))));
  const turns = [];
  episode.turns.forEach((one, i) => {
    const before = i ? episode.turns[i - 1].number + 1 : 0;
    if (one.number > before) turns.push(make("p", { class: "stop", text: `${one.number - before} turns left out` }));
    turns.push(turn(one));
  });
  const stop = make("div", { class: "stop" }, make("b", { text: `Stop: ${episode.stop}` }), STOPS[episode.stop] ? `, ${STOPS[episode.stop]}.` : ".");
  return [about, episode.failure && make("p", { class: "failure", text: episode.failure }), ...turns, stop].filter(Boolean);
}

function episodeCard(episode, isOpen) {
  const broken = ["timeout", "error"].includes(episode.stop) || episode.failure;
  const [kind, word] = broken ? ["broken", "! broken"] : episode.success ? ["yes", "\u2713 success"] : ["no", "\u2715 failure"];
  const from = episode.phase === "train" ? `training, step ${episode.step}` : episode.phase === "eval" ? `${episode.label} evaluation` : "demonstration";
  const invalid = episode.turns.filter((one) => one.invalid).length;
  const brief = [`${episode.n_turns} turn${episode.n_turns === 1 ? "" : "s"}`, isNumber(episode.reward) ? `reward ${number(episode.reward)}` : null,
    invalid ? `${invalid} invalid` : null, episode.stop].filter(Boolean).join(" \u00b7 ");
  const card = make("details", { class: "episode card", ontoggle: () => fill() },
    make("summary", {}, make("span", { class: `verdict ${kind}`, text: word }), make("span", { class: "from", text: from }),
      make("span", { class: "goal", text: episode.instruction || episode.task }), make("span", { class: "brief", text: brief })));
  const fill = () => { if (card.open && card.children.length === 1) card.append(...body(episode)); };
  card.open = isOpen;
  fill();
  return card;
}

function tools(list) {
  const ramp = make("span", { class: "ramp advantage" });
  const low = make("span"), high = make("span");
  const label = () => {
    ramp.className = `ramp ${colourBy}`;
    low.textContent = colourBy === "advantage" ? signed(-largest) : "unlikely";
    high.textContent = colourBy === "advantage" ? signed(largest) : "certain";
  };
  const choice = make("select", { "aria-label": "colour tokens by", onchange: (event) => {
    colourBy = event.target.value;
    label();
    list.querySelectorAll(".tok.sampled").forEach(paint);
  } }, make("option", { value: "advantage", text: "advantage" }), make("option", { value: "probability", text: "probability" }));
  label();
  const toggle = make("input", { type: "checkbox", onchange: (event) => list.classList.toggle("with-numbers", event.target.checked) });
  const all = make("button", { type: "button", text: "Open all", onclick: () => {
    const open = all.textContent === "Open all";
    list.querySelectorAll("details").forEach((card) => { card.open = open; });
    all.textContent = open ? "Close all" : "Open all";
  } });
  return make("div", { class: "tools card" },
    make("span", { class: "legend" }, make("span", { class: "tok", text: "prompt" }), make("span", { class: "tok sampled", text: "sampled" })),
    make("label", {}, "colour", choice), make("span", { class: "legend" }, low, ramp, high),
    make("label", {}, toggle, "show logprob and advantage"), make("span", { class: "push" }, all));
}

function episodes() {
  const here = section("episodes");
  if (!run.episodes.length) {
    here.append(missing("There are no episodes in this run folder (trajectories/ is missing or empty)."));
    return;
  }
  const list = make("div", {}, ...run.episodes.map((episode, i) => episodeCard(episode, i === 0)));
  list.addEventListener("pointermove", (event) => {
    const chip = event.target.closest?.(".tok");
    if (chip?.facts) showTip(event, ...describe(chip)); else hideTip();
  });
  list.addEventListener("pointerleave", hideTip);
  const left = run.images_left_out ? ` ${run.images_left_out} pictures are left out to keep this page small.` : "";
  here.append(tools(list), list, make("p", { class: "note", text:
    `${run.episodes.length} episodes of the run, successes and failures in turn; each turn shows the tokens that are new in it. Point at a token for its numbers.${left}` }));
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

for (const part of [header, result, curves, episodes, settings]) part();
