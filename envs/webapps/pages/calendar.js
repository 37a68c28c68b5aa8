// Calendar: a week at a time on a desktop, a day at a time (swipe) on a phone.
"use strict";

(() => {
  const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
  const HOURS = Array.from({length: 12}, (_, n) => `${n + 8}:00`);
  const events = () => shell.data().events;
  const on = (day) => Object.entries(events()).filter(([, event]) => event.day === day)
    .sort(([, a], [, b]) => HOURS.indexOf(a.hour) - HOURS.indexOf(b.hour));
  const line = ([id, event]) => shell.row(event.title, event.hour,
    () => shell.push({app: "calendar", screen: "event", id}));
  const add = () => shell.buttons(shell.button("New event",
    () => shell.push({app: "calendar", screen: "edit"}), "main"));

  function week(frame) {
    if (shell.isPhone()) return day(frame);
    const columns = DAYS.map((name) =>
      shell.make("div", {class: "day"}, shell.make("h2", {}, name), ...on(name).map(line)));
    return {title: "Calendar", nodes: [shell.make("div", {class: "week"}, ...columns), add()]};
  }

  function day(frame) {
    const here = DAYS.indexOf(frame.day);
    const go = (to) => () => { if (to in DAYS) shell.replace({day: DAYS[to]}); };
    const rows = on(DAYS[here]).map(line);
    return {
      title: DAYS[here],
      swipes: {left: go(here + 1), right: go(here - 1)},
      nodes: [
        shell.make("div", {class: "tabs"}, shell.button("Previous", go(here - 1), "tab"),
          shell.button("Next", go(here + 1), "tab")),
        ...(rows.length ? rows : [shell.text("Nothing planned", "note")]), add(),
      ],
    };
  }

  function event(frame) {
    const {title, day: name, hour} = events()[frame.id];
    const clear = () => shell.change((data) => {
      for (const [id] of on(name)) delete data.events[id];
    }, 1);
    return {
      title,
      nodes: [
        shell.text(`${name} ${hour}`, "note"),
        shell.buttons(
          shell.button("Edit", () => shell.push({app: "calendar", screen: "edit", id: frame.id}), "main"),
          shell.button(`Delete all of ${name}`, clear, "danger"),
          shell.button("Delete", () => shell.change((data) => { delete data.events[frame.id]; }, 1),
            "danger")),
      ],
    };
  }

  function edit(frame) {
    shell.draft({title: "", day: "mon", hour: "8:00", ...events()[frame.id]});
    const save = () => {
      const said = frame.draft;
      if (!said.title.trim()) return;
      const kept = {title: said.title.trim(), day: said.day, hour: said.hour};
      shell.change((data) => { data.events[frame.id || shell.fresh(data.events)] = kept; },
        frame.id ? 2 : 1);
    };
    return {
      title: frame.id ? "Edit event" : "New event",
      nodes: [
        shell.field("title", "Title"), shell.choice("day", "Day", DAYS),
        shell.choice("hour", "Hour", HOURS),
        shell.buttons(shell.button("Save", save, "main"), shell.button("Cancel", shell.back)),
      ],
    };
  }

  shell.define("calendar", {title: "Calendar", first: {screen: "week", day: "mon"}, screens: {week, event, edit}});
})();
