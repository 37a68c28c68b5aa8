// Runs in every page before its own scripts: names elements, lists them, and finds them again.
// An element keeps its number as long as it exists and `forget` is not called.
window.__agentrl = (() => {
  const frame = window.requestAnimationFrame.bind(window);
  const later = window.setTimeout.bind(window);
  const ACTIVE = "a[href],button,input,select,textarea,summary,option,label,[onclick],[tabindex]:not([tabindex='-1'])," +
    "[contenteditable=true],[contenteditable=''],[draggable=true],[role=button],[role=link]," +
    "[role=tab],[role=menuitem],[role=checkbox],[role=radio],[role=switch],[role=slider]," +
    "[role=option],[role=textbox],[role=combobox],[role=spinbutton]";
  const DRAWN = new Set(["img", "canvas", "video", "circle", "rect", "ellipse", "polygon",
    "polyline", "line", "path", "text", "hr"]);
  const SKIPPED = new Set(["script", "style", "noscript", "template", "head", "option", "defs",
    "title", "meta", "link"]);
  const ROLES = {a: "link", button: "button", select: "combobox", textarea: "textbox", img: "img",
    summary: "button", nav: "navigation", ul: "list", ol: "list", li: "listitem", table: "table",
    tr: "row", td: "cell", th: "columnheader", form: "form", dialog: "dialog", label: "label",
    h1: "heading", h2: "heading", h3: "heading", h4: "heading", h5: "heading", h6: "heading",
    p: "paragraph", progress: "progressbar", option: "option"};
  const INPUTS = {checkbox: "checkbox", radio: "radio", range: "slider", number: "spinbutton",
    button: "button", submit: "button", reset: "button", image: "button", search: "searchbox"};
  const SPOTS = [[0.5, 0.5], [0.1, 0.5], [0.9, 0.5], [0.5, 0.1], [0.5, 0.9], [0.1, 0.1],
    [0.9, 0.9], [0.1, 0.9], [0.9, 0.1]];
  let numbers = new WeakMap(), elements = new Map(), next = 1;

  const forget = () => { numbers = new WeakMap(); elements = new Map(); next = 1; };
  const tight = (text) => text.replace(/\s+/g, " ").trim();
  const tagOf = (e) => e.localName === "input" ? "input_" + e.type : e.localName;

  function number(element) {
    if (!numbers.has(element)) {
      numbers.set(element, next);
      elements.set(next, element);
      next += 1;
    }
    return numbers.get(element);
  }

  function ownText(element) {
    const parts = [];
    for (const node of element.childNodes) if (node.nodeType === 3) parts.push(node.data);
    return tight(parts.join(" "));
  }

  function roleOf(element) {
    const given = element.getAttribute("role");
    if (given) return given.split(" ")[0];
    if (element.localName === "input") return INPUTS[element.type] || "textbox";
    if (element.isContentEditable && !element.parentElement?.isContentEditable) return "textbox";
    return ROLES[element.localName] || "generic";
  }

  function nameOf(element, text) {
    const by = element.getAttribute("aria-labelledby");
    if (by) {
      const parts = by.split(/\s+/).map((id) => document.getElementById(id)?.textContent || "");
      if (tight(parts.join(" "))) return tight(parts.join(" "));
    }
    const own = element.getAttribute("aria-label") || element.getAttribute("alt");
    if (own) return tight(own);
    if (element.labels && element.labels.length) return tight(element.labels[0].textContent);
    return text || tight(element.getAttribute("title") || element.placeholder || "");
  }

  function valueOf(element) {
    const name = element.localName;
    if (name === "select") {
      return [...element.selectedOptions].map((o) => tight(o.textContent)).join("|");
    }
    if (name === "textarea") return element.value;
    if (name !== "input" || element.type === "checkbox" || element.type === "radio") return "";
    return ["submit", "button", "reset"].includes(element.type) ? "" : element.value;
  }

  function statesOf(element) {
    const states = [];
    if (element === document.activeElement && element !== document.body) states.push("focused");
    for (const [aria, property] of [["checked", "checked"], ["disabled", "disabled"],
      ["selected", ""], ["expanded", ""], ["pressed", ""], ["readonly", "readOnly"]]) {
      const said = element.getAttribute("aria-" + aria);
      if (said === "true" || (property && element[property] === true)) states.push(aria);
      else if (aria === "expanded" && said === "false") states.push("collapsed");
    }
    return states;
  }

  // What tells elements without text apart: their colour, or what their page calls them.
  function lookOf(element, style) {
    if (element instanceof SVGElement) {
      return element.getAttribute("fill") || element.style.fill || style.fill;
    }
    if (element.matches("input,select,textarea,button")) return "";
    const colour = style.backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
    return element.id ? "#" + element.id : [...element.classList].map((c) => "." + c).join("");
  }

  // Where a click reaches an element: in its middle, or where nothing covers it; null if nowhere.
  function reach(element, boxes) {
    for (const [across, down] of SPOTS) {
      for (const box of boxes) {
        const x = box.left + across * box.width, y = box.top + down * box.height;
        if (x < 0 || y < 0 || x >= innerWidth || y >= innerHeight) continue;
        const hit = document.elementFromPoint(x, y);
        if (hit && (element.contains(hit) || hit.contains(element) ||
          [...(hit.labels || [])].includes(element))) return [x, y];
      }
    }
    return null;
  }

  // Whether its whole text is its own: a button, or a clickable thing without others inside.
  function isOne(element, isActive) {
    return isActive && element.localName !== "select" &&
      (element.matches("a,button,label,[role=button]") || !element.querySelector(ACTIVE));
  }

  function described(element, style, box, depth, isActive) {
    const name = element.localName;
    const whole = isOne(element, isActive) ? tight(element.textContent) : ownText(element);
    const text = name === "input" && ["submit", "button", "reset"].includes(element.type)
      ? element.value : name === "textarea" ? "" : whole;
    const options = name === "select" ? [...element.options].map((o) => tight(o.textContent)) : [];
    return {
      ref: String(number(element)), tag: tagOf(element), role: roleOf(element),
      name: nameOf(element, text), text, value: valueOf(element), options,
      box: [box.left, box.top, box.width, box.height], states: statesOf(element),
      spot: reach(element, [box]), depth,
      look: text || isActive && !(element instanceof SVGElement) && whole ? "" :
        lookOf(element, style),
    };
  }

  function list(root, skip, found, depth, isInside) {
    for (const element of root.children) {
      if (SKIPPED.has(element.localName) || skip && element.matches(skip)) continue;
      const style = getComputedStyle(element);
      if (style.display === "none") continue;
      const isActive = element.matches(ACTIVE) || style.cursor === "pointer" &&
        getComputedStyle(root).cursor !== "pointer";
      const isLeaf = element.childElementCount === 0;
      const box = element.getBoundingClientRect();
      const isSeen = style.visibility === "visible" && box.width > 0 && box.height > 0;
      const isListed = isSeen && (isActive || DRAWN.has(element.localName) || !isInside &&
        (ownText(element) ||
          isLeaf && (element.className || element.id || element instanceof SVGElement)));
      if (isListed) found.push(described(element, style, box, depth, isActive));
      if (!isLeaf && !["select", "textarea"].includes(element.localName)) {
        list(element, skip, found, depth + (isListed ? 1 : 0),
          isInside || isOne(element, isActive));
      }
    }
    return found;
  }

  // Everything that can be seen or used, in the order of the document.
  function view(skip) {
    return {
      elements: document.body ? list(document.body, skip, [], 0, false) : [],
      url: location.href, title: document.title, width: innerWidth, height: innerHeight,
    };
  }

  function facts(element, x, y) {
    const isField = element.matches("input,textarea");
    const isText = element.localName === "textarea" || element.isContentEditable ||
      isField && !["checkbox", "radio", "button", "submit", "reset", "file", "image"]
        .includes(element.type);
    const set = ["date", "time", "month", "week", "datetime-local", "color", "range"];
    return {
      x, y, isText, isSet: isField && set.includes(element.type),
      isFilled: isText && (isField ? element.value !== "" : element.textContent !== ""),
    };
  }

  // Where to click an element, which is scrolled into view; null if it is not there any more.
  function place(ref) {
    const element = elements.get(Number(ref));
    if (!element || !element.isConnected) return null;
    const boxes = () =>
      [...element.getClientRects()].filter((b) => b.width > 0 && b.height > 0);
    if (!boxes().length) return null;
    let spot = reach(element, boxes());
    if (spot === null) {
      element.scrollIntoView({block: "nearest", inline: "nearest", behavior: "instant"});
      const [box] = boxes();
      spot = reach(element, boxes()) ||
        [box.left + box.width / 2, box.top + box.height / 2];
    }
    const [x, y] = spot;
    return facts(element, x, y);
  }

  function focused() {
    const element = document.activeElement;
    return element && element !== document.body ? facts(element, 0, 0) : null;
  }

  function focus(ref) {
    const element = elements.get(Number(ref));
    if (!element || !element.isConnected) return false;
    element.focus();
    return true;
  }

  function tell(element) {
    for (const kind of ["input", "change"]) {
      element.dispatchEvent(new Event(kind, {bubbles: true}));
    }
  }

  function target(ref, point) {
    return ref === null ? document.elementFromPoint(point[0], point[1])
      : elements.get(Number(ref));
  }

  // Give a field a value that is not typed letter by letter.
  function set(ref, point, value) {
    const element = target(ref, point);
    if (!element || !element.matches("input")) return false;
    element.focus();
    element.value = value;
    tell(element);
    return true;
  }

  // Choose an option; false if nothing can be chosen there, else what could be (null: it was).
  function select(ref, point, text) {
    const element = target(ref, point)?.closest("select");
    if (!element || element.disabled) return false;
    const options = [...element.options];
    const reads = (o) => tight(o.textContent);
    const option = options.find((o) => reads(o) === tight(text)) ||
      options.find((o) => reads(o).toLowerCase() === tight(text).toLowerCase());
    if (!option || option.disabled) return options.map(reads);
    element.focus();
    if (element.multiple) option.selected = true;
    else element.value = option.value, element.selectedIndex = option.index;
    tell(element);
    return null;
  }

  // Two frames, by the real clock: what scrolling changed is there then.
  const settle = () => new Promise((done) => {
    later(done, 250);
    frame(() => frame(done));
  });

  // A caret that blinks would make pictures of one state differ.
  document.addEventListener("DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent = "*{caret-color:transparent!important}";
    document.head.append(style);
  });

  return {view, place, focused, focus, set, select, settle, forget};
})();
