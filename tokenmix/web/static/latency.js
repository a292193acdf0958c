// The histogram of repeated runs, as SVG, and its summary.

const [WIDTH, HEIGHT, HEAD, FOOT] = [480, 160, 34, 22];

export function quantile(sorted, share) {
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  return sorted[low] + ((sorted[low + 1] ?? sorted[low]) - sorted[low]) * (at - low);
}

export const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`;

export function summary(times) {
  const sorted = [...times].sort((a, b) => a - b);
  return { n: times.length, least: sorted[0], median: quantile(sorted, 0.5), p90: quantile(sorted, 0.9), most: sorted.at(-1) };
}

function element(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// From the fastest run to the 95th percentile; slower ones count in the last bar.
export function histogram(times) {
  const { n, least, median, p90, most } = summary(times);
  const end = Math.max(quantile([...times].sort((a, b) => a - b), 0.95), least * 1.05);
  const bars = Math.min(24, Math.max(6, Math.ceil(2 * Math.sqrt(n))));
  const counts = new Array(bars).fill(0);
  for (const time of times) counts[Math.min(bars - 1, Math.floor((bars * (time - least)) / (end - least)))]++;
  const tallest = Math.max(...counts);
  const x = (time) => (WIDTH * Math.min(time - least, end - least)) / (end - least);
  const label = `Histogram of ${n} runs from ${milliseconds(least)} to ${milliseconds(most)}`;
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  counts.forEach((count, i) => {
    const height = ((HEIGHT - FOOT - HEAD) * count) / tallest;
    const bar = { x: (WIDTH * i) / bars + 1, width: WIDTH / bars - 2, y: HEIGHT - FOOT - height, height, rx: 2 };
    svg.append(element("rect", bar));
  });
  for (const [name, time] of [["median", median], ["p90", p90]]) {
    svg.append(element("line", { x1: x(time), x2: x(time), y1: name === "median" ? 2 : 18, y2: HEIGHT - FOOT, class: name }));
    const left = x(time) > WIDTH * 0.85; // the word then stands left of its line
    svg.append(element("text", { x: x(time) + (left ? -4 : 4), y: name === "median" ? 12 : 28, "text-anchor": left ? "end" : "start" }, name));
  }
  svg.append(element("text", { x: 0, y: HEIGHT - 5 }, milliseconds(least)));
  const last = milliseconds(end) + (most > end ? " and more" : "");
  svg.append(element("text", { x: WIDTH, y: HEIGHT - 5, "text-anchor": "end" }, last));
  return svg;
}
