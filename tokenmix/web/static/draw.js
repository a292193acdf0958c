// What is drawn on canvases: the picture with boxes, masks or segments, and the masks of frequency mixers.
import { paste, reduced } from "./maps.js";

const OUTLINE = 2.5; // CSS pixels

// Colours far from each other for neighbouring numbers: the golden angle around the colour circle.
// All are dark enough for white letters.
export const colour = (index) => `oklch(${index % 2 ? 0.46 : 0.54} 0.17 ${(index * 137.508 + 250) % 360})`;

function bytes(css) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = css;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}

// Fits the bitmap into the canvas; returns the context with the picture's pixels as its unit, and that unit.
function place(canvas, bitmap) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  const scale = Math.min(canvas.width / bitmap.width, canvas.height / bitmap.height);
  context.setTransform(scale, 0, 0, scale, (canvas.width - bitmap.width * scale) / 2, (canvas.height - bitmap.height * scale) / 2);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0);
  return { context, unit: ratio / scale };
}

function raster(width, height, paint) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  paint(image.data);
  context.putImageData(image, 0, 0);
  return canvas;
}

// The segment map with one colour for each class; the first class, often the background, too.
function drawMap(context, bitmap, { map, height, width }, alpha) {
  const palette = new Map();
  const layer = raster(width, height, (data) => {
    for (let i = 0; i < map.length; i++) {
      if (!palette.has(map[i])) palette.set(map[i], bytes(colour(map[i])));
      data.set(palette.get(map[i]), 4 * i);
    }
  });
  context.globalAlpha = alpha;
  context.imageSmoothingEnabled = false;
  context.drawImage(layer, 0, 0, bitmap.width, bitmap.height);
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = true;
}

function drawMask(context, bitmap, { box, mask, label }) {
  const size = reduced(bitmap);
  const [across, down] = [bitmap.width / size.width, bitmap.height / size.height];
  const { left, top, width, height, own } = paste(mask, box.map((side, i) => side / (i % 2 ? down : across)), size);
  if (!own.length) return; // outside of the picture
  const [red, green, blue] = bytes(colour(label));
  const layer = raster(width, height, (data) => {
    own.forEach((is, i) => data.set([red, green, blue, is ? 130 : 0], 4 * i));
  });
  context.drawImage(layer, left * across, top * down, width * across, height * down);
}

function drawBox(context, unit, { box: [x1, y1, x2, y2], label }, text) {
  context.strokeStyle = colour(label);
  context.lineWidth = OUTLINE * unit;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  const [width, height] = [context.measureText(text).width + 10 * unit, 20 * unit];
  const top = y1 >= height ? y1 - height : y1;
  context.fillStyle = colour(label);
  context.fillRect(x1 - (OUTLINE * unit) / 2, top, width, height);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, x1 + 4 * unit, top + height / 2);
}

// What is drawn of each kind of answer; of others nothing.
const DRAWN = {
  map: (context, unit, bitmap, answer, { tune }) => drawMap(context, bitmap, answer, tune),
  objects(context, unit, bitmap, { objects }, { name, tune }) {
    const shown = objects.filter((object) => object.score >= tune).reverse(); // the best on top
    for (const object of shown) if (object.mask) drawMask(context, bitmap, object);
    for (const object of shown) drawBox(context, unit, object, `${name(object.label)} ${Math.round(100 * object.score)} %`);
  },
};

// The picture and the answer on it. `name` gives a class's name; `tune` is the least score or the opacity.
export function drawPicture(canvas, bitmap, answer, options) {
  const { context, unit } = place(canvas, bitmap);
  DRAWN[answer?.kind]?.(context, unit, bitmap, answer, options);
}

// The larger picture, each of its pixels one of the canvas: on the left of the divider, at this share of the width, as
// the browser smoothly enlarges the given one, on the right as the network does.
export function drawLarger(canvas, bitmap, { pixels, height, width }, share) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const from = Math.round(share * width);
  context.fillStyle = "#fff"; // behind what is transparent, as the network saw it
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  context.putImageData(new ImageData(pixels, width, height), 0, 0, from, 0, width - from, height);
  if (from <= 0 || from >= width) return;
  context.fillStyle = colour(0);
  context.fillRect(from - 1, 0, 2, height);
}

const STOPS = [[20, 14, 54], [59, 38, 122], [131, 47, 125], [206, 74, 93], [248, 141, 87], [254, 232, 160]];

function heat(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[low].map((value, i) => value + (STOPS[low + 1][i] - value) * (at - low));
}

// A mask with its whole spectrum: of rfft2's half the other half is the point reflection, and frequency zero moves to
// the middle. A cosine spectrum stays as it is. Colours go by the square root. Returns the least and largest value.
export function drawSpectrum(canvas, { kind, values, height, width, aspect }) {
  let [across, at] = [width, (y, x) => values[y * width + x]];
  if (kind === "fourier") {
    const even = 2 * (width - 1);
    across = Math.abs(even + 1 - height * aspect) < Math.abs(even - height * aspect) ? even + 1 : Math.max(1, even);
    const wrap = (n, size) => ((n % size) + size) % size;
    at = (y, x) => {
      const [v, u] = [wrap(y - Math.floor(height / 2), height), wrap(x - Math.floor(across / 2), across)];
      return u < width ? values[v * width + u] : values[wrap(-v, height) * width + (across - u)];
    };
  }
  const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
  canvas.width = across;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(across, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < across; x++) {
      image.data.set([...heat(high > low ? Math.sqrt((at(y, x) - low) / (high - low)) : 0.5), 255], 4 * (y * across + x));
    }
  }
  context.putImageData(image, 0, 0);
  return { low, high };
}
