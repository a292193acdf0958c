// The worker: it holds the model, so that the page stays awake while the model computes.
import { answer } from "./decode.js";
import { enlarge } from "./enlarging.js";
import { prepare } from "./prepare.js";

const WARM_UP = 3; // runs before those that are measured
let ort, manifest, session, provider, last;
let stopped = false;

const say = (type, rest = {}) => self.postMessage({ type, ...rest });

// The bytes at an address beside the page, with progress from 0 to 1.
async function fetched(name, progress) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`the server answered ${response.status} for ${name}`);
  const total = Number(response.headers.get("content-length")) || Infinity; // of the packed bytes, if they are packed
  const parts = [];
  let got = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    got += value.length;
    progress?.(Math.min(1, got / total));
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function onGpu() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

// Any input of the right shape: the first run compiles and allocates, and shows whether the provider can run the model.
function blank() {
  const size = manifest.preprocess.image_size;
  const multiple = manifest.postprocess.multiple ?? 1;
  const up = (side) => Math.ceil(side / multiple) * multiple;
  const dims = [1, 3, ...[2, 3].map((axis) => (Number.isInteger(manifest.input.shape[axis]) ? manifest.input.shape[axis] : up(size[axis - 2])))];
  const kind = manifest.input.dtype === "uint8" ? Uint8Array : Float32Array;
  return { data: new kind(dims.reduce((a, b) => a * b)), dims };
}

async function open(model, executionProvider) {
  session = await ort.InferenceSession.create(model, { executionProviders: [executionProvider] });
  const missing = manifest.outputs.map((output) => output.name).filter((name) => !session.outputNames.includes(name));
  if (missing.length || !session.inputNames.includes(manifest.input.name)) {
    throw new Error("model.json describes another model than model.onnx");
  }
  await run(blank());
}

async function load() {
  say("progress", { text: "Reading the model’s description …" });
  try {
    manifest = JSON.parse(new TextDecoder().decode(await fetched("model.json")));
  } catch (error) {
    throw new Error(`The model’s description (model.json) cannot be read: ${error.message}.`);
  }
  let model;
  try {
    model = await fetched("model.onnx", (share) => say("progress", { text: "Loading the model …", share }));
  } catch (error) {
    throw new Error(`The model (model.onnx) cannot be loaded: ${error.message}.`);
  }
  say("progress", { text: "Starting ONNX Runtime …" });
  try {
    ort = await import("./ort.webgpu.min.mjs");
    ort.env.logLevel = "error";
    ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;
    // Threads beyond the real cores only get in each other's way; without isolation there is one.
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.max(1, Math.min(4, navigator.hardwareConcurrency >> 1)) : 1;
    if (await onGpu()) {
      try {
        await open(model, "webgpu");
        provider = "WebGPU";
      } catch {
        session = null;
      }
    }
    if (!provider) {
      await open(model, "wasm");
      const threads = ort.env.wasm.numThreads;
      provider = `WebAssembly SIMD, ${threads} thread${threads > 1 ? "s" : ""}`;
    }
  } catch (error) {
    if (/no available backend|webassembly|\.wasm|\.mjs|import/i.test(error.message)) {
      throw new Error(`WebAssembly did not start in this browser: ${error.message}`);
    }
    throw new Error(`The model cannot be run; the file may be damaged or incomplete. (${error.message})`);
  }
  say("ready", { manifest, provider });
}

async function run({ data, dims }) {
  const { name, dtype } = manifest.input;
  const outputs = await session.run({ [name]: new ort.Tensor(dtype, data, dims) });
  for (const tensor of Object.values(outputs)) await tensor.getData(); // may still be on the GPU
  return outputs;
}

// How an input becomes outputs, where that is more than one run.
const COMPUTED = { enlarged: enlarge };
const compute = (input) => COMPUTED[manifest.postprocess.kind]?.(run, input, manifest) ?? run(input);

// The pixels over white, in strips: no browser's largest canvas is passed.
function pixels(bitmap) {
  const { width, height } = bitmap;
  const strip = Math.max(1, Math.min(height, Math.floor(4e6 / width)));
  const canvas = new OffscreenCanvas(width, strip);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const data = new Uint8ClampedArray(width * height * 4);
  for (let top = 0; top < height; top += strip) {
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, strip);
    context.drawImage(bitmap, 0, -top);
    const rows = Math.min(strip, height - top);
    data.set(context.getImageData(0, 0, width, rows).data, top * width * 4);
  }
  return { data, width, height };
}

async function look(bitmap) {
  const start = performance.now();
  const picture = pixels(bitmap);
  bitmap.close();
  last = prepare(picture, manifest);
  const ready = performance.now();
  const outputs = await compute(last);
  const done = performance.now();
  const masks = (manifest.masks ?? []).map(({ name, layer, kind }) => {
    const { data, dims } = outputs[name];
    return { layer, kind, values: Float32Array.from(data), height: dims[1], width: dims[2], aspect: last.dims[3] / last.dims[2] };
  });
  const found = answer(outputs, manifest, last, picture);
  return { answer: found, masks, prepareMs: ready - start, runMs: done - ready };
}

async function measure(runs) {
  stopped = false;
  const times = [];
  for (let i = -WARM_UP; i < runs && !stopped; i++) {
    const start = performance.now();
    await compute(last);
    if (i >= 0) times.push(performance.now() - start);
    say("measuring", { times: [...times], runs });
    await new Promise((resume) => { setTimeout(resume); }); // lets "stop" in
  }
  say("measured", { times });
}

const jobs = {
  load,
  look: async ({ id, bitmap }) => say("answer", { id, ...(await look(bitmap)) }),
  measure: ({ runs }) => measure(runs),
};
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  if (data.type === "stop") {
    stopped = true;
    return;
  }
  queue = queue.then(() => jobs[data.type](data)).catch((error) => say("failed", { job: data.type, id: data.id, text: error.message || String(error) }));
};
