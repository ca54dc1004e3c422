"use strict";
// Leaderboard and failures, sorted and filtered by DataTables, and the table of attributes.
(() => {
  const v = window.vosarena, { $, el } = v;
  const LAYOUT = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
  const PLAIN = { autoWidth: false, info: false, layout: LAYOUT, order: [], paging: false };
  let table = null, kinds = new Set();

  DataTable.ext.errMode = "throw";
  // Missing values come last in both directions.
  const compare = (sign) => (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };
  DataTable.ext.type.order["known-asc"] = compare(1);
  DataTable.ext.type.order["known-desc"] = compare(-1);

  const node = (shown) => (shown instanceof Node ? shown : document.createTextNode(shown ?? "")); // DataTables reads strings as HTML
  function name(row) {
    return el("span", {}, row.kind === "published" ? null : v.chip(row.model), row.model,
      row.note ? el("span", { title: row.note, "aria-label": row.note }, " *") : null);
  }
  function badges(row) {
    const plain = ["complete", "published"].includes(row.status);
    return el("span", {}, el("span", { class: `badge ${row.kind}` }, row.kind), " ",
      plain ? null : el("span", { class: "badge warn" }, row.status));
  }
  function interval(row) {
    return row.ci_low === undefined ? "" : v.interval(row);
  }
  // Columns come from leaderboard/columns.py: sorted by the value of `key`, shown as text except for these.
  const DRAW = { model: name, kind: badges, ci_low: interval };
  const show = (key, row) => (DRAW[key] ? DRAW[key](row) : row.text[key]);
  const unusual = (row) => row.kind !== "measured" || row.status !== "complete";
  function leaderboard() {
    const rows = v.board().rows;
    const columns = v.data.columns.filter(({ key }) => rows.some((row) => row.text[key] && (key !== "kind" || unusual(row))));
    if (table) table.destroy(true);
    $("board-table").replaceChildren(el("table", { id: "board" }));
    table = new DataTable("#board", { ...PLAIN, data: rows, order: [columns.findIndex(({ key }) => key === "j_and_f"), "desc"],
      columns: columns.map(({ title, key, words }) => ({ title, data: null, type: "known", className: words ? key : "number",
        orderSequence: words ? ["asc", "desc"] : ["desc", "asc"],
        render: (_, purpose, row) => (purpose === "display" ? node(show(key, row)) : purpose === "sort" ? row[key] ?? null
          : words ? [row[key], row.note, row.status].join(" ") : "") })),
      createdRow: (line, row) => line.classList.add(row.kind === "published" ? "published" : row.status === "complete" ? "complete" : "unfinished"),
    });
    columns.forEach(({ description }, i) => { table.column(i).header().title = description; });
    $("board-note").textContent = v.board().note;
    table.search.fixed("kind", (_, row) => kinds.has(row.kind)).search($("board-filter").value).draw();
  }
  function kindBoxes() {
    const present = [...new Set(v.board().rows.map((row) => row.kind))];
    kinds = new Set(present);
    $("board-kinds").replaceChildren(...(present.length < 2 ? [] : present.map((kind) => el("label", {},
      el("input", { type: "checkbox", checked: true, onchange: (event) => {
        if (event.target.checked) kinds.add(kind); else kinds.delete(kind);
        table.draw();
      } }), ` ${kind} `))));
  }

  // ColorBrewer's RdBu, which colour-blind readers can tell apart; light enough for dark text.
  const shade = Plot.scale({ color: { type: "linear", domain: [0, 50, 100], range: ["#f4a582", "#f7f7f7", "#92c5de"] } }).apply;
  function heat() {
    const rows = v.board().attributes, names = [...new Set(rows.map((row) => row.attribute))];
    const count = (name) => (rows.find((row) => row.attribute === name) || {}).n_sequences;
    $("hard-note").textContent = "Mean J&F of the sequences with an attribute: orange is low, blue is high. Click a cell to see its sequences, lowest first."
      + (rows.some((row) => row.derived) ? " Attributes are derived from the ground truth." : "");
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
            title: `${model}, ${name}: ${v.range(found) || "too few sequences for an interval"}`,
            onclick: () => v.filterSequences(name === "all" ? "" : name, model) }, v.show(found.j_and_f)));
        })))));
  }

  if ($("failed")) new DataTable("#failed", PLAIN);
  $("board-filter").addEventListener("input", () => table.search($("board-filter").value).draw());
  v.onBoard(() => { kindBoxes(); leaderboard(); heat(); });
})();
