// The episodes of the report, token by token; it goes on where report.js ends.

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

function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}

// Where the actions of a turn point on its screen: [x, y, where a drag ends]. The env says it, or
// the actions themselves (text/gui.py) do.
function spotsOf({ spots, action }) {
  if (spots.length) return spots;
  const isPoint = (value) => Array.isArray(value) && value.length === 2 && value.every((one) => isNumber(one) && one >= 0 && one <= 1000);
  return [parsed(action)].flat().map((one) => (typeof one === "string" ? parsed(one) : one)).filter((one) => one?.action)
    .flatMap((one) => ["target", "start", "end"].filter((key) => isPoint(one[key])).map((key) => [...one[key], key === "end"]));
}

function shot(source, alt, spots) {
  const marks = spots.map(([x, y, isEnd]) => {
    const mark = make("span", { class: isEnd ? "spot end" : "spot", title: `${isEnd ? "let go at" : "pointed at"} ${x}, ${y} of 1000` });
    mark.style.left = `${x / 10}%`;
    mark.style.top = `${y / 10}%`;
    return mark;
  });
  return make("div", { class: "shot" }, make("img", { src: source, alt }), ...marks);
}

function turn(one) {
  const badge = (text, warns = false) => make("span", { class: warns ? "badge warn" : "badge", text });
  const reward = isNumber(one.reward) && one.reward !== 0 ? `reward ${number(one.reward, 4)}` : null;
  const side = make("div", { class: "side" }, make("p", {}, make("b", { text: `Turn ${one.number + 1}` })),
    make("p", {}, one.invalid ? badge("invalid action", true) : null, one.finish === "length" ? badge("cut off", true) : null,
      one.new_row && one.number > 0 ? badge(`new row ${one.row}: history rewritten`) : null),
    one.action === null ? null : make("p", { class: "act", text: one.action, title: "the action that the environment got" }),
    reward && make("p", { text: reward }), one.state_key && make("p", { text: `state ${one.state_key}` }));
  const last = one.images.length - 1;
  const shots = one.images.map((hash, i) => (run.images[hash]
    ? shot(run.images[hash], `observation of turn ${one.number + 1}`, i === last ? spotsOf(one) : [])
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
  const broken = isBroken(episode);
  const [kind, word] = broken ? ["broken", "! broken"] : episode.success ? ["yes", "\u2713 success"] : ["no", "\u2715 failure"];
  const from = episode.phase === "train" ? `training, step ${episode.step}` : episode.phase === "eval" ? `${episode.label} evaluation` : "demonstration";
  const invalid = episode.turns.filter((one) => one.invalid).length;
  const rows = Math.max(0, ...episode.turns.map((one) => one.row)) + 1;
  const brief = [`${episode.n_turns} turn${episode.n_turns === 1 ? "" : "s"}`, isNumber(episode.reward) ? `reward ${number(episode.reward)}` : null,
    invalid ? `${invalid} invalid` : null, rows > 1 ? `${rows} rows` : null, episode.stop].filter(Boolean).join(" \u00b7 ");
  const card = make("details", { class: "episode card", ontoggle: () => fill() },
    make("summary", {}, make("span", { class: `verdict ${kind}`, text: word }), make("span", { class: "from", text: from }),
      make("span", { class: "goal", text: episode.instruction || episode.task }), make("span", { class: "brief", text: brief })));
  const fill = () => { if (card.open && card.children.length === 1) card.append(...body(episode)); };
  card.episode = episode;
  card.open = isOpen;
  fill();
  return card;
}

const isBroken = (episode) => ["timeout", "error"].includes(episode.stop) || episode.failure !== null;
const SHOWN = {
  "all": () => true,
  "successes": (e) => e.success === true,
  "failures": (e) => e.success !== true && !isBroken(e),
  "broken": isBroken,
  "cut off": (e) => e.stop.startsWith("max_"),
  "with invalid actions": (e) => e.turns.some((one) => one.invalid),
  "of several rows": (e) => e.turns.some((one) => one.row > 0),
};

function filter(list) {
  const choices = Object.entries(SHOWN).map(([name, holds]) => [name, run.episodes.filter(holds).length]).filter(([, count]) => count);
  return make("select", { "aria-label": "which episodes are listed", onchange: (event) => {
    for (const card of list.children) card.hidden = !SHOWN[event.target.value](card.episode);
  } }, ...choices.map(([name, count]) => make("option", { value: name, text: `${name} (${count})` })));
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
    list.querySelectorAll("details:not([hidden])").forEach((card) => { card.open = open; });
    all.textContent = open ? "Close all" : "Open all";
  } });
  return make("div", { class: "tools card" },
    make("span", { class: "legend" }, make("span", { class: "tok", text: "prompt" }), make("span", { class: "tok sampled", text: "sampled" })),
    make("label", {}, "show", filter(list)), make("label", {}, "colour", choice), make("span", { class: "legend" }, low, ramp, high),
    make("label", {}, toggle, "logprob and advantage"), make("span", { class: "push" }, all));
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
    `${run.episodes.length} of the run's ${run.n_episodes} episodes on disk, successes and failures in turn; each turn shows the tokens that are new in it. Point at a token for its numbers.${left}` }));
}

for (const part of [header, result, curves, archive, doctor, failures, episodes, settings]) part();
