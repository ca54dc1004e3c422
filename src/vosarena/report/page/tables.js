"use strict";
// Leaderboard and failures, sorted and filtered by DataTables, and the table of attributes.
(() => {
  const v = window.vosarena, { $, el, node, PLAIN } = window.dom;
  let table = null, kinds = new Set(), zeroShot = false; // zeroShot: only models that have seen nothing of the split

  function name(row) {
    return el("span", {}, row.kind === "published" ? null : v.chip(row.model), row.model,
      row.note ? el("span", { title: row.note, "aria-label": row.note }, " *") : null);
  }
  function badges(row) {
    const plain = ["complete", "published"].includes(row.status);
    return el("span", {}, el("span", { class: `badge ${row.kind}` }, row.kind), " ",
      plain ? null : el("span", { class: "badge warn" }, row.status));
  }
  // Ends of the axis of the interval bars: those of the data, rounded outwards to 5 points.
  function ends(rows) {
    if (!rows.some((row) => row.j_and_f !== undefined)) return [0, 100];
    const values = rows.flatMap((row) => [row.j_and_f, row.ci_low, row.ci_high]).filter((value) => value !== undefined);
    return [Math.max(0, 5 * Math.floor(Math.min(...values) / 5)), Math.min(100, 5 * Math.ceil(Math.max(...values) / 5))];
  }
  // Facts of the catalog about the models of the study, in columns after those of the scores.
  const fact = (row, key) => (row.kind === "published" ? "" : (v.data.models[row.model] || {})[key] || "");
  const FACTS = [["parameters", "parameters"], ["trained_on", "training data"], ["license", "licence"], ["paper", "paper"], ["code", "code"]];
  const link = (title) => (row) => (/^https?:/.test(fact(row, title)) ? el("a", { href: fact(row, title) }, title) : fact(row, title));
  // Columns come from leaderboard/columns.py: sorted by the value of `key`, shown as text except for these.
  const DRAW = { paper: link("paper"), code: link("code"), model: name, kind: badges,
    ci_low: (row, domain) => (row.ci_low === undefined ? "" : v.interval(row, domain)) };
  const show = (key, row, domain) => (DRAW[key] ? DRAW[key](row, domain) : row.text[key]);
  const VARIES = ["rank", "model", "j_and_f", "ci_low", "kind"]; // shown even if it is the same in every row
  const sortable = (key, row) => row[key] ?? ((key === "parameters" ? parseFloat(row.text[key]) : row.text[key]) || null);
  const withFacts = (row) => ({ ...row, text: { ...row.text, ...Object.fromEntries(FACTS.map(([key]) => [key, fact(row, key)])) } });
  const unusual = (row) => row.kind !== "measured" || row.status !== "complete";
  function leaderboard() {
    const rows = v.board().rows.map(withFacts);
    const filled = [...v.data.columns, ...FACTS.map(([key, title]) => ({ key, title, words: true, description: "" }))].filter(({ key }) => rows.some((row) => row.text[key] && (key !== "kind" || unusual(row))));
    const same = ({ key }) => rows.length > 1 && !VARIES.includes(key) && rows.every((row) => row.text[key] === rows[0].text[key]);
    const columns = filled.filter((column) => !same(column)), domain = ends(rows);
    const heading = ({ key, title }) => (key === "ci_low" ? `${title}, ${domain.join(" to ")}` : title);
    if (table) table.destroy(true);
    table = null;
    $("board-note").textContent = v.board().note;
    if (!rows.length) return;
    $("board-table").replaceChildren(el("table", { id: "board" }));
    table = new DataTable("#board", { ...PLAIN, data: rows, order: rows.some((row) => row.text.j_and_f) ? [columns.findIndex(({ key }) => key === "j_and_f"), "desc"] : [],
      columns: columns.map(({ title, key, words }) => ({ title: heading({ title, key }), data: null, type: "known", className: words ? key : "number",
        orderSequence: words ? ["asc", "desc"] : ["desc", "asc"],
        render: (_, purpose, row) => (purpose === "display" ? node(show(key, row, domain)) : purpose === "sort" ? sortable(key, row)
          : words ? [row[key] ?? row.text[key], row.note, row.status].join(" ") : "") })),
      language: { zeroRecords: "No row matches the filter." },
      createdRow: (line, row) => line.classList.add(row.kind === "published" ? "published" : row.status === "complete" ? "complete" : "unfinished"),
    });
    columns.forEach(({ description }, i) => { table.column(i).header().title = description; });
    const constant = filled.filter(same).map(({ key, title }) => `${title} ${rows[0].text[key]}`);
    $("board-note").textContent = [constant.length ? `The same in every row: ${constant.join(", ")}.` : "", v.board().note].join(" ").trim();
    table.search.fixed("kind", (_, row) => kinds.has(row.kind) && (!zeroShot || row.seen === "zero-shot")).search($("board-filter").value).draw();
  }
  function kindBoxes() {
    const present = [...new Set(v.board().rows.map((row) => row.kind))];
    kinds = new Set(present);
    zeroShot = false;
    const seen = new Set(v.board().rows.map((row) => row.seen));
    const only = seen.has("zero-shot") && seen.size > 1 ? [el("label", { title: "Only models that were trained on nothing of this dataset" },
      el("input", { type: "checkbox", onchange: (event) => { zeroShot = event.target.checked; table.draw(); } }), " zero-shot only ")] : [];
    $("board-kinds").replaceChildren(...only, ...(present.length < 2 ? [] : present.map((kind) => el("label", {},
      el("input", { type: "checkbox", checked: true, onchange: (event) => {
        if (event.target.checked) kinds.add(kind); else kinds.delete(kind);
        table.draw();
      } }), ` ${kind} `))));
  }

  // Orange and blue, which colour-blind readers can tell apart; both have a light and a dark form (page.css).
  const shade = (score, most = 50) => { // from -most, orange, to most, blue
    const part = Math.round(100 * Math.min(1, Math.abs(score) / most));
    return `background:color-mix(in srgb, var(${score < 0 ? "--low" : "--high"}) ${part}%, var(--middle))`;
  };
  function heat() {
    const rows = v.board().attributes, names = [...new Set(rows.map((row) => row.attribute))];
    const count = (name) => (rows.find((row) => row.attribute === name) || {}).n_sequences;
    $("hard-note").replaceChildren("Mean J&F of the sequences with an attribute: orange is low, blue is high."
      + (rows.some((row) => row.derived) ? " Attributes are derived from the ground truth." : ""),
    v.hint(" Click a cell to see its sequences, lowest first."));
    $("gains").textContent = v.board().gains.join(" ");
    const signed = (row) => `${row.difference > 0 ? "+" : ""}${v.show(row.difference)}`
      + (row.difference_low === undefined ? "" : ` [${v.show(row.difference_low)}, ${v.show(row.difference_high)}]`);
    const against = (row) => (row.difference === undefined ? "" : `; compared with ${row.compared_with}: ${signed(row)}`);
    const models = v.models();
    const find = (model, name) => rows.find((row) => row.model === model && row.attribute === name);
    $("heat").replaceChildren(
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "model"), ...names.map((name) =>
        el("th", { scope: "col" }, name.replaceAll("-", " "), el("br"), el("small", { class: "quiet" }, `${count(name)} seq.`))))),
      el("tbody", {}, ...models.map((model) => el("tr", {}, el("th", { scope: "row" }, v.chip(model), model),
        ...names.map((name) => {
          const found = find(model, name);
          if (!found) return el("td");
          return el("td", { class: "cell", style: shade(found.j_and_f - 50) }, el("button", { type: "button",
            title: `${model}, ${name}: ${v.range(found) || "too few sequences for an interval"}${against(found)}`,
            onclick: () => v.filterSequences(name === "all" ? "" : name, model) }, v.show(found.j_and_f)));
        })))));
  }

  // Splits without ground truth: how far every model is.
  function state() {
    $("state").hidden = v.scored();
    $("state-table").replaceChildren(
      el("thead", {}, el("tr", {}, ...["model", "finished sequences", "state", "archive"].map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, ...v.state().map((row) => el("tr", {}, el("th", { scope: "row" }, v.chip(row.model), row.model),
        el("td", {}, `${row.finished} of ${row.sequences}`), el("td", {}, row.status), el("td", {}, row.archive || "none")))));
  }
  // All pairs: how much better the model of the row is than that of the column.
  function pairs() {
    const models = v.models(), found = v.board().comparisons;
    const most = Math.max(1, ...found.map((pair) => Math.abs(pair.difference)));
    $("pairs-region").hidden = models.length < 3 || !found.length;
    $("pairs").replaceChildren(
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "model"), ...models.map((model) => el("th", { scope: "col" }, v.chip(model), model)))),
      el("tbody", {}, ...models.map((model) => el("tr", {}, el("th", { scope: "row" }, v.chip(model), model), ...models.map((other) => {
        const pair = found.find((item) => [item.model, item.other].includes(model) && [item.model, item.other].includes(other));
        if (!pair || model === other) return el("td");
        const difference = pair.model === model ? pair.difference : -pair.difference, certain = pair.p_value < 0.05;
        const { wins, losses } = v.wins(model, other);
        return el("td", { class: "cell", style: shade(difference, most) }, el("button", { type: "button",
          title: `${model} against ${other}: better on ${wins} sequences, worse on ${losses}; ${v.chance(pair)}`,
          onclick: () => v.showDuel(other, model) }, `${difference > 0 ? "+" : ""}${v.show(difference)}${certain ? "*" : ""}`, el("br"),
        el("small", {}, `${wins}:${losses}`)));
      })))));
  }

  if ($("failed")) new DataTable("#failed", PLAIN);
  $("board-filter").addEventListener("input", () => table.search($("board-filter").value).draw());
  v.onBoard(() => { kindBoxes(); leaderboard(); heat(); pairs(); state(); });
})();
