"use strict";
// Two models on every sequence, and speed against accuracy.
(() => {
  const v = window.vosarena, { $, el, svg } = v;

  function duel() {
    const [across, up] = [$("duel-x").value, $("duel-y").value];
    const points = v.sequences().map((item) => [item, v.score(item.name, across), v.score(item.name, up)])
      .filter(([, a, b]) => a !== undefined && b !== undefined);
    const S = 480, m = 44, x = (value) => m + (value / 100) * (S - m - 10), y = (value) => S - m - (value / 100) * (S - m - 10);
    const ticks = [0, 20, 40, 60, 80, 100].flatMap((value) => [
      svg("line", { x1: x(value), x2: x(value), y1: y(0), y2: y(100), class: "axis", opacity: 0.5 }),
      svg("line", { x1: x(0), x2: x(100), y1: y(value), y2: y(value), class: "axis", opacity: 0.5 }),
      svg("text", { x: x(value), y: y(0) + 16, "text-anchor": "middle" }, String(value)),
      svg("text", { x: x(0) - 6, y: y(value) + 4, "text-anchor": "end" }, String(value))]);
    const dots = points.map(([item, a, b]) => svg("a", { href: "#duel", "aria-label": `${item.name}: ${across} ${v.show(a)}, ${up} ${v.show(b)}`,
      onclick: (event) => { event.preventDefault(); v.view(item.name); } },
    svg("circle", { cx: x(a), cy: y(b), r: 6, fill: v.colour(a > b ? across : up), opacity: 0.8, stroke: "var(--paper)" },
      svg("title", {}, `${item.name}: ${across} ${v.show(a)}, ${up} ${v.show(b)}`))));
    $("duel-plot").replaceChildren(svg("svg", { viewBox: `0 0 ${S} ${S}` }, ...ticks,
      svg("line", { x1: x(0), y1: y(0), x2: x(100), y2: y(100), stroke: "currentColor", "stroke-dasharray": "4 4" }), ...dots,
      svg("text", { x: x(50), y: S - 6, "text-anchor": "middle" }, `J&F of ${across}`),
      svg("text", { x: 12, y: y(50), "text-anchor": "middle", transform: `rotate(-90 12 ${y(50)})` }, `J&F of ${up}`)));
    const wins = points.filter(([, a, b]) => b > a).length, losses = points.filter(([, a, b]) => a > b).length;
    const found = v.place().comparisons.find((row) => [row.model, row.other].includes(across) && [row.model, row.other].includes(up));
    const sign = found && found.model === up ? 1 : -1;
    $("duel-text").textContent = across === up || !found ? "" :
      `${up} is better on ${wins} sequences, ${across} on ${losses}. Mean difference ${v.show(sign * found.difference)} `
      + `[${v.show(Math.min(sign * found.ci_low, sign * found.ci_high))}, ${v.show(Math.max(sign * found.ci_low, sign * found.ci_high))}], `
      + `p ${found.p_value < 0.001 ? "< 0.001" : `= ${v.show(found.p_value, 3)}`}. Each dot opens its sequence.`;
  }

  function speed() {
    const rows = v.place().board.filter((row) => row.fps && row.device === $("speed-device").value && row.j_and_f !== undefined);
    const W = 720, H = 340, left = 48, right = 120, top = 14, bottom = 44;
    const low = Math.min(...rows.map((row) => row.fps)) / 1.5, high = Math.max(...rows.map((row) => row.fps)) * 1.5;
    const x = (fps) => left + (Math.log(fps / low) / Math.log(high / low)) * (W - left - right);
    const y = (score) => H - bottom - (score / 100) * (H - top - bottom);
    const marks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].filter((fps) => fps > low && fps < high);
    const labels = [...rows].sort((a, b) => b.j_and_f - a.j_and_f);
    let above = -Infinity; // labels that would lie on each other move down
    const named = labels.map((row) => {
      const at = Math.max(y(row.j_and_f) + 4, above + 14);
      above = at;
      return svg("g", {}, svg("circle", { cx: x(row.fps), cy: y(row.j_and_f), r: 7, fill: row.kind === "published" ? "none" : v.colour(row.model),
        stroke: v.colour(row.model), "stroke-width": 2 }, svg("title", {}, `${row.model}: ${v.show(row.j_and_f)} at ${v.show(row.fps)} fps`)),
      svg("text", { x: x(row.fps) + 12, y: at }, row.model));
    });
    $("speed-plot").replaceChildren(svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "J&F against frames per second" },
      ...[0, 20, 40, 60, 80, 100].flatMap((value) => [svg("line", { x1: left, x2: W - right, y1: y(value), y2: y(value), class: "axis" }),
        svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value))]),
      ...marks.map((fps) => svg("text", { x: x(fps), y: H - bottom + 16, "text-anchor": "middle" }, String(fps))),
      svg("text", { x: (left + W - right) / 2, y: H - 8, "text-anchor": "middle" }, "frames per second (logarithmic)"),
      svg("text", { x: 12, y: y(50), "text-anchor": "middle", transform: `rotate(-90 12 ${y(50)})` }, "J&F"), ...named));
  }

  for (const id of ["duel-x", "duel-y"]) $(id).addEventListener("input", duel);
  $("speed-device").addEventListener("input", speed);
  v.onPlace(() => {
    const models = v.models();
    if (!models.length) return;
    v.options($("duel-x"), models);
    v.options($("duel-y"), models);
    $("duel-y").value = v.leader();
    $("duel-x").value = models.find((model) => model !== v.leader()) || models[0];
    v.options($("speed-device"), [...new Set(v.place().board.filter((row) => row.fps && row.device).map((row) => row.device))]);
    duel();
    speed();
  });
  v.start();
  v.openFromAddress();
})();
