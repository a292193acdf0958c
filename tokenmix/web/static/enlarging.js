// A picture through a graph that enlarges it, in windows whose borders cannot be seen: see tokenmix_runtime/enlarging.py.

const SIDE = 192; // pixels of a window, and twice the radius, where the graph takes any size
const REMEDY = "Export the model with tokenmix export --dynamic batch size.";
export const MOST = 1e6; // pixels of a picture, so that no device is busy for minutes

// {begin, end} of each window of a line of pixels, and {first, last} of what is kept of it.
export function windows(length, side, radius) {
  const found = [];
  for (let begin = 0, kept = 0; kept < length;) {
    begin = Math.max(0, Math.min(begin, length - side));
    const end = Math.min(begin + side, length);
    const last = end === length ? length : end - radius;
    found.push({ begin, end, first: kept, last });
    [kept, begin] = [last, last - radius];
  }
  return found;
}

function side(length, fixed, radius) {
  if (fixed === length) return length;
  if (!Number.isInteger(fixed)) return radius === null ? length : SIDE + 2 * radius;
  if (fixed > length || radius === null || fixed <= 2 * radius) throw new Error(`the file takes pictures of one size, ${fixed} pixels on this side, and this one has ${length}. ${REMEDY}`);
  return fixed;
}

// {enlarged: {dims, data}} of the whole input, and other outputs of the last window. `run` takes {data, dims}.
export async function enlarge(run, input, manifest) {
  const { scale, radius = null } = manifest.postprocess;
  const [, , height, width] = input.dims;
  const [rows, columns] = [height, width].map((length, i) => windows(length, side(length, manifest.input.shape[2 + i], radius), radius ?? 0));
  const data = new Float32Array(3 * scale * height * scale * width);
  let others;
  for (const row of rows) {
    for (const column of columns) {
      const [h, w] = [row.end - row.begin, column.end - column.begin];
      const part = new Float32Array(3 * h * w);
      for (let line = 0; line < 3 * h; line++) {
        const from = (Math.floor(line / h) * height + row.begin + (line % h)) * width;
        part.set(input.data.subarray(from + column.begin, from + column.end), line * w);
      }
      others = await run({ data: part, dims: [1, 3, h, w] });
      const made = others.enlarged;
      if (made?.dims.join() !== [1, 3, scale * h, scale * w].join()) throw new Error("the outputs are not those that model.json describes: the picture becomes of another size.");
      const [left, right] = [column.first, column.last].map((x) => scale * (x - column.begin));
      for (let channel = 0; channel < 3; channel++) {
        for (let y = scale * row.first; y < scale * row.last; y++) {
          const from = (channel * scale * h + y - scale * row.begin) * scale * w;
          data.set(made.data.subarray(from + left, from + right), (channel * scale * height + y) * scale * width + scale * column.first);
        }
      }
    }
  }
  return { ...others, enlarged: { dims: [1, 3, scale * height, scale * width], data } };
}
