// Pillow's resize of 8-bit pictures, along the rows first: what training and evaluation saw, to the bit but for pictures
// that Pillow 13 resizes along the columns first. A canvas would not smooth alike.

const BITS = 22; // of the fraction in fixed-point weights

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at(x) { // a = -0.5
      const d = Math.abs(x);
      if (d < 1) return (1.5 * d - 2.5) * d * d + 1;
      return d < 2 ? ((-0.5 * d + 2.5) * d - 4) * d + 2 : 0;
    },
  },
};

// For each output position: the first input position and the fixed-point weights of it and those after it.
function taps(from, to, filter) {
  const scale = from / to;
  const stretch = Math.max(1, scale); // a shrunk picture is smoothed over all that a pixel covers
  const reach = filter.support * stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const weights = new Float64Array(end - first);
    let sum = 0;
    for (let k = 0; k < weights.length; k++) {
      weights[k] = filter.at((first + k - centre + 0.5) * (1 / stretch));
      sum += weights[k];
    }
    const fixed = Int32Array.from(weights, (w) => Math.trunc((w / sum) * 2 ** BITS + (w / sum < 0 ? -0.5 : 0.5)));
    return { first, fixed };
  });
}

// One axis of RGBA or RGB bytes. Positions along the axis are `step` bytes apart in both pictures.
function pass(source, target, lines, lineStep, newLineStep, table, step) {
  const half = 2 ** (BITS - 1);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < table.length; i++) {
      const { first, fixed } = table[i];
      for (let channel = 0; channel < 3; channel++) {
        let sum = half;
        let at = line * lineStep + first * step + channel;
        for (let k = 0; k < fixed.length; k++, at += step) sum += source[at] * fixed[k];
        // A Uint8ClampedArray clips; the shift rounds down as Pillow's does.
        target[line * newLineStep + i * step + channel] = Math.floor(sum / 2 ** BITS);
      }
    }
  }
}

// {data (RGBA), width, height} -> the same at another size; the fourth channel is left at zero.
export function resize(picture, height, width, interpolation) {
  if (picture.width === width && picture.height === height) return picture;
  const filter = FILTERS[interpolation];
  if (!filter) throw new Error(`The manifest asks for the unknown interpolation “${interpolation}”.`);
  let { data } = picture;
  if (width !== picture.width) {
    const wide = new Uint8ClampedArray(width * picture.height * 4);
    pass(data, wide, picture.height, picture.width * 4, width * 4, taps(picture.width, width, filter), 4);
    data = wide;
  }
  if (height !== picture.height) {
    const high = new Uint8ClampedArray(width * height * 4);
    const table = taps(picture.height, height, filter);
    const row = width * 4;
    for (let x = 0; x < width; x++) {
      pass(data.subarray(x * 4), high.subarray(x * 4), 1, 0, 0, table, row);
    }
    data = high;
  }
  return { data, width, height };
}

// The part of a picture from (left, top) on.
export function crop(picture, left, top, height, width) {
  if (!left && !top && width === picture.width && height === picture.height) return picture;
  const data = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * picture.width + left) * 4;
    data.set(picture.data.subarray(start, start + width * 4), y * width * 4);
  }
  return { data, width, height };
}
