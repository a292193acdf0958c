// The page: pictures come in, the worker answers, the answer is shown.
import { answerRows } from "./answers.js";
import { camera } from "./camera.js";
import { className } from "./decode.js";
import { drawLarger, drawPicture, drawSpectrum } from "./draw.js";
import { facts } from "./facts.js";
import { histogram, milliseconds, summary } from "./latency.js";

const RUNS = 50;
const MAX_BYTES = 100e6;
const MAX_PIXELS = 100e6;
const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL("engine.js", import.meta.url), { type: "module" });
const state = { manifest: null, name: "camera", bitmap: null, answer: null, masks: [], id: 0, waiting: null, measuring: false, dead: false };

function status(text, share) {
  $("status-text").textContent = text;
  $("progress").hidden = share === undefined;
  if (share !== undefined) $("progress").value = share;
}

function problem(text = "") {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function ask(type, rest = {}) {
  if (state.dead) return;
  worker.postMessage({ type, ...rest });
}

const options = () => ({ name: (label) => className(state.manifest, label), tune: Number($("tune").value) });

function draw() {
  if (!state.bitmap) return;
  $("invitation").hidden = true;
  drawPicture($("canvas"), state.bitmap, state.answer, options());
}

// The answer where it is a picture.
function showLarger() {
  const { answer, bitmap } = state;
  $("larger").hidden = !answer.pixels;
  if (!answer.pixels) return;
  const { tune } = options();
  drawLarger($("larger-canvas"), bitmap, answer, tune);
  $("larger-text").textContent = `Each pixel as it is. Left of the divider as browsers enlarge smoothly, ${Math.round(100 * tune)} % of the width; right of it as the network does.`;
}

// Saves the whole of the network's picture.
async function download() {
  const { pixels, width, height } = state.answer;
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await canvas.convertToBlob());
  link.download = `${state.name.replace(/\.\w+$/, "")}-x${state.answer.scale}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60e3);
}

function showAnswer() {
  const { rows, text } = answerRows(state.answer, options());
  $("answers").replaceChildren(...rows);
  status(text);
  $("answers").tabIndex = $("answers").scrollHeight > $("answers").clientHeight ? 0 : -1; // scrolls by keyboard
  $("canvas").setAttribute("aria-label", `The picture. ${text}`);
  $("tune-value").textContent = `${Math.round(100 * $("tune").value)} %`;
  draw();
  showLarger();
}

function showMask() {
  const mask = state.masks[$("layer").selectedIndex];
  if (!mask) return;
  const { low, high } = drawSpectrum($("mask"), mask);
  $("mask-low").textContent = low.toPrecision(2);
  $("mask-high").textContent = high.toPrecision(2);
  const [what, where] = mask.kind === "fourier" ? ["Magnitude of the learnt Fourier filter", "in the middle"] : ["The learnt gates of the cosine spectrum", "in the upper left corner"];
  $("mask-text").textContent = `${what} for this very picture, mean over the channels: ${mask.height} × ${$("mask").width} frequencies, the lowest ${where}. Bright passes, dark is held back; colours by the square root.`;
}

// Takes over a bitmap; resolves when the worker has answered, to whether it could.
function look(bitmap) {
  const former = state.bitmap;
  Object.assign(state, { bitmap, answer: null });
  former?.close();
  draw();
  $("measure").disabled = true;
  return new Promise((resolve) => {
    state.waiting?.(false);
    state.waiting = resolve;
    ask("look", { id: ++state.id, bitmap });
  });
}

async function choose(file) {
  live.stop();
  problem();
  if (!file) return;
  if (!state.manifest) return problem("The model is not ready yet.");
  const name = file.name || "The picture";
  if (file.size > MAX_BYTES) return problem(`${name} is too large: ${Math.round(file.size / 1e6)} MB; at most ${MAX_BYTES / 1e6} MB are read.`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    return problem(`${name} is not a picture that this browser can read, or it is damaged or too large.`);
  }
  const megapixels = (bitmap.width * bitmap.height) / 1e6;
  if (megapixels * 1e6 > MAX_PIXELS) {
    bitmap.close();
    return problem(`${name} is too large: ${Math.round(megapixels)} megapixels; at most ${MAX_PIXELS / 1e6} are read.`);
  }
  state.name = name;
  status("Computing …");
  look(bitmap);
}

const live = camera({
  video: $("video"),
  button: $("camera"),
  frame: look,
  problem,
  ready: () => state.manifest && !state.measuring,
  running: (on) => $("status").setAttribute("aria-live", on ? "off" : "polite"),
});

const tuning = {
  objects: ["Least score", 0.3],
  map: ["Opacity of the map", 0.55],
  enlarged: ["Divider", 0.5],
};

const handlers = {
  progress: ({ text, share }) => status(text, share),
  ready({ manifest, provider }) {
    state.manifest = manifest;
    document.title = `${manifest.model} · tokenmix`;
    $("name").textContent = manifest.model;
    $("facts").replaceChildren(...facts(manifest, provider));
    $("samples").replaceChildren(...(manifest.samples ?? []).map(sample));
    status("Ready. Choose, drop or paste a picture.");
    document.body.dataset.ready = provider;
  },
  answer({ id, answer, masks, prepareMs, runMs }) {
    if (id !== state.id) return;
    Object.assign(state, { answer, masks });
    const tune = tuning[answer.kind];
    if (tune && $("tuning").hidden) {
      $("tuning").hidden = false;
      [$("tune-label").textContent, $("tune").value] = tune;
    }
    showAnswer();
    $("timing").textContent = `Prepared in ${milliseconds(prepareMs)}, computed in ${milliseconds(runMs)}.`;
    $("measure").disabled = false;
    if (masks.length && $("masks").hidden) {
      $("masks").hidden = false;
      $("layer").replaceChildren(...masks.map(({ layer }) => new Option(layer)));
    }
    showMask();
    document.body.dataset.answered = id;
    state.waiting?.(true);
  },
  measuring({ times, runs }) {
    $("latency-text").textContent = `${times.length} of ${runs} runs …`;
  },
  measured({ times }) {
    state.measuring = false;
    $("measure").textContent = `Measure ${RUNS} runs`;
    if (!times.length) {
      $("latency-text").textContent = "Stopped before the first run.";
      return;
    }
    const { n, least, median, p90 } = summary(times);
    $("latency-text").textContent = `Median ${milliseconds(median)}, p90 ${milliseconds(p90)}, fastest ${milliseconds(least)}, n = ${n} (${document.body.dataset.ready}).`;
    $("histogram").replaceChildren(histogram(times));
  },
  failed({ job, id, text }) {
    if (job === "load") {
      state.dead = true;
      status("The model is not running.");
      document.body.dataset.failed = "true";
      return problem(text);
    }
    if (job === "look" && id !== state.id) return; // a newer picture is waited for
    live.stop();
    if (job === "measure") handlers.measured({ times: [] });
    status("No answer.");
    problem(`The model could not answer: ${text}`);
    if (job === "look") state.waiting?.(false);
  },
};

function sample(name) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const picture = new Image();
  const title = name.replace(/^sample-|\.\w+$/g, "");
  picture.src = name;
  picture.alt = `Sample: ${title}`;
  button.type = "button";
  button.append(picture);
  button.addEventListener("click", async () => {
    try {
      const content = await (await fetch(name)).blob();
      await choose(new File([content], name, { type: content.type }));
    } catch {
      problem(`The sample ${title} cannot be loaded.`);
    }
  });
  item.append(button);
  return item;
}

worker.addEventListener("message", ({ data }) => handlers[data.type](data));
worker.addEventListener("error", (event) => {
  event.preventDefault();
  handlers.failed({ job: "load", text: `The program of this page could not be started: ${event.message || "a file is missing, or this browser is too old"}.` });
});

$("file").addEventListener("change", () => {
  choose($("file").files[0]);
  $("file").value = ""; // so that the same file can be chosen again
});
$("tune").addEventListener("input", showAnswer);
$("download").addEventListener("click", download);
$("layer").addEventListener("change", showMask);
$("measure").addEventListener("click", () => {
  if (state.measuring) return ask("stop");
  live.stop();
  state.measuring = true;
  $("measure").textContent = "Stop";
  ask("measure", { runs: RUNS });
});
addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files][0];
  if (file) choose(file);
  else problem("There is no picture on the clipboard.");
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind !== "drop") return;
    const [file] = event.dataTransfer.files;
    if (file) choose(file);
    else problem("What was dropped is no file.");
  });
}
new ResizeObserver(draw).observe($("canvas"));

status("Loading …");
ask("load");
