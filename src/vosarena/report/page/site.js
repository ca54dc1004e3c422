"use strict";
// The site: boards, models and bundles by the address after `#`; provenance is loaded when it is asked for.
window.site = (() => {
  const { $, el, options, node, PLAIN } = window.dom, data = window.siteData;
  const show = (value, digits = 1) => (value === undefined || value === null ? "" : Number(value).toFixed(digits));
  const plural = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const address = (...parts) => `#${parts.map(encodeURIComponent).join("/")}`;
  const unique = (values) => [...new Set(values)];
  const facts = (row) => (row.kind === "published" ? null : (data.models[row.model] || {}).facts) || {};
  const splitOf = (board) => `${board.dataset}/${board.split}`;
  // What a model gets of each object: what its definition says, or else what the split says.
  const promptsOf = (row) => ((row.kind !== "published" && (data.models[row.model] || {}).definition) || {}).prompts
    || (data.splits[splitOf(board)] || {}).prompts || "mask";
  const isAddress = (text) => /^https?:\/\//.test(text || "");
  const link = (text, title) => (isAddress(text) ? el("a", { href: text }, title || text) : text || "");
  const yes = (value) => (value === true ? "yes" : value === false ? "no" : "unknown");
  let board = data.boards[0], table = null;

  // How the cells of a column are drawn and sorted. Other columns show their value.
  const modelLink = (row) => (row.kind === "published" ? row.model : el("a", { href: address("model", row.model) }, row.model));
  const score = (row, at = board) => el("button", { type: "button", class: "score", title: "Where this number comes from",
    "aria-label": `J&F ${show(row.j_and_f)} of ${row.model}: where it comes from`, onclick: () => explain(row, at) }, show(row.j_and_f));
  const badges = (row) => el("span", {}, el("span", { class: `badge ${row.kind}` }, row.kind),
    ["complete", "published"].includes(row.status) ? null : el("span", { class: "badge warn" }, row.status));
  const DRAW = { model: modelLink, j_and_f: score, j: (row) => show(row.j), f: (row) => show(row.f), fps: (row) => show(row.fps),
    ci_low: (row) => (row.ci_low === undefined ? "" : `${show(row.ci_low)} to ${show(row.ci_high)}`),
    n_sequences: (row) => (row.n_sequences === undefined ? "" : `${row.n_sequences}/${row.n_expected}`),
    peak_memory_mb: (row) => show(row.peak_memory_mb, 0), kind: badges,
    source: (row) => link(row.source), license: (row) => facts(row).license || "" };
  const LICENCE = { key: "license", title: "licence", words: true, description: "Licence of the weights" };
  const COUNTS = ["rank", "n_objects", "parallel_jobs"];
  const plain = (key, row) => (typeof row[key] === "number" && !COUNTS.includes(key) ? show(row[key]) : row[key]);
  const value = (key, row) => (key === "license" ? facts(row).license : row[key]) ?? null;

  // A sorted table. Columns that are empty in every row are left out.
  function draw(place, rows, columns, order, cells = DRAW) {
    const unusual = (row) => row.kind !== "measured" || row.status !== "complete";
    const shown = columns.filter(({ key }) => rows.some((row) => value(key, row) !== null && (key !== "kind" || unusual(row))));
    const element = el("table", { id: place === "board-table" ? "board" : `${place}-rows` });
    $(place).replaceChildren(element);
    const at = Math.max(0, shown.findIndex(({ key }) => key === order[0]));
    const made = new DataTable(element, { ...PLAIN, data: rows, order: [[at, order[1]]],
      columns: shown.map(({ key, title, words }) => ({ title, data: null, type: "known", className: words ? key : "number",
        orderSequence: words ? ["asc", "desc"] : ["desc", "asc"],
        render: (_, purpose, row) => (purpose === "display" ? node(cells[key] ? cells[key](row) : plain(key, row))
          : purpose === "sort" ? value(key, row) : words ? value(key, row) ?? "" : "") })),
      language: { zeroRecords: "No row matches the filters.", emptyTable: "There is nothing here." } });
    shown.forEach(({ description }, i) => { if (description) made.column(i).header().title = description; });
    return made;
  }

  const FILTERS = { "zero-shot": (row) => row.seen === "zero-shot",
    "real-time": (row) => row.fps >= data.real_time || row.real_time >= data.real_time,
    open: (row) => facts(row).open_weights === true };
  function keep(row) {
    const wanted = $("license").value, prompts = $("prompts").value;
    return Object.entries(FILTERS).every(([id, passes]) => !$(id).checked || passes(row))
      && (row.kind !== "published" || $("published").checked) && (!wanted || facts(row).license === wanted) && (!prompts || promptsOf(row) === prompts);
  }
  function filter() {
    table.search.fixed("filters", (_, row) => keep(row)).search($("filter").value).draw();
    $("count").textContent = `${table.rows({ search: "applied" }).count()} of ${plural(board.rows.length, "row")}`;
  }

  function showBoard(dataset, split, protocol) {
    board = data.boards.find((item) => item.dataset === dataset && item.split === split && (!protocol || item.protocol === protocol)) || board;
    options($("split"), unique(data.boards.map(splitOf)));
    $("split").value = splitOf(board);
    options($("protocol"), data.boards.filter((item) => splitOf(item) === splitOf(board)).map((item) => item.protocol));
    $("protocol").value = board.protocol;
    const licences = unique(board.rows.map((row) => facts(row).license).filter(Boolean)).sort();
    options($("license"), ["", ...licences], ["any", ...licences]);
    const prompts = unique(board.rows.map(promptsOf)).sort();
    options($("prompts"), ["", ...prompts], ["any", ...prompts]);
    $("prompts-label").hidden = prompts.length < 2 && prompts[0] === "mask";
    const about = (data.splits[splitOf(board)] || {}).facts || {};
    $("board-note").replaceChildren(...[about.homepage && link(about.homepage, "Dataset"), about.license && `licence: ${about.license}`]
      .filter(Boolean).flatMap((item, i) => (i ? ["; ", item] : [item])));
    table = draw("board-table", board.rows, [...data.columns, LICENCE], ["j_and_f", "desc"]);
    filter();
  }

  const boardsOf = (model) => data.boards.flatMap((item) => item.rows.filter((row) => row.kind !== "published" && row.model === model)
    .map((row) => ({ ...row, board: `${splitOf(item)}, ${item.protocol}`, at: item })));
  function showModel(name) {
    const model = data.models[name], about = (model || {}).facts || {};
    $("model-title").textContent = model && model.title && model.title !== name ? `${name}: ${model.title}` : name;
    const entries = model ? [["description", about.description], ["paper", link(about.paper)], ["code", link(about.code)],
      ["licence", about.license], ["open weights", yes(about.open_weights)], ["parameters", about.parameters],
      ["training data", about.trained_on ? about.trained_on.join(", ") || "none" : "unknown"],
      ["definition", el("code", {}, JSON.stringify(model.definition))]] : [["", "There is no such model."]];
    $("model-facts").replaceChildren(...entries.filter(([, text]) => text).flatMap(([title, text]) => [el("dt", {}, title), el("dd", {}, text)]));
    const columns = [{ key: "board", title: "board", words: true }, ...data.columns.filter(({ key }) => !["model", "kind", "source"].includes(key))];
    draw("model-table", boardsOf(name), columns, ["board", "asc"], { ...DRAW, j_and_f: (row) => score(row, row.at),
      board: (row) => el("a", { href: address("board", row.at.dataset, row.at.split, row.at.protocol) }, row.board) });
    $("model-citation").replaceChildren(...((about.citation || []).length ? about.citation.map((entry) => el("pre", { tabindex: "0" }, entry)) : [el("p", {}, "No entry is known.")]));
  }
  function showModels() {
    const rows = Object.entries(data.models).map(([model, { title, facts: about = {} }]) => ({ ...about, model, title, runs: boardsOf(model).length, open: yes(about.open_weights) }));
    draw("models-table", rows, [{ key: "model", title: "model", words: true }, { key: "title", title: "title", words: true }, { key: "parameters", title: "parameters", words: true },
      LICENCE, { key: "open", title: "open weights", words: true }, { key: "runs", title: "scores" }], ["model", "asc"],
    { model: modelLink });
  }
  const file = (bundle) => (isAddress(data.address) ? el("a", { href: `${data.address}/${encodeURIComponent(bundle.file)}` }, bundle.file) : bundle.file);
  function showBundles() {
    const runs = data.bundles.map((_, number) => new Set(data.boards.flatMap((item) => item.rows.filter((row) => (row.from || []).includes(number)).map((row) => `${splitOf(item)}/${row.model}`))).size);
    draw("bundles-table", data.bundles.map((bundle, number) => ({ ...bundle, runs: runs[number] })), [{ key: "file", title: "bundle", words: true },
      { key: "runs", title: "models on splits" }, { key: "bytes", title: "kB" }, { key: "sha256", title: "SHA-256", words: true }], ["file", "asc"],
    { file, bytes: (row) => show(row.bytes / 1000, 0), sha256: (row) => el("code", {}, row.sha256) });
  }

  // Provenance of one number.
  const arrivals = new Map(), waiting = new Map();
  function arrived(number, content) { arrivals.set(number, content); (waiting.get(number) || []).forEach((done) => done()); }
  const loaded = (number) => (arrivals.has(number) ? Promise.resolve() : new Promise((done) => {
    if (waiting.has(number)) { waiting.get(number).push(done); return; }
    waiting.set(number, [done]);
    const failed = () => { waiting.delete(number); done(); };
    document.head.append(el("script", { src: `provenance/${number}.js`, onerror: failed }));
  }));
  const list = (entries) => el("dl", {}, ...entries.filter(([, text]) => text !== undefined && text !== "" && text !== null)
    .flatMap(([title, text]) => [el("dt", {}, title), el("dd", {}, text)]));
  const code = (values) => el("code", {}, (Array.isArray(values) ? values : [values]).map((item) => (typeof item === "string" ? item : item === null ? "none" : JSON.stringify(item))).join(", "));
  async function explain(row, at) {
    const name = `${splitOf(at)}/${row.model}`;
    $("provenance-title").textContent = `${row.model} on ${splitOf(at)}, ${at.protocol}`;
    const interval = row.ci_low === undefined ? "" : `, 95 % interval ${show(row.ci_low)} to ${show(row.ci_high)}`;
    const scores = list([["J&F", `${show(row.j_and_f, 2)}${interval}`], ["J, F", row.j === undefined ? "" : `${show(row.j, 2)}, ${show(row.f, 2)}`], ["note", row.note]]);
    $("provenance-content").replaceChildren(scores, el("p", { class: "quiet" }, "Loading ..."));
    $("provenance").showModal();
    if (row.kind === "published") {
      $("provenance-content").replaceChildren(scores, el("p", {}, "This number was published and not computed here. Source: ", link(row.source), "."));
      return;
    }
    await Promise.all(row.from.map(loaded));
    const parts = row.from.map((number) => {
      const run = (arrivals.get(number) || {})[name], bundle = data.bundles[number];
      if (!run) return el("p", {}, `provenance/${number}.js cannot be read.`);
      return el("section", { "aria-label": bundle.file }, el("h3", {}, "Bundle ", file(bundle)), list([
        ["SHA-256", code(bundle.sha256)], ["verify it", code(`vosarena merge --check ${bundle.file}`)],
        ["counts", el("span", {}, "SHA-256 ", code(run.counts), `, ${plural(run.sequences, "sequence")}`)],
        ["model", code(data.models[row.model].definition)], ["weights (SHA-256)", code(run.weights)], ["precision", code(run.precision)],
        ["packages", code(run.packages)], ["vosarena", code(run.vosarena)], ["Python", run.python.join(", ")], ["device", row.device],
        ["less memory", run.saving_memory.some((item) => Object.keys(item).length) ? code(run.saving_memory) : ""],
        ["masks (BLAKE2b)", el("span", {}, code(run.masks), run.has_masks ? ", in the bundle" : "")],
        ["prompts", promptsOf(row)], ["frames and prompts", code(run.frames)],
        ["late masks", row.real_time ? `${plural(run.late, "frame")} at ${row.real_time} frames per second` : ""], ["ground truth", code(run.ground_truth)],
        ["training data", `${row.seen || "unknown"}${row.seen_data ? `: ${row.seen_data}` : ""}`]]));
    });
    $("provenance-content").replaceChildren(scores, ...(parts.length > 1 ? [el("p", {}, `${parts.length} bundles have the same counts.`)] : []), ...parts);
  }

  const VIEWS = { boards: showBoard, board: showBoard, models: showModels, model: showModel, bundles: showBundles };
  function route() {
    const [found, ...parts] = location.hash.slice(1).split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
    const view = VIEWS[found] ? found : "boards", section = view === "board" ? "boards" : view;
    for (const id of ["boards", "models", "model", "bundles"]) $(`${id}-view`).hidden = id !== section;
    document.querySelectorAll("nav a").forEach((item) => item.setAttribute("aria-current", item.hash === `#${section}` ? "page" : "false"));
    $("provenance").close();
    if (data.boards.length || section !== "boards") VIEWS[view](...parts);
  }
  const go = (item) => { location.hash = address("board", item.dataset, item.split, item.protocol); };
  $("split").addEventListener("change", () => go(data.boards.find((item) => splitOf(item) === $("split").value)));
  $("protocol").addEventListener("change", () => go({ ...board, protocol: $("protocol").value }));
  for (const id of [...Object.keys(FILTERS), "published", "license", "prompts"]) $(id).addEventListener("change", filter);
  $("filter").addEventListener("input", filter);
  $("close").addEventListener("click", () => $("provenance").close());
  $("real-time-label").title = `At least ${data.real_time} frames per second on the device of the row, or scored with the rule that late masks do not count`;
  $("summary").textContent = `${plural(Object.keys(data.models).length, "model")} on ${plural(Object.keys(data.splits).length, "split")} from ${plural(data.bundles.length, "bundle")}.`;
  window.addEventListener("hashchange", route);
  setTimeout(route); // after `window.site` is there
  return { arrived, data, loaded: () => arrivals.size };
})();
