"use strict";
// The leaderboard and the failures, sorted and filtered by DataTables, and the table of attributes.
(() => {
  const v = window.vosarena, { $, el } = v;
  const LAYOUT = { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null };
  const PLAIN = { autoWidth: false, info: false, layout: LAYOUT, order: [], paging: false };
  // key: what a column sorts by; words: whether it holds words, which the filter looks at and which sort upwards first.
  const number = (title, key, digits) => ({ title, key, show: (row) => v.show(row[key], digits) });
  const words = (title, key, show) => ({ title, key, show: show || ((row) => row[key]), words: true });
  const COLUMNS = [
    words("#", "rank"), words("model", "model", name), words("kind", "kind", badges), number("J&F", "j_and_f"),
    { title: "95 % interval", key: "ci_low", show: (row) => (row.ci_low === undefined ? "" : v.interval(row)) },
    number("J", "j"), number("F", "f"), number("J seen", "j_seen"), number("F seen", "f_seen"), number("J unseen", "j_unseen"),
    number("F unseen", "f_unseen"), number("behind best", "behind_best"),
    { title: "p", key: "p_vs_best", show: (row) => (row.p_vs_best < 0.001 ? "<0.001" : v.show(row.p_vs_best, 3)) },
    { title: "sequences", key: "n_sequences", show: (row) => (row.n_expected ? `${row.n_sequences || 0}/${row.n_expected}` : "") },
    { title: "objects", key: "n_objects", show: (row) => (row.n_objects_all > row.n_objects ? `${row.n_objects}/${row.n_objects_all}` : row.n_objects) },
    number("fps", "fps"), number("peak MB", "peak_memory_mb", 0), words("device", "device"), words("source", "source"),
  ];
  let table = null, kinds = new Set();

  DataTable.ext.errMode = "throw";
  // What is missing stays below, whatever the direction.
  const compare = (sign) => (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };
  DataTable.ext.type.order["known-asc"] = compare(1);
  DataTable.ext.type.order["known-desc"] = compare(-1);

  const node = (shown) => (shown instanceof Node ? shown : document.createTextNode(shown ?? "")); // a string would be HTML
  function name(row) {
    return el("span", {}, row.kind === "published" ? null : v.chip(row.model), row.model,
      row.note ? el("span", { title: row.note, "aria-label": row.note }, " *") : null);
  }
  function badges(row) {
    const plain = ["complete", "published"].includes(row.status);
    return el("span", {}, el("span", { class: `badge ${row.kind}` }, row.kind), " ",
      plain ? null : el("span", { class: "badge warn" }, row.status));
  }
  function board() {
    const rows = v.place().board, columns = COLUMNS.filter(({ key }) => rows.some((row) => (row[key] ?? "") !== "")
      && (key !== "kind" || rows.some((row) => row.kind !== "measured" || row.status !== "complete"))); // else it tells nothing
    if (table) table.destroy(true);
    $("board-place").replaceChildren(el("table", { id: "board" }));
    table = new DataTable("#board", { ...PLAIN, data: rows, order: [columns.findIndex(({ key }) => key === "j_and_f"), "desc"],
      columns: columns.map(({ title, key, show, words }) => ({ title, data: null, type: "known", className: words ? key : "number",
        orderSequence: words ? ["asc", "desc"] : ["desc", "asc"],
        render: (_, purpose, row) => (purpose === "display" ? node(show(row)) : purpose === "sort" ? row[key] ?? null
          : words ? [row[key], row.note, row.status].join(" ") : "") })),
      createdRow: (line, row) => line.classList.add(row.kind === "published" ? "published" : row.status === "complete" ? "complete" : "unfinished"),
    });
    $("board-note").textContent = v.place().unscored;
    table.search.fixed("kind", (_, row) => kinds.has(row.kind)).search($("board-filter").value).draw();
  }
  function kindBoxes() {
    const present = [...new Set(v.place().board.map((row) => row.kind))];
    kinds = new Set(present);
    $("board-kinds").replaceChildren(...(present.length < 2 ? [] : present.map((kind) => el("label", {},
      el("input", { type: "checkbox", checked: true, onchange: (event) => {
        if (event.target.checked) kinds.add(kind); else kinds.delete(kind);
        table.draw();
      } }), ` ${kind} `))));
  }

  // Low is orange, high is blue, both light enough for dark text: ColorBrewer's RdBu, safe for colour-blind readers.
  const shade = Plot.scale({ color: { type: "linear", domain: [0, 50, 100], range: ["#f4a582", "#f7f7f7", "#92c5de"] } }).apply;
  function heat() {
    const rows = v.place().attributes, names = [...new Set(rows.map((row) => row.attribute))];
    const count = (name) => (rows.find((row) => row.attribute === name) || {}).n_sequences;
    $("hard-note").textContent = "Mean J&F by attribute of the sequences: orange is low, blue is high. Choose a cell to see its sequences, lowest first."
      + (rows.some((row) => row.derived) ? " The attributes were derived from the ground truth." : "")
      + (names.includes("late") && v.place().unscored ? ` Also under "late": ${v.place().unscored}` : "");
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
  v.onPlace(() => { kindBoxes(); board(); heat(); });
})();
