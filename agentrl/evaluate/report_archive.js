// ---- what exploring found -----------------------------------------------------------------------

const KINDS = { success: "success", end: "the episode ends", spent: "everything was tried", cell: "something was not tried" };

function graphPicture(graph) {
  const deepest = Math.max(1, ...graph.cells.map((c) => c[0]));
  const widest = Math.max(...Array.from({ length: deepest + 1 }, (_, d) => graph.cells.filter((c) => c[0] === d).length));
  const [W, H, margin] = [1080, Math.min(460, Math.max(140, 12 * widest)), 18];
  const X = (c) => margin + (c[0] / deepest) * (W - 2 * margin);
  const Y = (c) => margin + c[1] * (H - 2 * margin);
  const R = (c) => Math.max(c[5] === "success" ? 6 : 0, Math.min(9, 2.2 + 1.1 * Math.log2(1 + c[2])));
  const svg = make("svg", { class: "graph", viewBox: `0 0 ${W} ${H}`, role: "img",
    "aria-label": `${graph.of} cells of task ${graph.task} by their distance from the start` });
  const line = (a, b, name) => make("path", { class: name,
    d: `M${X(a).toFixed(1)} ${Y(a).toFixed(1)}L${X(b).toFixed(1)} ${Y(b).toFixed(1)}` });
  for (const [from, to] of graph.edges) svg.append(line(graph.cells[from], graph.cells[to], "edge"));
  graph.way.slice(1).forEach((to, i) => svg.append(line(graph.cells[graph.way[i]], graph.cells[to], "way")));
  for (const c of graph.cells) {
    const [depth, , seen, chosen, found, kind, text] = c;
    svg.append(make("circle", { class: `cell ${kind}${chosen ? " chosen" : ""}`, cx: X(c).toFixed(1), cy: Y(c).toFixed(1), r: R(c).toFixed(1),
      onpointermove: (event) => showTip(event, make("code", { text: text.slice(0, 240) }), tipRow("actions from the start", depth),
        tipRow("visits", seen), tipRow("returned to", chosen), tipRow("found after", `${found} steps`), tipRow("state", KINDS[kind])),
      onpointerleave: hideTip }));
  }
  return svg;
}

function growthChart(title, note, lines, marks) {
  const [W, H, left, right, top, bottom] = [360, 178, 44, 12, 10, 22];
  const xs = lines.flatMap((l) => l.x), ys = lines.flatMap((l) => l.y);
  const [most, high] = [Math.max(1, ...xs), Math.max(...ys, 1e-9) * 1.05];
  const X = (x) => left + (x / most) * (W - left - right);
  const Y = (y) => H - bottom - (y / high) * (H - top - bottom);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  const levels = ticks(0, high, 4);
  for (const y of levels) {
    svg.append(make("line", { class: "gridline", x1: left, x2: W - right, y1: Y(y), y2: Y(y) }),
      make("text", { x: left - 6, y: Y(y) + 3.5, "text-anchor": "end", text: tickNumber(y, levels.length > 1 ? levels[1] - levels[0] : 1) }));
  }
  for (const x of ticks(0, most, 5).filter(Number.isInteger)) svg.append(make("text", { x: X(x), y: H - 6, "text-anchor": "middle", text: x }));
  for (const [x, name] of marks) {
    svg.append(make("line", { class: "level", x1: X(x), x2: X(x), y1: top, y2: H - bottom }),
      make("text", { class: "name", x: X(x) + (X(x) > W / 2 ? -4 : 4), y: top + 9, "text-anchor": X(x) > W / 2 ? "end" : "start", text: name }));
  }
  lines.forEach((l, i) => svg.append(make("path", { class: `curve line-${i}`, d: path(l.x, l.y, X, Y) })));
  const keys = lines.length > 1 ? make("div", { class: "keys" }, ...lines.map((l, i) =>
    make("span", {}, make("i", { class: `fill-${i}` }), l.name))) : null;
  return make("figure", { class: "card" }, make("figcaption", {}, title, make("small", { text: note })), svg, keys);
}

function archive() {
  const here = section("archive");
  const found = run.archive;
  if (!found) {
    here.remove();
    document.querySelector("nav a[href='#archive']").remove();
    return;
  }
  const { counts, told, graphs } = found;
  const facts = [["tasks", counts.tasks], ["solved", told.solved], ["cells", counts.cells], ["edges", counts.edges], ["env steps", told.env_steps],
    ["replayed steps", told.replayed], ["returns that led elsewhere", told.diverged]].filter(([, value]) => isNumber(value));
  here.append(make("dl", { class: "facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value.toLocaleString("en") })))));
  const asked = Object.entries(told.metrics ?? {});
  if (asked.length) {
    here.append(make("dl", { class: "facts" }, ...asked.map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: number(value) })))));
  }
  const charts = [];
  if (found.solved) {
    const { x, y, tasks } = found.solved;
    const steps = { x: x.flatMap((at, i) => (i ? [at, at] : [at])), y: y.flatMap((share, i) => (i ? [100 * y[i - 1], 100 * share] : [0])), name: "solved" };
    charts.push(growthChart("Time to first success", `% of ${tasks} tasks, by env steps of each`, [steps], []));
  }
  for (const graph of graphs) {
    const { x, cells, frontier } = graph.growth;
    charts.push(growthChart("Coverage", `${graph.task}, by env steps`,
      [{ x, y: cells, name: "cells" }, { x, y: frontier, name: "with something untried" }], isNumber(graph.first) ? [[graph.first, "first success"]] : []));
  }
  here.append(make("div", { class: "grid" }, ...charts));
  for (const graph of graphs) {
    const few = graph.cells.length < graph.of ? `, ${graph.cells.length} of them drawn` : "";
    here.append(make("figure", { class: "card wide" }, make("figcaption", {}, graph.task,
      make("small", { text: `${graph.of} cells${few}; ${graph.first === null ? "not solved" : `first success after ${graph.first} steps`}` })), graphPicture(graph)));
  }
  here.append(make("p", { class: "note" }, "From left to right by actions from the start, larger with more visits. ",
    make("i", { class: "mark success" }), "success, ", make("i", { class: "mark chosen" }), "returned to, ", make("i", { class: "mark spent" }), "everything was tried, ",
    make("i", { class: "mark end" }), "the episode ends there. The thick line is the shortest way to a success through all that was seen."));
}
