// From the model's outputs to what they say, by the manifest's `postprocess`.
import { retinanet, ssdlite } from "./boxes.js";
import { interpolate, neighbours } from "./interpolate.js";

const LONGEST = 1024; // pixels of a segment map's longer side

export function softmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(logits, (value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((value) => value / sum);
}

// Logits (1, K, h, w) -> the class of every pixel of the picture: enlarged to the input, padding cut off, then to size.
function segments(logits, post, input, size) {
  const [, classes, h, w] = logits.dims;
  const { frame } = input;
  const toInput = [neighbours(h, input.dims[2], post.align_corners), neighbours(w, input.dims[3], post.align_corners)];
  const [rows, columns] = [toInput[0].slice(0, frame.height), toInput[1].slice(0, frame.width)];
  const [outRows, outColumns] = [neighbours(frame.height, size.height), neighbours(frame.width, size.width)];
  const middle = new Float32Array(frame.height * frame.width);
  const values = new Float32Array(size.height * size.width);
  const best = new Float32Array(values.length).fill(-Infinity);
  const map = new Uint16Array(values.length);
  for (let k = 0; k < classes; k++) {
    interpolate(logits.data.subarray(k * h * w, (k + 1) * h * w), w, rows, columns, middle);
    interpolate(middle, frame.width, outRows, outColumns, values);
    for (let i = 0; i < values.length; i++) {
      if (values[i] > best[i]) {
        best[i] = values[i];
        map[i] = k;
      }
    }
  }
  return map;
}

// Classes (1, H, W) of the input's pixels -> of the picture's, the nearest.
function enlarged(classes, { frame }, size) {
  const width = classes.dims[2];
  const map = new Uint16Array(size.height * size.width);
  for (let y = 0; y < size.height; y++) {
    const row = Math.floor(((y + 0.5) * frame.height) / size.height) * width;
    for (let x = 0; x < size.width; x++) {
      map[y * size.width + x] = Number(classes.data[row + Math.floor(((x + 0.5) * frame.width) / size.width)]);
    }
  }
  return map;
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

// {kind: "classes", probabilities} or {kind: "map", map, height, width} or {kind: "objects", objects}, whose boxes are
// in the picture's pixels and whose labels start at 1.
export function answer(outputs, manifest, input, picture) {
  const post = manifest.postprocess;
  if (post.kind === "softmax") {
    const probabilities = post.inside ? Array.from(outputs.probabilities.data) : softmax(outputs.logits.data);
    return { kind: "classes", probabilities };
  }
  if (post.kind === "argmax") {
    const scale = Math.min(1, LONGEST / Math.max(picture.height, picture.width));
    const size = { height: Math.max(1, Math.round(picture.height * scale)), width: Math.max(1, Math.round(picture.width * scale)) };
    const map = post.inside ? enlarged(outputs.classes, input, size) : segments(outputs.logits, post, input, size);
    return { kind: "map", map, ...size };
  }
  const { frame } = input;
  const found = post.inside ? listed(outputs) : (post.kind === "ssdlite" ? ssdlite : retinanet)(outputs, post, input);
  const objects = found.map((object) => {
    const [x1, y1, x2, y2] = object.box;
    const box = [x1 * frame.scaleX + frame.left, y1 * frame.scaleY + frame.top, x2 * frame.scaleX + frame.left, y2 * frame.scaleY + frame.top];
    return { ...object, box };
  });
  return { kind: "objects", objects };
}
