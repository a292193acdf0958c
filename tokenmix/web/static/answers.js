// The answer in words: rows of a list, and one sentence for those who do not see it.
import { colour } from "./draw.js";

const SHOWN = 5;
const percent = (share) => `${(100 * share).toFixed(share >= 0.9995 ? 0 : 1)} %`;

function row(name, text, share, tone, title = "") {
  const item = document.createElement("li");
  item.title = title;
  for (const [kind, content] of [["name", name], ["value", text]]) {
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = content;
    item.append(span);
  }
  const bar = document.createElement("i");
  bar.style.width = `${100 * share}%`;
  if (tone) bar.style.background = tone;
  const track = document.createElement("div");
  track.append(bar);
  item.append(track);
  item.dataset.value = share;
  return item;
}

// What each kind of answer says.
const SAID = {
  classes({ probabilities }, { name }) {
    const order = probabilities.map((value, label) => ({ value, label })).sort((a, b) => b.value - a.value);
    const rows = order.slice(0, SHOWN).map(({ value, label }) => row(name(label), percent(value), value));
    return { rows, text: `${name(order[0].label)}, ${percent(order[0].value)}` };
  },
  map({ map }, { name }) {
    const counts = new Map();
    for (const label of map) counts.set(label, (counts.get(label) ?? 0) + 1);
    const shares = [...counts].map(([label, count]) => ({ label, share: count / map.length })).sort((a, b) => b.share - a.share);
    const rows = shares.map(({ label, share }) => row(name(label), percent(share), share, colour(label)));
    const most = shares.slice(0, 3).map(({ label, share }) => `${name(label)} ${percent(share)}`);
    return { rows, text: `${shares.length} ${shares.length === 1 ? "class" : "classes"}: ${most.join(", ")}` };
  },
  enlarged: ({ scale, height, width }) => ({ rows: [], text: `${scale} times as large: ${width} × ${height} pixels` }),
  objects({ objects }, { name, tune }) {
    const shown = objects.filter(({ score }) => score >= tune);
    const rows = shown.map(({ label, score, box }) => {
      const [left, top, right, bottom] = box.map((side) => side.toFixed(1));
      return row(name(label), percent(score), score, colour(label), `from ${left}, ${top} to ${right}, ${bottom} pixels`);
    });
    const counts = new Map();
    for (const { label } of shown) counts.set(name(label), (counts.get(name(label)) ?? 0) + 1);
    const text = [...counts].map(([kind, count]) => (count > 1 ? `${count} × ${kind}` : kind)).join(", ");
    return { rows, text: text || "Nothing found above the least score." };
  },
};

// {rows, text}
export const answerRows = (answer, options) => SAID[answer.kind](answer, options);
