// Maps of numbers on a picture: enlarged, turned into classes, pasted as masks.
import { interpolate, neighbours } from "./interpolate.js";

const LONGEST = 1024; // pixels of the longer side of what is computed for the screen

// The picture's height and width, or those of a smaller one of its shape.
export function reduced({ height, width }) {
  const scale = Math.min(1, LONGEST / Math.max(height, width));
  return { height: Math.max(1, Math.round(height * scale)), width: Math.max(1, Math.round(width * scale)) };
}

// Logits (1, K, h, w) -> the class of every pixel of the picture: enlarged to the input, padding cut off, then to size.
export function segments(logits, post, input, size) {
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
export function enlarged(classes, { frame }, size) {
  const width = classes.dims[2];
  const map = new Uint16Array(size.height * size.width);
  const [rows, columns] = [nearest(frame.height, size.height), nearest(frame.width, size.width)];
  for (let y = 0; y < size.height; y++) {
    for (let x = 0; x < size.width; x++) {
      map[y * size.width + x] = Number(classes.data[rows[y] * width + columns[x]]);
    }
  }
  return map;
}

// For each of `to` pixels, which of `from` lies under its centre: in single precision, as PyTorch decides over ties.
export function nearest(from, to) {
  const scale = Math.fround(from / to);
  return Array.from({ length: to }, (_, i) => Math.min(Math.floor(Math.fround(scale * (i + 0.5))), from - 1));
}

// Probabilities in a box -> of the picture's pixels those around it, {left, top, width, height}, and `own`: which of
// them are the object's. As torchvision pastes: with a margin of zeros, between whole pixels, in single precision.
export function paste(mask, [x1, y1, x2, y2], size) {
  const { fround, max, min, trunc } = Math;
  const [rows, columns] = [mask.height + 2, mask.width + 2];
  const padded = new Float32Array(rows * columns);
  for (let y = 0; y < mask.height; y++) padded.set(mask.data.subarray(y * mask.width, (y + 1) * mask.width), (y + 1) * columns + 1);
  const ends = (low, high, from, to) => {
    const half = fround(fround(fround(high - low) * 0.5) * fround(to / from));
    const centre = fround(fround(high + low) * 0.5);
    return [trunc(fround(centre - half)), trunc(fround(centre + half)) + 1];
  };
  const [left, right] = ends(x1, x2, mask.width, columns);
  const [top, bottom] = ends(y1, y2, mask.height, rows);
  const [first, last] = [max(left, 0), min(right, size.width)];
  const [upper, lower] = [max(top, 0), min(bottom, size.height)];
  const [width, height] = [max(last - first, 0), max(lower - upper, 0)];
  const down = neighbours(rows, max(bottom - top, 1)).slice(upper - top, upper - top + height);
  const across = neighbours(columns, max(right - left, 1)).slice(first - left, first - left + width);
  const values = new Float32Array(width * height);
  interpolate(padded, columns, down, across, values);
  return { left: first, top: upper, width, height, own: Uint8Array.from(values, (value) => value > 0.5) };
}
