"use strict";
// Shared by all parts of the page: data, elements, colours, the chosen board (a split under one protocol).
window.vosarena = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  for (const speed of window.vosarenaSpeed || [])
    for (const item of data.boards) if (item.dataset === speed.dataset && item.split === speed.split)
      for (const row of item.rows) if (row.kind !== "published" && row.model === speed.model)
        Object.assign(row, { ...speed, text: { ...row.text, ...speed.text } });
  const names = Object.keys(data.models);
  const palette = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]; // Okabe-Ito without yellow and black
  const dashes = ["", "6 3", "2 3"];
  const listeners = [];
  let chosen = 0;

  const { $, el, options } = window.dom;
  const number = (model) => Math.max(0, names.indexOf(model));
  const colour = (model) => palette[number(model) % palette.length];
  const dash = (model) => dashes[Math.floor(number(model) / palette.length) % dashes.length];
  const hatched = (model) => `repeating-linear-gradient(45deg, ${colour(model)} 0 3px, transparent 3px 5px)`;
  const chip = (model) => el("span", { class: "chip", style: `background:${dash(model) ? hatched(model) : colour(model)}` });
  const board = () => data.boards[chosen];
  const split = () => `${board().dataset}/${board().split}`;
  const address = (sequence) => `#${encodeURIComponent(`${split()}/${sequence}`)}`;
  const sequences = () => (data.splits[split()] ? data.splits[split()].sequences : []);
  const scored = () => (data.splits[split()] || { scored: true }).scored; // whether the split has ground truth
  const state = () => (data.splits[split()] || {}).state || [];
  const models = () => (scored() ? board().rows.filter((row) => row.kind === "measured") : state()).map((row) => row.model);
  const leader = () => (board().rows.find((row) => row.rank === 1 && row.kind === "measured") || { model: models()[0] }).model;
  const score = (sequence, model) => (board().scores[sequence] || {})[model];
  const show = (value, digits = 1) => (value === undefined ? "" : Number(value).toFixed(digits).replace(/^-(?=[0.]+$)/, "")); // not -0.0
  const hint = (text) => el("span", { class: "screen" }, text); // about what only a screen can do
  const range = (row) => (row.ci_low === undefined ? "" : `${show(row.ci_low)} to ${show(row.ci_high)}`);
  const folder = (path) => ["media", ...path.split("/")].map(encodeURIComponent).join("/"); // of a split or a sequence

  function onBoard(listener) { listeners.push(listener); }
  function start() {
    $("board-choice").replaceChildren(
      ...data.boards.map((item, i) => el("option", { value: i }, `${item.dataset}/${item.split}, ${item.protocol}`)));
    $("board-label").hidden = data.boards.length < 2;
    $("board-choice").addEventListener("change", () => { chosen = Number($("board-choice").value); draw(); });
    const best = data.boards.findIndex((item) => item.rows.some((row) => row.kind === "measured"));
    chosen = Math.max(0, best);
    $("board-choice").value = chosen;
    draw();
  }
  function draw() {
    $("headline").replaceChildren(...board().headline.map(([text, strong]) => (strong ? el("b", {}, text in data.models ? chip(text) : null, text) : text)));
    const empty = !sequences().length;
    for (const id of ["fails", "sequences"]) $(id).hidden = empty;
    for (const id of ["hard", "duel", "speed"]) $(id).hidden = empty || !scored();
    if ($("explain")) $("explain").hidden = !board().rows.length; // it is about scores
    $("leaderboard-title").textContent = scored() || board().rows.length ? "Leaderboard" : "Predictions";
    for (const link of document.querySelectorAll("nav a")) link.hidden = document.querySelector(link.hash).hidden;
    for (const id of ["board-help", "board-controls", "board-table"]) $(id).hidden = !board().rows.length;
    listeners.forEach((listener) => listener());
    for (const id of ["leaderboard", "fails"]) document.querySelector(`nav a[href="#${id}"]`).textContent = $(`${id}-title`).textContent;
  }
  return { data, $, el, colour, dash, chip, board, split, scored, state, address, sequences, models, leader, score, show, hint, range, folder, options, onBoard, start };
})();
