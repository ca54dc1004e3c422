"use strict";
// Clips: the one on the first screen, those in the viewer, and the view as a picture.
(() => {
  const v = window.vosarena, { $, el } = v, FILE = "clip.mp4";
  const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");
  const part = ({ clip, frames }) => (clip[1] - clip[0] + 1 < frames ? `, frames ${clip[0]} to ${clip[1]} of ${frames}` : "");
  const rate = (sequence) => `${Number(sequence.rate.toFixed(2))} frames per second`;

  function first() {
    const shown = (v.data.splits[v.split()] || {}).first, sequence = shown && v.sequences().find(({ name }) => name === shown.sequence);
    $("first").hidden = !sequence;
    if (!sequence) return $("first-clip").removeAttribute("src");
    const [model] = shown.models, score = v.score(sequence.name, model);
    const scores = v.sequences().map(({ name }) => v.score(name, model)).filter((value) => value !== undefined);
    const says = v.scored() ? [el("b", {}, v.chip(model), model), ` on ${sequence.name}`, score === undefined ? ""
      : `: J&F ${v.show(score)}${scores.length > 1 && score === Math.min(...scores) ? ", its lowest" : ""}`]
      : [el("b", {}, sequence.name), sequence.disagreement === null ? "" : `: masks differ by ${v.show(sequence.disagreement)} %`];
    $("first-text").replaceChildren(...says, `${part(sequence)}. `, el("a", { href: v.address(sequence.name) }, "Compare all models"));
    const source = `${v.folder(v.split())}/${FILE}`;
    if ($("first-clip").getAttribute("src") === source) return undefined;
    $("first-clip").src = source;
    $("first-clip").setAttribute("aria-label", `Clip of ${sequence.name} with the masks of ${shown.models.join(" and ")}`);
    return STILL.matches ? undefined : $("first-clip").play().catch(() => {}); // some browsers do not start by themselves
  }

  // The viewer shows a clip in place of the panels.
  v.showClip = (sequence, chosen) => {
    const player = $("clip"), source = `${v.folder(`${v.split()}/${sequence.name}`)}/${FILE}`;
    player.hidden = !chosen;
    for (const id of ["panels", "frames-bar", "zoom-label", "models", "save-picture"]) $(id).hidden = chosen;
    if (!chosen) return player.pause();
    if (player.getAttribute("src") !== source) player.src = source;
    player.setAttribute("aria-label", `Clip of ${sequence.name} with the masks of all models`);
    return STILL.matches ? undefined : player.play().catch(() => {});
  };
  const word = (text) => (/^[\w./+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`); // for a shell
  const command = (sequence, models, ...more) => ["vosarena", "video", "--study", v.data.study, "--sequence", `${v.split()}/${sequence.name}`,
    "--models", ...models, ...more].flatMap((text, i) => [i ? " " : "", el("span", {}, word(String(text)))]);
  v.offerClip = (sequence, models) => {
    $("view").querySelector("[value=clip]").hidden = $("save-clip").hidden = !sequence.clip;
    $("save-clip").href = sequence.clip ? `${v.folder(`${v.split()}/${sequence.name}`)}/${FILE}` : "";
    $("save-clip").download = `${v.split()}/${sequence.name}.mp4`.replaceAll("/", "_");
    $("clip-facts").textContent = sequence.clip ? `The clip has ${rate(sequence)}${part(sequence)}. ` : "";
    $("clip-command").replaceChildren(...command(sequence, models));
  };

  const load = (source) => new Promise((done, fail) => {
    const image = new Image();
    Object.assign(image, { onload: () => done(image), onerror: fail, src: source });
  });
  const BAR = 26, GAP = 8;
  async function picture(sequence, index) {
    const figures = [...$("panels").children].filter((figure) => !figure.hidden), [width, height, tiles] = sequence.tile;
    const columns = Math.min(figures.length, Number($("panels").style.getPropertyValue("--columns")) || 1), style = getComputedStyle(document.body);
    const canvas = el("canvas", { width: columns * (width + GAP) - GAP, height: Math.ceil(figures.length / columns) * (height + BAR) });
    const pen = canvas.getContext("2d"), across = Math.min(8, tiles), from = [(index % across) * width, Math.floor(index / across) * height];
    pen.fillStyle = style.backgroundColor;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    for (const [number, figure] of figures.entries()) {
      const x = (number % columns) * (width + GAP), y = Math.floor(number / columns) * (height + BAR);
      const sources = [...figure.querySelector(".tile").style.backgroundImage.matchAll(/url\("(.*?)"\)/g)].map(([, source]) => source);
      const images = await Promise.all(sources.reverse().map(load)); // the frame first
      images.forEach((image, layer) => {
        if (layer === 1) { // as the background of a tile: a part of the colour is lost under masks
          pen.globalCompositeOperation = "saturation";
          pen.fillStyle = "rgb(128 128 128 / 50%)";
          pen.fillRect(x, y + BAR, width, height);
          pen.globalCompositeOperation = "source-over";
        }
        pen.drawImage(image, ...from, width, height, x, y + BAR, width, height);
      });
      pen.font = "15px system-ui, sans-serif";
      pen.fillStyle = style.color;
      pen.textAlign = "left";
      pen.fillText(figure.dataset.layer, x, y + BAR - 8, width * 0.6);
      pen.textAlign = "right";
      pen.fillText(figure.querySelector(".now").textContent, x + width, y + BAR - 8, width * 0.38);
    }
    return new Promise((done) => { canvas.toBlob(done, "image/png"); });
  }
  const SHOW = { error: ["--show", "errors"], outline: ["--show", "outlines"] };
  v.savePicture = async (sequence, index, models, frame) => {
    if (location.protocol === "file:") { // browsers do not let a page read pictures of a local folder
      $("picture-command").replaceChildren(...command(sequence, models, ...(SHOW[$("view").value] || []), "--png", frame));
      $("picture-help").hidden = false;
      return;
    }
    const address = URL.createObjectURL(await picture(sequence, index));
    el("a", { href: address, download: `${v.split()}/${sequence.name}_${$("frame").textContent}.png`.replace(/[/ ]+/g, "_") }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };
  $("print").addEventListener("click", () => window.print());
  v.onBoard(first);
})();
