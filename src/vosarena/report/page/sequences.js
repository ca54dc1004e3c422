"use strict";
// Galleries, the list of sequences, and the viewer.
(() => {
  const v = window.vosarena, { $, el } = v;
  const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");
  const APART = 1; // points of J&F between models from which a sequence is shown as a difference
  const COLUMNS = 8, STEP = window.innerWidth < 640 ? 10 : 60, details = new Map(), hidden = new Set();
  let listed = [], shown = STEP, open = null, big = null, timer = null, waiting = null;

  const folder = (sequence) => v.folder(`${v.split()}/${sequence}`);
  const pace = ({ rate, frames, tile }) => Math.max(40, (1000 / rate) * (frames / tile[2])); // milliseconds per tile: real time
  // Sheets over the frames, the uppermost first. Frames under masks lose a part of their colour, as in media.blended.
  const MUTED = "linear-gradient(rgb(128 128 128 / 50%), rgb(128 128 128 / 50%))";
  function sheets(layer, view) {
    if (layer === null || ["frame", "clip"].includes(view)) return [];
    if (layer === "truth") return ["contour", "truth"];
    if (!v.scored()) return view === "mask" ? [`${layer}-outline`, layer] : [`${layer}-outline`];
    return { mask: ["contour", layer], error: ["contour", `${layer}-error`], outline: [`${layer}-outline`, "contour"] }[view];
  }
  // A tile is a background that moves with the frame.
  function paint(node, sequence, layer, index, view = "mask") {
    const [width, height, tiles] = sequence.tile, columns = Math.min(COLUMNS, tiles), rows = Math.ceil(tiles / COLUMNS);
    const column = index % COLUMNS, row = Math.floor(index / COLUMNS), base = folder(sequence.name);
    const over = sheets(layer, view).map((name) => `url("${base}/${name}.png")`);
    if (over.length) over.push(MUTED);
    node.style.aspectRatio = `${width} / ${height}`;
    node.style.backgroundImage = [...over, `url("${base}/frames.jpg")`].join(",");
    node.style.backgroundBlendMode = over.map((_, i) => (i === over.length - 1 ? "saturation" : "normal")).concat("normal").join(",");
    node.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
    node.style.backgroundPosition = `${columns > 1 ? (column / (columns - 1)) * 100 : 0}% ${rows > 1 ? (row / (rows - 1)) * 100 : 0}%`;
  }
  const lazily = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting)
    .forEach((entry) => lazily.show(entry.target)), { rootMargin: "300px" });
  lazily.show = (node) => {
    if (node.draw) node.draw(node);
    node.draw = null;
    lazily.unobserve(node);
  };
  const lazy = (node, draw) => {
    node.draw = draw;
    lazily.observe(node);
    return node;
  };
  function tile(sequence, layer, index, title, value) {
    const [width, height] = sequence.tile;
    const node = el("div", { class: "tile", role: "img", "aria-label": `${sequence.name}, ${title}`,
      style: `aspect-ratio:${width}/${height}` });
    lazy(node, () => paint(node, sequence, layer, index));
    return el("figure", {}, node, el("figcaption", {}, el("span", {}, title), el("span", {}, value || "")));
  }
  const layers = (sequence) => [["frame", null], [v.scored() ? "ground truth" : "prompt", "truth"],
    ...v.models().filter((model) => model in sequence.layers).map((model) => [model, sequence.layers[model]])];
  const spread = (sequence) => {
    if (!v.scored()) return sequence.disagreement ?? 0;
    const values = v.models().map((model) => v.score(sequence.name, model)).filter((x) => x !== undefined);
    return values.length > 1 ? Math.max(...values) - Math.min(...values) : 0;
  };
  function card(sequence, index, text) {
    const count = layers(sequence).length, columns = count > 4 ? Math.ceil(count / 2) : count; // rows without gaps
    const strip = layers(sequence).map(([title, layer]) => tile(sequence, layer, index, title, v.show(v.score(sequence.name, title))));
    const show = (at) => layers(sequence).forEach(([, layer], i) => paint(strip[i].firstChild, sequence, layer, at));
    let turning = null, at = 0;
    const rest = () => { clearInterval(turning); show(index); };
    const turn = () => {
      clearInterval(turning);
      if (!STILL.matches) turning = setInterval(() => show(at++ % sequence.tile[2]), pace(sequence));
    };
    return el("button", { type: "button", class: "card", onclick: () => { rest(); view(sequence, index); },
      onpointerenter: turn, onfocus: (event) => event.target.matches(":focus-visible") && turn(), onpointerleave: rest, onblur: rest },
    el("div", { class: "head" }, el("b", {}, sequence.name), el("span", { class: "quiet" }, text)),
    el("div", { class: "strip", style: `--columns:${Math.min(6, columns)}` }, ...strip));
  }
  function galleries() {
    const best = v.leader();
    const all = v.sequences().filter((item) => !v.scored() || v.score(item.name, best) !== undefined);
    $("fails-title").textContent = v.scored() ? "Worst sequences" : "Disagreement";
    $("worst-title").hidden = !v.scored();
    const failed = all.filter((item) => best in item.fail);
    const worst = failed.sort((a, b) => v.score(a.name, best) - v.score(b.name, best)).slice(0, 4);
    $("worst-title").replaceChildren(...(worst.length ? ["Lowest scores of ", v.chip(best), best, ", each at its worst frame"]
      : [v.chip(best), best, ` has no frame with a J of ${v.data.failure_j} or less`]));
    const apart = all.filter((item) => !worst.includes(item) && item.apart !== null && spread(item) >= APART) // no sequence twice
      .sort((a, b) => spread(b) - spread(a)).slice(0, 4);
    $("disagree-title").hidden = !apart.length;
    $("worst").replaceChildren(...worst.map((item) => card(item, item.low[best] ?? item.fail[best], item.attributes.join(", "))));
    const far = (item) => (v.scored() ? `${v.show(spread(item))} points between best and worst` : `masks differ by ${v.show(spread(item))} %`);
    $("disagree").replaceChildren(...apart.map((item) => card(item, item.apart, far(item))));
  }

  function differs(sequence, model) {
    const values = sequence.sparkline[model];
    return values ? `${v.show(values.reduce((sum, value) => sum + value, 0) / values.length, 0)} % apart` : "";
  }
  function row(sequence) {
    const i = sequence.thumb;
    const thumbs = folder("thumbs.jpg");
    return el("button", { type: "button", class: "seq", "data-name": sequence.name, onclick: () => view(sequence) },
      el("span", { class: "thumb", style: `background-image:url("${thumbs}");background-position:-${(i % 20) * 96}px -${Math.floor(i / 20) * 54}px` }),
      el("span", {}, el("b", {}, sequence.name), el("small", {},
        `${sequence.frames} frames, ${sequence.objects} ${sequence.objects === 1 ? "object" : "objects"}${sequence.attributes.length ? ", " : ""}${sequence.attributes.join(", ")}`)),
      el("span", { class: "sparks" }, ...v.models().map((model) => el("span", { class: "spark" },
        el("span", {}, v.chip(model), model, el("br"), el("b", {}, (v.scored() ? v.show(v.score(sequence.name, model)) : differs(sequence, model)) || "not scored")),
        lazy(el("span", { "aria-hidden": "true" }), (node) => node.replaceChildren(v.sparkline(sequence.sparkline[model] || [], model)))))));
  }
  function list() {
    const words = $("sequence-filter").value.toLowerCase(), attribute = $("sequence-attribute").value;
    const [by, model] = $("sequence-order").value.split(":");
    listed = v.sequences().filter((item) => item.name.toLowerCase().includes(words)
      && (!attribute || item.attributes.includes(attribute)));
    const value = { name: () => 0, low: (item) => v.score(item.name, model) ?? 101, apart: (item) => -spread(item),
      long: (item) => -item.frames }[by];
    listed.sort((a, b) => value(a) - value(b) || a.name.localeCompare(b.name));
    $("sequence-count").textContent = `${listed.length} of ${v.sequences().length}`;
    $("list").replaceChildren(...(listed.length ? listed.slice(0, shown).map(row) : [el("p", {}, "No sequence matches. ",
      el("button", { type: "button", onclick: () => { $("sequence-filter").value = ""; v.filterSequences(""); } }, "Clear the filters"))]));
    $("more").hidden = listed.length <= shown;
  }
  v.filterSequences = (attribute, model) => {
    $("sequence-attribute").value = attribute;
    if (model) $("sequence-order").value = `low:${model}`;
    shown = STEP;
    list();
    $("sequences").scrollIntoView();
  };

  // The data of a sequence are a script, because browsers do not let a local page fetch JSON.
  v.arrived = (key, detail) => { details.set(key, detail); if (waiting && waiting.key === key) waiting.then(); };
  function view(sequence, index) {
    stop();
    open = { sequence, index: index ?? sequence.fail[v.leader()] ?? (v.scored() ? 0 : sequence.apart ?? 0) };
    for (const id of ["curve-controls", "curve-help"]) $(id).hidden = !v.scored();
    $("curve-help-unscored").hidden = v.scored() || sequence.apart === null;
    $("view").querySelector("[value=error]").hidden = !v.scored();
    if ((!v.scored() && $("view").value === "error") || (!sequence.clip && $("view").value === "clip")) $("view").value = "mask";
    showView();
    $("viewer-title").textContent = sequence.name;
    $("viewer-facts").textContent = `${v.split()}, ${sequence.frames} frames`
      + (sequence.tile[2] < sequence.frames ? ` (${sequence.tile[2]} shown)` : "")
      + (sequence.attributes.length ? `, ${sequence.attributes.join(", ")}` : "");
    $("slider").max = sequence.tile[2] - 1;
    $("panels").replaceChildren(...layers(sequence).map(([title, layer]) => {
      const node = el("div", { class: "tile", role: "img", "aria-label": `${sequence.name}, ${title}` });
      return el("figure", { "data-layer": title, style: `--ratio:${sequence.tile[0] / sequence.tile[1]}` },
        el("div", { class: "window", onclick: () => enlarge(title) }, node), el("figcaption", {},
          el("span", {}, layer === null || layer === "truth" ? null : v.chip(title), title), el("span", { class: "now" }),
          el("button", { type: "button", class: "enlarge", "aria-label": `Enlarge ${title}`, onclick: () => enlarge(title) }, "\u2922")));
    }));
    $("models").replaceChildren(...layers(sequence).slice(2).map(([title]) => el("label", {},
      el("input", { type: "checkbox", checked: !hidden.has(title), onchange: (event) => {
        if (event.target.checked) hidden.delete(title); else hidden.add(title);
        arrange();
        offer();
        if (open.item) curves();
      } }), v.chip(title), title)));
    arrange();
    offer();
    $("curves").replaceChildren();
    history.replaceState(null, "", v.address(sequence.name));
    if (!$("viewer").open) $("viewer").showModal();
    go(open.index);
    $("slider").focus();
    const key = `${v.split()}/${sequence.name}`, ready = () => { waiting = null; loaded(details.get(key)); };
    if (details.has(key)) return ready();
    waiting = { key, then: ready };
    document.head.append(el("script", { src: `${folder(sequence.name)}/data.js`,
      onerror: () => { $("curves").textContent = "The folder media/ next to this page is missing; it contains the pictures and curves."; } }));
  }
  // Panels: hidden models, full rows, and the enlarged one.
  function arrange() {
    const visible = [...$("panels").children].filter((figure) => {
      figure.hidden = hidden.has(figure.dataset.layer);
      figure.classList.toggle("big", figure.dataset.layer === big);
      return !figure.hidden;
    });
    const small = visible.filter((figure) => figure.dataset.layer !== big).length;
    $("panels").style.setProperty("--columns", Math.max(1, Math.ceil(small / Math.ceil(small / 5))));
  }
  const visible = () => layers(open.sequence).slice(2).map(([title]) => title).filter((title) => !hidden.has(title));
  const offer = () => v.offerClip(open.sequence, visible());
  const showView = () => { stop(); v.showClip(open.sequence, $("view").value === "clip"); };
  function enlarge(title) {
    big = big === title ? null : title;
    arrange();
  }
  function loaded(detail) {
    open.detail = detail;
    if (!v.scored()) {
      curves();
      go(open.index);
      return;
    }
    const ids = detail.objects.map((item) => String(item.id)), scored = detail.objects.filter(counts);
    v.options($("object"), ["mean", ...ids], [scored.length < ids.length ? "scored objects (mean)" : "all objects (mean)",
      ...detail.objects.map((item) => `object ${item.id}${counts(item) ? "" : " (not scored)"}`)]);
    $("object").value = scored.length === 1 ? String(scored[0].id) : "mean";
    curves();
    go(open.index);
  }
  const counts = (item) => item.scored.includes(v.board().protocol);
  // The most frequent failure of the objects, the first of FailureKind if several are.
  function common(found) {
    const count = (kind) => found.filter((other) => other === kind).length;
    return found.filter((kind) => kind !== "0").sort((a, b) => count(b) - count(a) || a.localeCompare(b))[0] || "0";
  }
  // Without ground truth: the difference of each model from the others, on the shown frames.
  const apart = () => ({ at: open.detail.shown, j: open.detail.apart, visible: open.detail.shown.map(() => 1), fail: {} });
  const label = () => (v.scored() ? $("metric").selectedOptions[0].text : "apart, %");
  const value = (item, model, i) => (!item.kinds ? item.j[model][i] : { j: () => item.j[model][i], f: () => item.f[model][i],
    both: () => (item.j[model][i] + item.f[model][i]) / 2 }[$("metric").value]());
  // Curves of the chosen object, or the mean over the scored objects, each from its first appearance.
  function chosen() {
    const one = open.detail.objects.find((item) => String(item.id) === $("object").value);
    if (one) return one;
    const objects = open.detail.objects.filter((item) => counts(item) && item.visible.includes(1));
    const where = objects.map((item) => { // objects may be annotated on different frames
      const start = item.visible.indexOf(1);
      return new Map(item.at.map((frame, i) => [frame, i]).slice(start));
    });
    const at = [...new Set(where.flatMap((frames) => [...frames.keys()]))].sort((a, b) => a - b);
    const there = (frame, values) => objects.flatMap((item, n) => values(item)[where[n].get(frame)] ?? []);
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const models = Object.keys(open.detail.objects[0].j);
    const means = (name) => Object.fromEntries(models.map((model) => [model, at.map((frame) => mean(there(frame, (item) => item[name][model])))]));
    const [j, f] = [means("j"), means("f")];
    const kinds = Object.fromEntries(models.map((model) => [model, at.map((frame) => common(there(frame, (item) => item.kinds[model]))).join("")]));
    const lost = Object.entries(j).map(([model, values]) => [model, at[values.findIndex((value, i) => i > 0 && value <= v.data.failure_j)]]);
    return { at, j, f, kinds, visible: at.map((frame) => Math.max(...there(frame, (item) => item.visible))),
      fail: Object.fromEntries(lost.filter(([, frame]) => frame !== undefined)) };
  }
  function curves() {
    const item = v.scored() ? chosen() : apart(), models = v.models().filter((model) => model in item.j && !hidden.has(model));
    const scores = Object.fromEntries(models.map((model) => [model, item.at.map((_, i) => value(item, model, i))]));
    open.item = item;
    open.chart = v.curves({ ...item, scores, label: label() }, open.detail.frames, models, Math.max(340, $("curves").clientWidth), (frame) => {
      const far = open.detail.shown.map((at) => Math.abs(at - frame));
      stop();
      go(far.indexOf(Math.min(...far)));
    });
    $("curves").replaceChildren(...(v.scored() || models.length ? [open.chart] : []));
    legend();
    go(open.index);
  }
  function legend() {
    const swatch = (colour, text) => el("span", {}, el("span", { class: "chip", style: `background:${colour}` }), text);
    const objects = open.detail.objects.slice(0, 12).map((one) => swatch(one.colour, `object ${one.id}`));
    const truth = !v.scored() ? "" : el("span", {}, el("span", { class: "chip contour" }), "ground truth");
    $("legend").replaceChildren(...{ mask: [truth, ...objects], outline: [truth, ...objects], frame: [],
      clip: [truth, ...objects], error: [truth, swatch("#FF4A1C", "missed"), swatch("#1E90FF", "extra")] }[$("view").value]);
  }
  function go(index) {
    if (!open) return;
    const { sequence, detail } = open;
    open.index = index = Math.max(0, Math.min(sequence.tile[2] - 1, index));
    $("slider").value = index;
    $("picture-help").hidden = true; // it is about another frame
    const frame = detail ? detail.shown[index] : null;
    $("frame").textContent = frame === null ? "" : `frame ${frame} / ${sequence.frames - 1}`;
    layers(sequence).forEach(([title, layer], i) => {
      const figure = $("panels").children[i];
      paint(figure.querySelector(".tile"), sequence, layer, index, $("view").value);
      if (open.item && open.item.j[title]) {
        const at = open.item.at.indexOf(frame);
        const kind = Number(open.item.kinds?.[title][at] ?? 0), score = at < 0 ? "" : v.show(value(open.item, title, at), 0);
        figure.querySelector(".now").textContent = at < 0 ? "" : [v.scored() ? `${label()} ${score}` : `${score} % apart`,
          ...(kind ? [v.data.failure_kinds[kind - 1]] : [])].join(", ");
      }
    });
    if (open.chart && frame !== null) open.chart.moveTo(frame);
  }
  function stop() { clearInterval(timer); timer = null; $("play").textContent = "Play"; }
  function play() {
    if (timer) return stop();
    $("play").textContent = "Stop";
    timer = setInterval(() => go((open.index + 1) % open.sequence.tile[2]), pace(open.sequence));
    return undefined;
  }
  function step(by) {
    const i = listed.indexOf(open.sequence);
    if (listed.length) view(listed[(i + by + listed.length) % listed.length]);
  }
  function openFromAddress() {
    const found = v.sequences().find((item) => v.address(item.name) === location.hash);
    if (found) view(found);
  }

  $("slider").addEventListener("input", () => { stop(); go(Number($("slider").value)); });
  $("view").addEventListener("change", () => { showView(); go(open.index); if (open.detail) legend(); });
  $("zoom").addEventListener("change", () => $("panels").style.setProperty("--zoom", $("zoom").value));
  // The place under the pointer stays there in all panels.
  $("panels").addEventListener("pointermove", (event) => {
    const box = event.target.closest(".window")?.getBoundingClientRect();
    if (!box) return;
    $("panels").style.setProperty("--x", `${(100 * (event.clientX - box.left)) / box.width}%`);
    $("panels").style.setProperty("--y", `${(100 * (event.clientY - box.top)) / box.height}%`);
  });
  for (const id of ["object", "metric"]) $(id).addEventListener("change", curves);
  $("kinds").replaceChildren(...v.data.failure_kinds.flatMap((kind, i) => [i ? ", " : "",
    el("span", { class: "kind" }, el("span", { class: "chip", style: `background:${v.kindColour(i + 1)}` }), kind)]));
  $("save-picture").addEventListener("click", () => open.detail && v.savePicture(open.sequence, open.index, visible(), open.detail.shown[open.index]));
  $("play").addEventListener("click", play);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => $("viewer").close());
  $("viewer").addEventListener("click", (event) => { if (event.target === $("viewer")) $("viewer").close(); });
  $("viewer").addEventListener("close", () => { stop(); $("clip").pause(); open = waiting = null; history.replaceState(null, "", location.pathname + location.search); });
  $("viewer").addEventListener("keydown", (event) => {
    if (event.key === "n") step(1);
    if (event.key === "p") step(-1);
    if (event.key === "e" && v.scored() && event.target.tagName !== "SELECT") {
      $("view").value = $("view").value === "error" ? "mask" : "error";
      $("view").dispatchEvent(new Event("change"));
    }
    if (event.key === " " && event.target === $("slider")) { event.preventDefault(); play(); }
  });
  for (const id of ["sequence-filter", "sequence-attribute", "sequence-order"]) $(id).addEventListener("input", () => { shown = STEP; list(); });
  $("more").addEventListener("click", () => { shown += STEP; list(); });
  window.addEventListener("hashchange", openFromAddress);
  // A print has everything. Pictures load when the page is idle, because printing does not wait for them.
  const drawAll = (selector) => document.querySelectorAll(selector).forEach((node) => lazily.show(node));
  window.addEventListener("beforeprint", () => drawAll("#fails .tile, #list .seq [aria-hidden]"));
  window.addEventListener("load", () => (window.requestIdleCallback || setTimeout)(() => drawAll("#fails .tile")));
  v.onBoard(() => {
    if ($("viewer").open) $("viewer").close();
    const attributes = [...new Set(v.sequences().flatMap((item) => item.attributes))].sort();
    v.options($("sequence-attribute"), ["", ...attributes], ["any", ...attributes]);
    $("sequence-attribute").parentNode.hidden = !attributes.length;
    const best = v.leader();
    const models = [best, ...v.models().filter((model) => model !== best)].filter(Boolean);
    const low = v.scored() ? models : [];
    v.options($("sequence-order"), [...low.map((model) => `low:${model}`), "apart:", "name:", "long:"],
      [...low.map((model) => `lowest of ${model}`), "largest difference", "name", "longest"]);
    galleries();
    list();
  });
  v.start();
  openFromAddress();
})();
