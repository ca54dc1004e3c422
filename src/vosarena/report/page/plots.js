"use strict";
// All plots, drawn by Observable Plot: J over time, intervals, two models, speed and accuracy.
(() => {
  const v = window.vosarena, { $ } = v;
  const SCORE = { domain: [0, 100], ticks: 5, grid: true };
  const LINE = "var(--line)", PAPER = "var(--paper)";

  function draw(options, role = "img") {
    const chart = Plot.plot(options);
    chart.setAttribute("role", role);
    chart.querySelectorAll("g[aria-label]").forEach((group) => group.removeAttribute("aria-label")); // "dot", "rule": noise
    return chart;
  }

  v.sparkline = (values, model) => draw({ width: 74, height: 22, margin: 1, axis: null, y: { domain: [0, 100] }, marks: [
    Plot.ruleY([0], { stroke: LINE }),
    Plot.lineY(values, { stroke: v.colour(model), strokeWidth: 1.8, strokeDasharray: v.dash(model) })] });

  v.interval = (row, domain) => draw({ width: 130, height: 16, margin: 4, axis: null, x: { domain },
    ariaLabel: v.range(row), marks: [
      Plot.ruleY([0], { x1: domain[0], x2: domain[1], stroke: LINE }),
      Plot.ruleY([row], { x1: "ci_low", x2: "ci_high", y: 0, stroke: v.colour(row.model), strokeWidth: 8, strokeOpacity: 0.45,
        title: v.range }),
      Plot.dot([row], { x: "j_and_f", y: 0, r: 4, fill: v.colour(row.model) })] });

  const KINDS = ["", "var(--ink)", "#a8323e", "#98a2ad", "#7b52c7"]; // of FailureKind; no colour of a model or an object
  v.kindColour = (kind) => KINDS[kind];
  // Frames in a row in which a model failed in the same way.
  function runs(item, frames, model) {
    const found = [];
    [...item.kinds[model]].forEach((kind, i) => {
      const last = found.at(-1), from = item.at[i];
      const side = { start: Math.max(0, from - 0.5), end: Math.min(frames - 1, (item.at[i + 1] ?? from + 1) - 0.5) };
      if (last && last.kind === kind) Object.assign(last, { end: side.end, to: from });
      else found.push({ model, kind, ...side, from, to: from });
    });
    return found.filter(({ kind }) => kind !== "0");
  }
  // J, F or both of one object, or the mean over objects, of every model. Click or drag jumps to a frame.
  v.curves = (item, frames, models, width, go) => {
    const failed = models.filter((model) => model in item.fail)
      .map((model) => ({ model, at: item.fail[model], j: item.scores[model][item.at.indexOf(item.fail[model])] }));
    const rows = item.kinds ? models : []; // without ground truth there are no failures
    const row = (model) => -6 - 11 * models.indexOf(model), low = rows.length ? -14 - 11 * rows.length : 0; // one row of bars for each model
    const spans = rows.flatMap((model) => runs(item, frames, model));
    const chart = draw({ width, height: 240 + 13 * rows.length, marginTop: 26, ariaLabel: `${item.label} of every model over time`,
      x: { domain: [0, Math.max(1, frames - 1)], label: "frame" },
      y: { domain: [low, 100], ticks: [0, 20, 40, 60, 80, 100], grid: true, label: item.label }, marks: [
        Plot.ruleY(rows, { y: row, x1: 0, x2: Math.max(1, frames - 1), stroke: (model) => v.colour(model), strokeOpacity: 0.5 }),
        Plot.ruleY(spans, { x1: "start", x2: "end", y: ({ model }) => row(model), stroke: ({ kind }) => KINDS[kind], strokeWidth: 9,
          className: "kinds",
          title: ({ model, kind, from, to }) => `${model}: ${v.data.failure_kinds[kind - 1]}, frames ${from} to ${to}` }),
        Plot.dot(rows, { x: 0, y: row, dx: -7, symbol: "square", r: 4, fill: (model) => v.colour(model) }),
        Plot.areaY(item.at, { x: (at) => at, y1: 0, y2: (_, i) => (item.visible[i] ? 0 : 100), curve: "step", fill: "currentColor",
          fillOpacity: 0.13, className: "absent" }),
        Plot.ruleY(rows.length ? [v.data.failure_j] : [], { stroke: "var(--quiet)", strokeDasharray: "3 4" }),
        ...models.map((model) => Plot.line(item.at, { x: (at) => at, y: item.scores[model], stroke: v.colour(model), strokeWidth: 2,
          strokeDasharray: v.dash(model), className: "curve" })),
        Plot.dot(failed, { x: "at", y: "j", dy: -9, symbol: "triangle", rotate: 180, r: 6, fill: (mark) => v.colour(mark.model),
          stroke: PAPER, title: (mark) => `${mark.model}: first failure at frame ${mark.at}`, className: "failure" }),
        Plot.ruleX([0], { strokeWidth: 1.5, className: "cursor" })] });
    const x = chart.scale("x"), cursor = chart.querySelector(".cursor");
    const seek = (event) => {
      const box = chart.getBoundingClientRect();
      if (event.buttons) go(x.invert(((event.clientX - box.left) / box.width) * width));
    };
    chart.addEventListener("pointerdown", seek);
    chart.addEventListener("pointermove", seek);
    chart.moveTo = (frame) => cursor.setAttribute("transform", `translate(${x.apply(frame) - x.apply(0)},0)`);
    return chart;
  };

  const pairOf = (a, b) => v.sequences().map(({ name }) => ({ name, a: v.score(name, a), b: v.score(name, b) }))
    .filter((point) => point.a !== undefined && point.b !== undefined);
  v.wins = (model, other) => {
    const points = pairOf(model, other);
    return { wins: points.filter(({ a, b }) => a > b).length, losses: points.filter(({ a, b }) => a < b).length };
  };
  v.chance = (pair) => (pair.p_value === undefined ? "too few sequences for an interval and p"
    : `p ${pair.p_value < 0.001 ? "< 0.001" : `= ${v.show(pair.p_value, 3)}`}`);
  v.showDuel = (across, up) => {
    $("duel-x").value = across;
    $("duel-y").value = up;
    duel();
    $("duel").scrollIntoView({ block: "nearest" });
  };
  function duel() {
    const [across, up] = [$("duel-x").value, $("duel-y").value];
    const points = pairOf(across, up), { wins, losses } = v.wins(up, across);
    const say = ({ name, a, b }) => `${name}: ${across} ${v.show(a)}, ${up} ${v.show(b)}`;
    const width = Math.min(480, $("duel-plot").clientWidth);
    const chart = draw({ width, height: width, marginTop: 26, marginBottom: 40, marginLeft: 44,
      ariaLabel: `J&F of ${up} against ${across}, one dot for each sequence`,
      x: { ...SCORE, label: `J&F of ${across}` }, y: { ...SCORE, label: `J&F of ${up}` }, marks: [
        Plot.line([[0, 0], [100, 100]], { strokeDasharray: "4 4" }),
        Plot.dot(points, { x: "a", y: "b", r: 6, fill: ({ a, b }) => v.colour(a > b ? across : up), fillOpacity: 0.8,
          stroke: PAPER, ariaLabel: say, title: say, tip: true, href: ({ name }) => v.address(name) })] }, "group");
    // A click on a dot opens its sequence. Without this, it would also pin the tip.
    chart.addEventListener("pointerdown", (event) => event.stopImmediatePropagation(), true);
    $("duel-plot").replaceChildren(chart);
    const found = v.board().comparisons.find((row) => [row.model, row.other].includes(across) && [row.model, row.other].includes(up));
    const sign = found && found.model === up ? 1 : -1;
    $("duel-text").replaceChildren(...(across === up || !found ? [] : [
      `${up} is better on ${wins} sequences, ${across} on ${losses}. Mean difference ${v.show(sign * found.difference)}`
      + (found.p_value === undefined ? ` (${v.chance(found)})` : ` [${v.show(Math.min(sign * found.ci_low, sign * found.ci_high))}, `
      + `${v.show(Math.max(sign * found.ci_low, sign * found.ci_high))}], ${v.chance(found)}`) + ".", v.hint(" Click a dot to open its sequence.")]));
  }

  function speed() {
    const rows = v.board().rows.filter((row) => row.fps && row.device === $("speed-device").value && row.j_and_f !== undefined);
    const fps = rows.map((row) => row.fps), domain = [Math.min(...fps) / 1.6, Math.max(...fps) * 1.6], labels = [];
    const ticks = [0.01, 0.1, 1, 10, 100, 1000].flatMap((decade) => [1, 2, 5].map((step) => step * decade))
      .filter((value) => value >= domain[0] && value <= domain[1]) // never empty: neighbours differ by a factor of at most 2.5
      .filter((value, _, all) => all.length < 8 || Number.isInteger(Math.log10(value)));
    for (const row of [...rows].sort((a, b) => b.j_and_f - a.j_and_f)) { // overlapping names move down
      const near = labels.filter((other) => Math.abs(Math.log(other.fps / row.fps)) < 1);
      labels.push({ ...row, at: Math.min(row.j_and_f, ...near.map((other) => other.at - 6)) });
    }
    const jobs = rows.map((row) => row.parallel_jobs).filter(Boolean), ends = [...new Set([Math.min(...jobs), Math.max(...jobs)])];
    $("speed-note").textContent = !jobs.length ? "One device is shown."
      : `One device is shown; the models were measured with ${ends.join(" to ")} ${ends.at(-1) > 1 ? "jobs at once" : "job at a time"}.`;
    const say = (row) => `${row.model}: ${v.show(row.j_and_f)} at ${v.show(row.fps)} frames per second`
      + (row.parallel_jobs ? `, ${row.parallel_jobs} ${row.parallel_jobs > 1 ? "jobs at once" : "job at a time"}` : "");
    const at = (row) => Math.log10(row.fps);
    $("speed-plot").replaceChildren(draw({ width: Math.min(720, $("speed-plot").clientWidth), height: 340, marginRight: 130,
      marginTop: 26, marginBottom: 40, marginLeft: 44, ariaLabel: "J&F against frames per second", ariaDescription: rows.map(say).join("; "),
      x: { domain: domain.map(Math.log10), ticks: ticks.map(Math.log10), tickFormat: (_, i) => String(ticks[i]), // "log" hides some numbers
        label: "frames per second", labelAnchor: "center" },
      y: { ...SCORE, label: "J&F" }, marks: [
        Plot.dot(rows, { x: at, y: "j_and_f", r: 7, strokeWidth: 2, stroke: (row) => v.colour(row.model),
          fill: (row) => (row.kind === "published" ? PAPER : v.colour(row.model)), title: say, tip: true }),
        Plot.text(labels, { x: at, y: "at", text: "model", dx: 12, textAnchor: "start", fill: "currentColor", stroke: PAPER, strokeWidth: 4 })] }));
  }

  function both() {
    if (!v.scored() || !v.models().length) return;
    duel();
    speed();
  }
  for (const id of ["duel-x", "duel-y"]) $(id).addEventListener("input", duel);
  $("speed-device").addEventListener("input", speed);
  window.addEventListener("resize", both);
  v.onBoard(() => {
    const models = v.models();
    if (!v.scored() || !models.length) return;
    v.options($("duel-x"), models);
    v.options($("duel-y"), models);
    $("duel-y").value = v.leader();
    $("duel-x").value = models.find((model) => model !== v.leader()) || models[0];
    v.options($("speed-device"), [...new Set(v.board().rows.filter((row) => row.fps && row.device).map((row) => row.device))]);
    both();
  });
})();
