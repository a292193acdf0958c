// From the model's outputs to what they say, by the manifest's `postprocess`.
import { clip, retinanet, ssdlite } from "./boxes.js";
import { enlarged, reduced, segments } from "./maps.js";

export function softmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(logits, (value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}

// The outputs of these names, if they have as many axes as they should, or the lengths: null stands for any.
function taken(outputs, axes) {
  for (const [name, wanted] of Object.entries(axes)) {
    const found = outputs[name]?.dims;
    const lengths = Number.isInteger(wanted) ? Array(wanted).fill(null) : wanted;
    if (found?.length === lengths.length && lengths.every((length, i) => length === null || length === found[i])) continue;
    throw new Error(`the outputs are not those that model.json describes: ${found ? `${name} has the shape ${found.join(" × ")}` : `${name} is missing`}.`);
  }
  return outputs;
}

// Raw outputs tell how many classes there are, lists and maps only which occur.
function checkClasses({ labels }, count, { all }) {
  if (labels && (all ? count !== labels.length : count > labels.length)) throw new Error(`the outputs are not those that model.json describes: ${count} classes, and ${labels.length} labels.`);
}

function listed({ boxes, scores, labels, masks }) {
  const area = masks ? masks.dims[2] * masks.dims[3] : 0;
  return Array.from(scores.data, (score, i) => ({
    box: Array.from(boxes.data.subarray(4 * i, 4 * i + 4)),
    score,
    label: Number(labels.data[i]),
    mask: masks && { data: masks.data.slice(i * area, (i + 1) * area), height: masks.dims[2], width: masks.dims[3] },
  }));
}

function classes(outputs, manifest) {
  const name = manifest.postprocess.inside ? "probabilities" : "logits";
  const { dims, data } = taken(outputs, { [name]: [1, null] })[name];
  checkClasses(manifest, dims[1], { all: true });
  return { kind: "classes", probabilities: name === "logits" ? softmax(data) : Array.from(data) };
}

function map(outputs, manifest, input, picture) {
  const { inside, ...post } = manifest.postprocess;
  const size = reduced(picture);
  if (inside) {
    const found = enlarged(taken(outputs, { classes: [1, ...input.dims.slice(2)] }).classes, input, size);
    checkClasses(manifest, 1 + found.reduce((a, b) => Math.max(a, b)), { all: false });
    return { kind: "map", map: found, ...size };
  }
  const { logits } = taken(outputs, { logits: [1, null, null, null] });
  checkClasses(manifest, logits.dims[1], { all: true });
  return { kind: "map", map: segments(logits, post, input, size), ...size };
}

// `decode`: of raw outputs, without which the graph always decodes; `background`: how many of their classes are none;
// `more`: outputs beside those that all have.
const objects = ({ decode, background = 0, more = {} }) => (outputs, manifest, input, picture) => {
  const { frame } = input;
  const post = manifest.postprocess;
  let found;
  if (post.inside || !decode) {
    found = listed(taken(outputs, { boxes: 2, scores: 1, labels: 1, ...more }));
    checkClasses(manifest, found.reduce((most, { label }) => Math.max(most, label), 0), { all: false });
  } else {
    const { scores } = taken(outputs, { scores: 3, boxes: 3 });
    checkClasses(manifest, scores.dims[2] - background, { all: true });
    found = decode(outputs, post, input);
  }
  return {
    kind: "objects",
    objects: found.map((object) => {
      const [x1, y1, x2, y2] = object.box;
      const box = [x1 * frame.scaleX + frame.left, y1 * frame.scaleY + frame.top, x2 * frame.scaleX + frame.left, y2 * frame.scaleY + frame.top];
      return { ...object, box: clip(box, picture) };
    }),
  };
};

// The larger picture as a canvas takes it, clamped and rounded as in evaluation.
function larger(outputs, { postprocess: { scale } }) {
  const { dims: [, , height, width], data } = taken(outputs, { enlarged: 4 }).enlarged;
  const pixels = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let i = 0, plane = height * width; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) pixels[4 * i + channel] = 255 * data[channel * plane + i];
  }
  return { kind: "enlarged", scale, pixels, height, width };
}

// One entry for each `postprocess.kind` that a manifest may have: how outputs are read, and the first class's label.
const KINDS = {
  softmax: { read: classes, first: 0 },
  argmax: { read: map, first: 0 },
  ssdlite: { read: objects({ decode: ssdlite, background: 1 }), first: 1 },
  retinanet: { read: objects({ decode: retinanet }), first: 1 },
  enlarged: { read: larger, first: 0 },
  rcnn: { read: objects({ more: { masks: 4 } }), first: 1 },
};

export const className = ({ labels, postprocess }, label) => labels?.[label - KINDS[postprocess.kind].first] ?? `class ${label}`;

// {kind: "classes", probabilities} or {kind: "map", map, height, width} or {kind: "enlarged", pixels (RGBA), scale, height, width} or {kind: "objects", objects}, whose boxes are
// in the picture's pixels and whose labels start at 1.
export function answer(outputs, manifest, input, picture) {
  for (const { data } of Object.values(outputs)) {
    if (data instanceof Float32Array && !data.every(Number.isFinite)) throw new Error("the model computes no finite numbers for this picture.");
  }
  return KINDS[manifest.postprocess.kind].read(outputs, manifest, input, picture);
}
