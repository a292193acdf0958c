// Bilinear interpolation of planes, as PyTorch does it.

// The two neighbours and their weight for each position of a line that is interpolated.
export function neighbours(from, to, alignCorners) {
  return Array.from({ length: to }, (_, i) => {
    const at = alignCorners ? (to > 1 ? (i * (from - 1)) / (to - 1) : 0) : Math.max(0, ((i + 0.5) * from) / to - 0.5);
    const low = Math.min(Math.floor(at), from - 1);
    return { low, high: Math.min(low + 1, from - 1), part: at - low };
  });
}

// A plane of `sourceWidth` columns, between the given rows and columns, into `target`.
export function interpolate(source, sourceWidth, rows, columns, target) {
  let to = 0;
  for (const { low, high, part } of rows) {
    const [above, below] = [low * sourceWidth, high * sourceWidth];
    for (const column of columns) {
      const { low: l, high: h, part: p } = column;
      const first = source[above + l] * (1 - p) + source[above + h] * p;
      const second = source[below + l] * (1 - p) + source[below + h] * p;
      target[to++] = first * (1 - part) + second * part;
    }
  }
}
