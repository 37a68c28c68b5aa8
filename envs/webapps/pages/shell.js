// The shell of all applications: one state, one render, gestures that it times itself.
//
// state.data   what the applications hold; tasks are judged by it
// state.ui     layout, the applications there are, the stack of frames, the focused field
// A frame says where one is: {app, screen, id?, box?, draft: {field: value}, menu: row or null}.
"use strict";

const shell = (() => {
  const LONG_PRESS_MS = 500, SWIPE_PX = 60, SLACK_PX = 12;
  const apps = {home: {title: "Home", first: {screen: "apps"}, screens: {apps: homeScreen}}};
  let state = {data: {}, ui: {layout: "desktop", apps: [], stack: [{app: "home", screen: "apps"}]}};
  let isRendering = false, wasLongPress = false;

  const top = () => state.ui.stack[state.ui.stack.length - 1];
  const data = () => state.data;

  function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // --- moving about -------------------------------------------------------------------------

  function push(frame) {
    state.ui.focus = null;
    state.ui.stack.push(frame);
    render();
  }

  function replace(changes) {
    state.ui.focus = null;
    Object.assign(top(), {scroll: 0, menu: null}, changes);
    render();
  }

  function back() {
    state.ui.focus = null;
    if (top().menu) top().menu = null;
    else if (state.ui.stack.length > 1) state.ui.stack.pop();
    render();
  }

  function home() {
    state.ui.focus = null;
    state.ui.stack = [{app: "home", screen: "apps"}];
    render();
  }

  function open(name) {
    if (!state.ui.apps.includes(name)) return false;
    home();
    push({app: name, ...apps[name].first});
    return true;
  }

  // Change the data, go back so many frames, and show what came of it.
  function change(alter, backs = 0) {
    alter(state.data);
    top().menu = null;
    state.ui.focus = backs ? null : state.ui.focus;
    state.ui.stack.splice(state.ui.stack.length - backs, backs);
    render();
  }

  // --- what screens are made of --------------------------------------------------------------

  function button(text, act, kind = "") {
    return make("button", {class: kind, type: "button", onclick: act}, text);
  }

  function buttons(...some) {
    return make("div", {class: "buttons"}, ...some);
  }

  function text(words, kind = "") {
    return make("p", {class: kind}, words);
  }

  function drafted(name) {
    const frame = top();
    return (value) => { frame.draft = {...frame.draft, [name]: value}; };
  }

  function field(name, label, {enter = null} = {}) {
    const keep = drafted(name);
    const input = make("input", {
      type: "text", "aria-label": label, "data-focus": name, autocomplete: "off",
      oninput: (event) => keep(event.target.value),
      onkeydown: (event) => { if (event.key === "Enter" && enter) enter(); },
    });
    input.value = top().draft[name];
    return make("div", {class: "field", "data-label": label}, input);
  }

  function choice(name, label, options) {
    const keep = drafted(name);
    const select = make("select", {
      "aria-label": label, "data-focus": name, onchange: (event) => keep(event.target.value),
    }, ...options.map((option) => make("option", {}, option)));
    select.value = top().draft[name];
    return make("div", {class: "field", "data-label": label}, select);
  }

  function toggle(label, isOn, act) {
    return make("button", {
      class: "row switch", role: "switch", "aria-checked": String(isOn), type: "button",
      onclick: act,
    }, label);
  }

  // A line of a list. `menu` opens on a long press or a right click, `swipe` on a swipe to the left.
  function row(title, note, act, {id = null, menu = false, swipe = null} = {}) {
    const line = make("button", {class: "row", type: "button", onclick: act},
      make("b", {}, title), note ? " " : null, note ? make("span", {}, note) : null);
    if (menu) {
      const show = () => { top().menu = id; render(); };
      line.addEventListener("contextmenu", show);
      gesture(line, {hold: show, left: swipe});
    }
    return line;
  }

  // Fill in what a form begins with, once.
  function draft(beginning) {
    top().draft = {...beginning, ...top().draft};
    return top().draft;
  }

  function gesture(element, {hold = null, left = null, right = null}) {
    let start = null, timer = 0;
    element.addEventListener("touchstart", (event) => {
      const touch = event.touches[0];
      start = {x: touch.clientX, y: touch.clientY};
      const held = () => {
        wasLongPress = true;
        start = null;
        hold();
      };
      if (hold) timer = setTimeout(held, LONG_PRESS_MS);
    }, {passive: true});
    element.addEventListener("touchmove", (event) => {
      const touch = event.touches[0];
      const moved = start && Math.hypot(touch.clientX - start.x, touch.clientY - start.y);
      if (moved > SLACK_PX) clearTimeout(timer);
    }, {passive: true});
    element.addEventListener("touchend", (event) => {
      clearTimeout(timer);
      if (!start) return;
      const touch = event.changedTouches[0];
      const across = touch.clientX - start.x, down = Math.abs(touch.clientY - start.y);
      start = null;
      if (down > Math.abs(across)) return;
      if (across < -SWIPE_PX && left) left();
      if (across > SWIPE_PX && right) right();
    });
  }

  // --- showing it ----------------------------------------------------------------------------

  function homeScreen() {
    if (state.ui.layout === "desktop") {
      return {title: "Home", nodes: [text("Choose an application", "note")]};
    }
    const tiles = state.ui.apps.map((name) =>
      make("button", {class: `tile icon-${name}`, type: "button", onclick: () => open(name)},
        apps[name].title));
    return {title: "Home", nodes: [make("div", {class: "tiles"}, ...tiles)]};
  }

  function sidebar() {
    const here = top().app;
    return make("nav", {}, ...state.ui.apps.map((name) =>
      make("button", {
        class: `icon-${name}`, type: "button", "aria-selected": String(here === name),
        onclick: () => open(name),
      }, apps[name].title)));
  }

  function sheet(items) {
    const acts = items.map(([label, act, kind]) => button(label, act, kind));
    const close = button("Close", () => { top().menu = null; render(); });
    return make("div", {class: "cover"}, make("div", {class: "sheet"}, ...acts, close));
  }

  function render() {
    isRendering = true;
    const frame = top(), {layout} = state.ui, isPhone = layout === "phone";
    const settings = state.data.settings || {};
    const screen = apps[frame.app].screens[frame.screen](frame);
    const main = make("main", {}, ...screen.nodes);
    if (screen.swipes) gesture(main, screen.swipes);
    const canGoBack = state.ui.stack.length > (isPhone ? 1 : 2);
    const header = make("header", {}, canGoBack ? button("Back", back, "back") : null,
      make("h1", {}, screen.title));
    document.body.className = [layout, settings["dark mode"] ? "dark" : "",
      `size-${settings["text size"] || "medium"}`, `app-${frame.app}`].join(" ");
    document.body.replaceChildren(
      ...(isPhone ? [] : [sidebar()]), make("section", {}, header, main),
      ...(frame.menu ? [sheet(screen.menu(frame.menu))] : []),
      ...(isPhone ? [make("footer", {class: "system"}, button("◁", back), button("○", home))] : []),
    );
    main.scrollTop = frame.scroll || 0;
    const focused = state.ui.focus && document.querySelector(`[data-focus="${state.ui.focus}"]`);
    if (focused) {
      focused.focus();
      if (focused.setSelectionRange) focused.setSelectionRange(1e6, 1e6);
    }
    isRendering = false;
  }

  function getState() {
    const main = document.querySelector("main");
    if (main) top().scroll = Math.round(main.scrollTop);
    return JSON.parse(JSON.stringify(state));
  }

  function setState(given) {
    state = JSON.parse(JSON.stringify(given));
    wasLongPress = false;
    render();
  }

  document.addEventListener("contextmenu", (event) => event.preventDefault());
  document.addEventListener("touchstart", () => { wasLongPress = false; }, {capture: true});
  document.addEventListener("click", (event) => {
    if (wasLongPress) event.stopPropagation();  // the finger of a long press was lifted
    wasLongPress = false;
    const active = document.activeElement;
    if (active && !active.dataset.focus) active.blur();
  }, {capture: true});
  document.addEventListener("focusin", (event) => {
    if (event.target.dataset.focus) state.ui.focus = event.target.dataset.focus;
    else event.target.blur();
  });
  document.addEventListener("focusout", () => { if (!isRendering) state.ui.focus = null; });
  window.__app = {getState, setState, back, home, open};

  return {
    top, data, isPhone: () => state.ui.layout === "phone",
    below: () => state.ui.stack[state.ui.stack.length - 2],
    push, replace, back, home, change, button, buttons, text, field, choice, toggle,
    row, draft, make, define: (name, app) => { apps[name] = app; },
    // A key that is not taken in a table.
    fresh: (table) => {
      let number = 1;
      while (`n${number}` in table) number += 1;
      return `n${number}`;
    },
  };
})();
