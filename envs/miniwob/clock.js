// Runs before a task's own scripts: time passes only by `__clock.advance`, chance is the same after
// every load (until the task is seeded), and nothing moves by style sheet. So an episode depends on
// its seed and its actions alone, and no animation has to be waited for.
window.__clock = (() => {
  const START = Date.UTC(2020, 0, 1);
  const MOST_JOBS = 20000;
  const RealDate = Date;
  let now = 0, next = 1, kept = 0, jobs = new Map(), state = 1;

  function add(run, ms, every, args) {
    const call = typeof run === "function" ? run : new Function(String(run));
    const wait = Math.max(0, Number(ms) || 0);
    jobs.set(next, {due: now + wait, every: every ? Math.max(1, wait) : 0, call, args});
    return next++;
  }

  window.setTimeout = (run, ms, ...args) => add(run, ms, false, args);
  window.setInterval = (run, ms, ...args) => add(run, ms, true, args);
  window.requestAnimationFrame = (run) => add(() => run(now), 16, false, []);
  window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = (id) => {
    jobs.delete(id);
  };
  window.performance.now = () => now;
  window.Date = new Proxy(RealDate, {
    construct: (date, args) => args.length ? new date(...args) : new date(START + now),
    apply: () => new RealDate(START + now).toString(),
    get: (date, key) => key === "now" ? () => START + now : Reflect.get(date, key),
  });
  Math.random = () => {
    state = (1103515245 * state + 12345) % 2147483648;
    return state / 2147483648;
  };

  function due(until) {
    let found = null;
    for (const [id, job] of jobs) {
      if (job.due <= until && (found === null || job.due < jobs.get(found).due)) found = id;
    }
    return found;
  }

  // Let so many milliseconds pass.
  function advance(ms) {
    const until = now + ms;
    for (let ran = 0, id = due(until); id !== null && ran < MOST_JOBS; ran++, id = due(until)) {
      const job = jobs.get(id);
      now = Math.max(now, job.due);
      if (job.every) job.due += job.every;
      else jobs.delete(id);
      try { job.call.apply(window, job.args); } catch (error) { console.error(error); }
    }
    now = until;
  }

  // Drop what waits since the page was loaded: it belongs to an episode that is over.
  function forget() {
    if (!kept) kept = next;
    for (const id of [...jobs.keys()]) if (id >= kept) jobs.delete(id);
  }

  document.addEventListener("DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent = "*,*::before,*::after{transition:none!important;animation:none!important}" +
      "html{overflow:hidden!important}";  // what lies beyond the screen is no part of the task
    document.head.append(style);
  });
  return {advance, forget};
})();

window.__wob = (() => {
  const kept = [];
  const SKIP = "#query,#reward-display,#sync-task-cover,#click-canvas";

  function look() {
    return {
      goal: core.getUtterance(), isOver: WOB_DONE_GLOBAL, reward: WOB_RAW_REWARD_GLOBAL,
      view: WOB_DONE_GLOBAL ? null : __agentrl.view(SKIP),
    };
  }

  function begin(seed) {
    if (core.EP_TIMER !== null) core.endEpisode(0);
    __clock.forget();
    __agentrl.forget();
    if (document.activeElement) document.activeElement.blur();
    core.EPISODE_MAX_TIME = 1e9;
    Math.seedrandom(seed);
    core.startEpisodeReal();
    __clock.advance(20);
    return look();
  }

  function pass(ms) {
    __clock.advance(ms);
    return look();
  }

  // Load pictures before they are needed, and keep them: what has their size does not change then.
  async function load(urls) {
    await Promise.all(urls.map((url) => {
      const picture = new Image();
      kept.push(picture);
      picture.src = url;
      return picture.decode().catch(() => null);
    }));
  }

  return {begin, pass, load};
})();
