// A confusion matrix: rows are the truth, a cell's colour its share of the row.
const className = (classes, index) => classes[index] ?? String(index);

function rowTotals({ size, cells }) {
  const totals = new Array(size).fill(0);
  cells.forEach(([row, , count]) => { totals[row] += count; });
  return totals;
}

function drawMatrix({ size, cells, classes, unit }, label) {
  const short = (text, limit) => (text.length > limit ? text.slice(0, limit - 1) + '…' : text);
  const totals = rowTotals({ size, cells });
  const right = new Array(size).fill(0);
  cells.forEach(([row, column, count]) => { if (row === column) right[row] = count; });
  const named = size <= 25;
  const widest = Math.max(...Array.from({ length: size }, (_, index) => short(className(classes, index), 14).length));
  const margin = named ? Math.max(24, widest * 7 + 10) : 18;
  const tilted = named && widest > 3;
  const above = named ? (tilted ? 26 + widest * 5 : 38) : 24;
  const side = named ? Math.max(26, Math.min(48, 460 / size)) : 540 / size;
  const edge = side * size;
  const wide = margin + edge + (named ? 56 : 8);
  const svg = element('svg:svg', { class: 'matrix', viewBox: `0 0 ${wide} ${above + edge + 8}`, role: 'img', 'aria-label': label });
  const text = (x, y, words, extra) => {
    const made = element('svg:text', { x, y, ...extra }, words);
    svg.append(made);
  };
  svg.append(element('svg:rect', { class: 'back', x: margin, y: above, width: edge, height: edge }));
  text(0, 13, 'truth ↓\u2003predicted →', { class: 'muted' });
  if (named) {
    text(wide, above - 8, 'recall', { class: 'muted', 'text-anchor': 'end' });
    for (let index = 0; index < size; index += 1) {
      const middle = (index + 0.5) * side;
      const label = short(className(classes, index), 14);
      text(margin - 8, above + middle + 4, label, { 'text-anchor': 'end' });
      text(0, 0, label, { transform: `translate(${margin + middle + (tilted ? 3 : 0)} ${above - 8})` + (tilted ? ' rotate(-40)' : ''), 'text-anchor': tilted ? 'start' : 'middle' });
      const recall = totals[index] ? (100 * right[index] / totals[index]).toFixed(0) + ' %' : '–';
      text(wide, above + middle + 4, recall, { class: 'muted', 'text-anchor': 'end' });
      if (index) svg.append(element('svg:path', { class: 'rule', d: `M${margin} ${above + index * side}h${edge}M${margin + index * side} ${above}v${edge}` }));
    }
  }
  cells.filter(([, column]) => column >= 0).forEach(([row, column, count]) => { // -1 stands for no answer
    const share = count / totals[row];
    const correct = row === column;
    const strength = correct ? 0.06 + 0.2 * share : Math.min(0.6, 0.15 + 0.9 * share); // numbers on it can be read
    const x = margin + column * side;
    const y = above + row * side;
    const percent = (100 * share).toFixed(share < 0.1 ? 1 : 0);
    const told = `${className(classes, row)} → ${className(classes, column)}\n${count} of ${totals[row]} ${unit} (${percent} %)`;
    svg.append(element('svg:rect', { x, y, width: side, height: side, style: `fill:rgba(var(--${correct ? 'cell' : 'error'}),${strength.toFixed(2)})`, 'data-tip': told }));
    if (named) text(x + side / 2, y + side / 2 + 4, unit === 'pixels' ? percent : String(count), { 'text-anchor': 'middle', 'pointer-events': 'none' });
  });
  return svg;
}

if (data.confusion) {
  document.getElementById('matrix').append(drawMatrix(data.confusion, 'Confusion matrix; its errors are listed beside it'));
}
