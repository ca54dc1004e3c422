"use strict";
// The curves of trainings: loss, scores on the held-out split, learning rate, and the share of the time that waits for data.
(() => {
  const v = window.vosarena, { $, el } = v;
  if (!$("training")) return;
  const short = (value) => (value && value < 0.001 ? value.toExponential(0) : String(Number(value.toPrecision(3))));
  function chart(name, points, model, width) {
    const found = Plot.plot({ width, height: 180, marginLeft: 52, marginTop: 26, marginBottom: 40, ariaLabel: `${name} of ${model}`,
      x: { label: "iteration", ticks: 4 }, y: { label: name, grid: true, ticks: 4, tickFormat: short, zero: name !== "validation J&F" }, marks: [
        Plot.line(points, { stroke: v.colour(model), strokeWidth: 1.8 }),
        points.length < 40 ? Plot.dot(points, { fill: v.colour(model), r: 2.5, title: ([at, value]) => `${at}: ${value}` }) : null] });
    found.setAttribute("role", "img");
    found.querySelectorAll("g[aria-label]").forEach((group) => group.removeAttribute("aria-label"));
    return found;
  }
  function draw() {
    const wide = $("trainings").clientWidth, width = Math.max(240, Math.min(wide, wide < 700 ? wide : Math.floor(wide / 4) - 10));
    $("trainings").replaceChildren(...Object.entries(v.data.trainings).flatMap(([model, curves]) => {
      const all = { ...curves, "waiting for data (%)": (window.vosarenaWaiting || {})[model] || [] };
      return [el("h3", {}, v.chip(model), model), el("div", { class: "trainings" },
        ...Object.entries(all).filter(([, points]) => points.length).map(([name, points]) => chart(name, points, model, width)))];
    }));
  }
  window.addEventListener("resize", draw);
  v.onBoard(draw);
})();
