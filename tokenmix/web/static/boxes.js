// One-stage detectors: from raw scores and offsets of all anchors to boxes in the input's pixels, best first.

// Calls `each(index, cell x, cell y, anchor, cells across, cells down, level)` in the order of the outputs. The graph
// pads its input to the manifest's multiple.
function forAnchors({ levels, multiple }, sides, each) {
  let index = 0;
  const padded = sides.map((side) => Math.ceil(side / multiple) * multiple);
  levels.forEach(({ stride, anchors }, level) => {
    const [down, across] = padded.map((side) => (stride === null ? 1 : Math.ceil(side / stride)));
    for (let y = 0; y < down; y++) {
      for (let x = 0; x < across; x++) {
        for (const anchor of anchors) each(index++, x, y, anchor, across, down, level);
      }
    }
  });
  return index;
}

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const both = width * height;
  return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

const byScore = (a, b) => b.score - a.score;

// Of overlapping boxes of one label the best remains.
function suppress(objects, post) {
  const kept = [];
  const ofLabel = new Map();
  for (const object of objects.sort(byScore)) {
    const rivals = ofLabel.get(object.label) ?? [];
    if (rivals.some((rival) => overlap(rival.box, object.box) > post.nms_threshold)) continue;
    rivals.push(object);
    ofLabel.set(object.label, rivals);
    if (kept.push(object) === post.max_detections) break;
  }
  return kept;
}

export const clip = ([x1, y1, x2, y2], { height, width }) => {
  const within = (value, limit) => Math.min(Math.max(value, 0), limit);
  return [within(x1, width), within(y1, height), within(x2, width), within(y2, height)];
};

function checked(count, scores) {
  if (count !== scores.dims[1]) throw new Error(`The model has ${scores.dims[1]} anchors, and its manifest describes ${count}.`);
}

// Scores (1, N, 1 + K) for a softmax, background first. Boxes are suppressed before they are clipped to the picture.
export function ssdlite({ scores, boxes }, post, { dims, frame }) {
  const [height, width] = dims.slice(2);
  const kinds = scores.dims[2];
  const above = Array.from({ length: kinds }, () => []);
  const count = forAnchors(post, [height, width], (index, x, y, [w, h], across, down) => {
    const logits = scores.data.subarray(index * kinds, (index + 1) * kinds);
    let top = -Infinity;
    for (const logit of logits) top = Math.max(top, logit);
    let sum = 0;
    for (const logit of logits) sum += Math.exp(logit - top);
    for (let label = 1; label < kinds; label++) {
      const score = Math.exp(logits[label] - top) / sum;
      if (score <= post.score_threshold) continue;
      const [dx, dy, dw, dh] = boxes.data.subarray(4 * index, 4 * index + 4);
      const [centre, size] = post.variances;
      const [cx, cy] = [dx * centre * w + (x + 0.5) / across, dy * centre * h + (y + 0.5) / down];
      const [bw, bh] = [Math.exp(dw * size) * w, Math.exp(dh * size) * h];
      const box = [(cx - bw / 2) * width, (cy - bh / 2) * height, (cx + bw / 2) * width, (cy + bh / 2) * height];
      above[label].push({ score, label, box });
    }
  });
  checked(count, scores);
  const candidates = above.flatMap((objects) => objects.sort(byScore).slice(0, post.candidates));
  return suppress(candidates, post).map((object) => ({ ...object, box: clip(object.box, frame) }));
}

// Scores (1, N, K) for a sigmoid. The best candidates of a level, whatever their class, are clipped and suppressed.
export function retinanet({ scores, boxes }, post, { dims, frame }) {
  const kinds = scores.dims[2];
  const above = post.levels.map(() => []);
  const count = forAnchors(post, dims.slice(2), (index, x, y, anchor, across, down, level) => {
    const { stride } = post.levels[level];
    for (let k = 0; k < kinds; k++) {
      const score = 1 / (1 + Math.exp(-scores.data[index * kinds + k]));
      if (score <= post.score_threshold) continue;
      const [x1, y1, x2, y2] = anchor;
      const [w, h] = [x2 - x1, y2 - y1];
      const [dx, dy, dw, dh] = post.weights.map((weight, i) => boxes.data[4 * index + i] / weight);
      const [cx, cy] = [dx * w + x * stride + x1 + w / 2, dy * h + y * stride + y1 + h / 2];
      const [bw, bh] = [Math.exp(Math.min(dw, post.max_log_size)) * w, Math.exp(Math.min(dh, post.max_log_size)) * h];
      above[level].push({ score, label: k + 1, box: clip([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2], frame) });
    }
  });
  checked(count, scores);
  return suppress(above.flatMap((objects) => objects.sort(byScore).slice(0, post.candidates)), post);
}
