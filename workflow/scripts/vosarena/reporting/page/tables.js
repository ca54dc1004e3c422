"use strict";
// The leaderboard and the table of attributes.
(() => {
  const v = window.vosarena, { $, el, svg } = v;
  const COLUMNS = [
    ["rank", "#", (row) => v.show(row.rank, 0)], ["model", "model", null], ["kind", "kind", null],
    ["j_and_f", "J&F", (row) => v.show(row.j_and_f)], ["interval", "95 % interval", null],
    ["j", "J", (row) => v.show(row.j)], ["f", "F", (row) => v.show(row.f)],
    ["j_seen", "J seen", (row) => v.show(row.j_seen)], ["f_seen", "F seen", (row) => v.show(row.f_seen)],
    ["j_unseen", "J unseen", (row) => v.show(row.j_unseen)], ["f_unseen", "F unseen", (row) => v.show(row.f_unseen)],
    ["behind_best", "behind best", (row) => v.show(row.behind_best)],
    ["p_vs_best", "p", (row) => (row.p_vs_best === undefined ? "" : row.p_vs_best < 0.001 ? "<0.001" : v.show(row.p_vs_best, 3))],
    ["n_sequences", "sequences", (row) => (row.n_expected ? `${row.n_sequences || 0}/${row.n_expected}` : "")],
    ["fps", "fps", (row) => v.show(row.fps)], ["peak_memory_mb", "peak MB", (row) => v.show(row.peak_memory_mb, 0)],
    ["device", "device", (row) => row.device || ""], ["source", "source", (row) => row.source || ""],
  ];
  const TEXT = ["model", "kind", "device", "source", "interval"];
  let order = "j_and_f", down = true, kinds = new Set();

  function interval(row) {
    if (row.ci_low === undefined) return "";
    const x = (value) => 2 + (value / 100) * 126;
    return svg("svg", { viewBox: "0 0 130 16", role: "img", "aria-label": `${v.show(row.ci_low)} to ${v.show(row.ci_high)}` },
      svg("title", {}, `${v.show(row.ci_low)} to ${v.show(row.ci_high)}`),
      svg("line", { x1: 2, x2: 128, y1: 8, y2: 8, class: "axis" }),
      svg("rect", { x: x(row.ci_low), width: Math.max(2, x(row.ci_high) - x(row.ci_low)), y: 4, height: 8, rx: 3,
        fill: v.colour(row.model), opacity: 0.45 }),
      svg("circle", { cx: x(row.j_and_f), cy: 8, r: 4, fill: v.colour(row.model) }));
  }
  function badge(row) {
    const plain = ["complete", "published"].includes(row.status);
    return el("span", {}, el("span", { class: `badge ${row.kind}` }, row.kind), " ",
      plain ? null : el("span", { class: "badge warn" }, row.status));
  }
  function cell(row, [key, , text]) {
    if (key === "model") return el("td", {}, row.kind === "published" ? null : v.chip(row.model), row.model,
      row.note ? el("span", { title: row.note, "aria-label": row.note }, " *") : null);
    if (key === "kind") return el("td", {}, badge(row));
    if (key === "interval") return el("td", { class: "bar-cell" }, interval(row));
    return el("td", { class: TEXT.includes(key) ? key : "number" }, text(row));
  }
  function board() {
    const all = v.place().board, words = $("board-filter").value.toLowerCase();
    const columns = COLUMNS.filter(([key]) => key === "interval" ? all.some((r) => r.ci_low !== undefined) : all.some((r) => r[key] !== undefined && r[key] !== ""));
    const rows = all.filter((row) => kinds.has(row.kind) &&
      [row.model, row.source, row.device, row.note, row.status].join(" ").toLowerCase().includes(words));
    const value = (row) => (order === "interval" ? row.ci_low : row[order]);
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const sign = typeof x === "string" ? x.localeCompare(y) : x - y;
      return down ? -sign : sign;
    });
    const head = columns.map((column) => {
      const [key, title] = column, mine = key === order;
      return el("th", { class: TEXT.includes(key) ? "" : "number", scope: "col",
        "aria-sort": mine ? (down ? "descending" : "ascending") : null },
      el("button", { type: "button", "data-key": key, onclick: () => {
        down = mine ? !down : !TEXT.includes(key) && key !== "rank";
        order = key;
        board();
        $("board").querySelector(`[data-key=${key}]`).focus();
      } }, title));
    });
    $("board").replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows.map((row) =>
      el("tr", { class: row.kind === "published" ? "published" : row.status === "complete" ? "" : "unfinished" },
        ...columns.map((column) => cell(row, column))))));
  }
  function kindBoxes() {
    const present = [...new Set(v.place().board.map((row) => row.kind))];
    kinds = new Set(present);
    $("board-kinds").replaceChildren(...(present.length < 2 ? [] : present.map((kind) => el("label", {},
      el("input", { type: "checkbox", checked: true, onchange: (event) => {
        if (event.target.checked) kinds.add(kind); else kinds.delete(kind);
        board();
      } }), ` ${kind} `))));
  }

  // Low is orange, high is blue, both light enough for dark text: ColorBrewer's RdBu, safe for colour-blind readers.
  function shade(value) {
    const low = [244, 165, 130], middle = [247, 247, 247], high = [146, 197, 222];
    const t = Math.max(0, Math.min(1, value / 100));
    const [a, b, u] = t < 0.5 ? [low, middle, t * 2] : [middle, high, t * 2 - 1];
    return `rgb(${a.map((x, i) => Math.round(x + (b[i] - x) * u)).join(",")})`;
  }
  function heat() {
    const rows = v.place().attributes, names = [...new Set(rows.map((row) => row.attribute))];
    const count = (name) => (rows.find((row) => row.attribute === name) || {}).n_sequences;
    $("hard-note").textContent = "Mean J&F by attribute of the sequences; choose a cell to see its sequences."
      + (rows.some((row) => row.derived) ? " The attributes were derived from the ground truth." : "");
    const models = v.models();
    const find = (model, name) => rows.find((row) => row.model === model && row.attribute === name);
    $("heat").replaceChildren(
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "model"), ...names.map((name) =>
        el("th", { scope: "col" }, name.replaceAll("-", " "), el("br"), el("small", { class: "quiet" }, `${count(name)} seq.`))))),
      el("tbody", {}, ...models.map((model) => el("tr", {}, el("th", { scope: "row" }, v.chip(model), model),
        ...names.map((name) => {
          const found = find(model, name);
          if (!found) return el("td");
          return el("td", { class: "cell", style: `background:${shade(found.j_and_f)}` }, el("button", { type: "button",
            title: `${model}, ${name}: ${v.show(found.ci_low)} to ${v.show(found.ci_high)}`,
            onclick: () => v.filterSequences(name === "all" ? "" : name, model) }, v.show(found.j_and_f)));
        })))));
  }
  $("board-filter").addEventListener("input", board);
  v.onPlace(() => { order = "j_and_f"; down = true; kindBoxes(); board(); heat(); });
})();
