// Settings in four pages. "airplane mode" also turns wifi and bluetooth off; "Reset all" is final.
"use strict";

(() => {
  const PAGES = {
    Network: ["wifi", "bluetooth", "airplane mode", "hotspot"],
    Display: ["dark mode", "text size", "auto rotate"],
    Sound: ["mute", "volume", "ringtone"],
    Account: ["name", "language", "backup"],
  };
  const CHOICES = {
    "text size": ["small", "medium", "large"],
    volume: ["0", "25", "50", "75", "100"],
    ringtone: ["bell", "birds", "piano", "waves"],
    language: ["English", "French", "German", "Spanish"],
  };
  const settings = () => shell.data().settings;

  function flip(name) {
    shell.change(({settings: all}) => {
      all[name] = !all[name];
      if (name === "airplane mode" && all[name]) all.wifi = all.bluetooth = false;
      else if (name === "wifi" || name === "bluetooth") all["airplane mode"] &&= !all[name];
    });
  }

  function reset() {
    shell.change(({settings: all}) => {
      for (const [name, value] of Object.entries(all)) {
        all[name] = typeof value === "boolean" ? false : CHOICES[name] ? CHOICES[name][0] : "";
      }
    });
  }

  function list() {
    const rows = Object.entries(PAGES).map(([page, names]) => shell.row(page, names.join(", "),
      () => shell.push({app: "settings", screen: "page", id: page})));
    return {
      title: "Settings",
      nodes: [...rows, shell.buttons(shell.button("Reset all", reset, "danger"))],
    };
  }

  function line(name) {
    const value = settings()[name];
    if (typeof value === "boolean") return shell.toggle(name, value, () => flip(name));
    return shell.row(name, value, () => shell.push({app: "settings", screen: "value", id: name}));
  }

  function page(frame) {
    return {title: frame.id, nodes: PAGES[frame.id].map(line)};
  }

  function value(frame) {
    const name = frame.id;
    shell.draft({value: settings()[name]});
    const save = () => shell.change((data) => { data.settings[name] = frame.draft.value; }, 1);
    return {
      title: name,
      nodes: [
        CHOICES[name] ? shell.choice("value", name, CHOICES[name]) : shell.field("value", name),
        shell.buttons(shell.button("Save", save, "main"), shell.button("Cancel", shell.back)),
      ],
    };
  }

  shell.define("settings", {title: "Settings", first: {screen: "list"}, screens: {list, page, value}});
})();
