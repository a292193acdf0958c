const data = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';

function element(name, attributes, ...children) {
  const made = name.startsWith('svg:') ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  Object.entries(attributes || {}).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
}

// Accuracy against latency: one drawing per runtime and batch, of which one is shown.
const scatter = document.getElementById('views');
if (scatter) {
  const form = scatter.parentElement;
  form.addEventListener('change', () => {
    const value = (name) => form.querySelector(`input[name=${name}]:checked`).value;
    let found = false;
    scatter.querySelectorAll('[data-runtime]').forEach((view) => {
      view.hidden = view.dataset.runtime !== value('runtime') || view.dataset.batch !== value('batch');
      found = found || !view.hidden;
    });
    scatter.querySelector('.none').hidden = found;
  });
}

// Learning curves: the legend hides lines, a cursor reads all values at one epoch.
const legend = document.getElementById('legend');
if (legend) {
  const charts = Array.from(document.querySelectorAll('.curves'));
  const buttons = Array.from(legend.querySelectorAll('[data-mixer]'));
  const shown = () => buttons.filter((button) => button.getAttribute('aria-pressed') === 'true');
  const update = () => {
    const on = new Set(shown().map((button) => button.dataset.mixer));
    charts.forEach((chart) => chart.querySelectorAll('.curve').forEach((line) => line.classList.toggle('off', !on.has(line.dataset.mixer))));
    legend.querySelector('[data-all]').textContent = on.size ? 'Hide all' : 'Show all';
  };
  const emphasise = (index) => charts.forEach((chart) => {
    chart.classList.toggle('faded', index !== null);
    chart.querySelectorAll('.curve').forEach((line) => line.classList.toggle('strong', line.dataset.mixer === index));
  });
  buttons.forEach((button) => {
    button.addEventListener('click', () => {
      button.setAttribute('aria-pressed', String(button.getAttribute('aria-pressed') !== 'true'));
      update();
    });
    const strong = () => emphasise(button.getAttribute('aria-pressed') === 'true' ? button.dataset.mixer : null);
    button.addEventListener('pointerenter', strong);
    button.addEventListener('focus', () => { if (button.matches(':focus-visible')) strong(); });
    button.addEventListener('pointerleave', () => emphasise(null));
    button.addEventListener('blur', () => emphasise(null));
  });
  legend.querySelector('[data-all]').addEventListener('click', () => {
    const next = String(!shown().length);
    buttons.forEach((button) => button.setAttribute('aria-pressed', next));
    update();
  });

  charts.forEach((chart) => {
    const { series, first, last, left, right } = chart.dataset;
    const cursor = chart.querySelector('.cursor');
    const epochs = Array.from(new Set(data.mixers.flatMap((mixer) => mixer.history[series].map((point) => point[0])))).sort((a, b) => a - b);
    let at = epochs.length - 1;
    const pixel = (epoch) => +left + (epoch - first) / (last - first) * (right - left);
    const read = (x, y) => {
      const values = [];
      shown().forEach((button) => {
        const mixer = data.mixers[button.dataset.mixer];
        const point = mixer.history[series].find((candidate) => candidate[0] === epochs[at]);
        if (point) values.push([point[1], mixer.name]);
      });
      values.sort((a, b) => (series === 'val_top1' ? b[0] - a[0] : a[0] - b[0]));
      const lines = values.map(([value, name]) => (series === 'val_top1' ? value.toFixed(1) + ' %' : value.toPrecision(3)) + '\u2002' + name);
      cursor.setAttribute('transform', `translate(${pixel(epochs[at])} 0)`);
      cursor.style.visibility = 'visible';
      showTip([`epoch ${epochs[at]}`, ...lines], x, y);
    };
    chart.tell = () => {
      const box = chart.getBoundingClientRect();
      read(box.left + pixel(epochs[at]) / chart.viewBox.baseVal.width * box.width, box.top + box.height / 3);
    };
    const leave = () => { cursor.style.visibility = 'hidden'; hideTip(); };
    chart.addEventListener('pointermove', (event) => {
      const box = chart.getBoundingClientRect();
      const x = (event.clientX - box.left) * chart.viewBox.baseVal.width / box.width;
      const distance = (epoch) => Math.abs(pixel(epoch) - x);
      epochs.forEach((epoch, place) => { if (distance(epoch) < distance(epochs[at])) at = place; });
      read(event.clientX, event.clientY);
    });
    chart.addEventListener('pointerleave', leave);
    chart.addEventListener('blur', leave);
    chart.addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -epochs.length, End: epochs.length }[event.key];
      if (!step) return;
      event.preventDefault();
      at = Math.min(Math.max(at + step, 0), epochs.length - 1);
      chart.tell();
    });
  });
}

// Confusion matrices: rows are the truth, a cell's colour its share of the row.
const choice = document.getElementById('confusion-mixer');
if (choice) {
  const className = (index) => data.classes[index] ?? String(index);
  const short = (text, limit) => (text.length > limit ? text.slice(0, limit - 1) + '…' : text);
  const draw = () => {
    const { size, cells } = data.mixers[choice.value].confusion;
    const totals = new Array(size).fill(0);
    const right = new Array(size).fill(0);
    cells.forEach(([row, column, count]) => {
      totals[row] += count;
      if (row === column) right[row] = count;
    });
    const named = size <= 25;
    const widest = Math.max(...Array.from({ length: size }, (_, index) => short(className(index), 14).length));
    const margin = named ? Math.max(24, widest * 7 + 10) : 18;
    const tilted = named && widest > 3;
    const above = named ? (tilted ? 26 + widest * 5 : 38) : 24;
    const side = named ? Math.max(26, Math.min(48, 460 / size)) : 540 / size;
    const edge = side * size;
    const wide = margin + edge + (named ? 56 : 8);
    const svg = element('svg:svg', { class: 'matrix', viewBox: `0 0 ${wide} ${above + edge + 8}`, role: 'img', 'aria-label': `Confusion matrix of ${data.mixers[choice.value].name}; its errors are listed beside it` });
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
        const label = short(className(index), 14);
        text(margin - 8, above + middle + 4, label, { 'text-anchor': 'end' });
        text(0, 0, label, { transform: `translate(${margin + middle + (tilted ? 3 : 0)} ${above - 8})` + (tilted ? ' rotate(-40)' : ''), 'text-anchor': tilted ? 'start' : 'middle' });
        const recall = totals[index] ? (100 * right[index] / totals[index]).toFixed(0) + ' %' : '–';
        text(wide, above + middle + 4, recall, { class: 'muted', 'text-anchor': 'end' });
        if (index) svg.append(element('svg:path', { class: 'rule', d: `M${margin} ${above + index * side}h${edge}M${margin + index * side} ${above}v${edge}` }));
      }
    }
    cells.forEach(([row, column, count]) => {
      const share = count / totals[row];
      const correct = row === column;
      const strength = correct ? 0.06 + 0.2 * share : Math.min(1, 0.25 + 1.5 * share);
      const x = margin + column * side;
      const y = above + row * side;
      const percent = (100 * share).toFixed(share < 0.1 ? 1 : 0);
      const told = `${className(row)} → ${className(column)}\n${count} of ${totals[row]} images (${percent} %)`;
      svg.append(element('svg:rect', { x, y, width: side, height: side, style: `fill:rgba(var(--${correct ? 'cell' : 'error'}),${strength.toFixed(2)})`, 'data-tip': told }));
      if (named) text(x + side / 2, y + side / 2 + 4, String(count), { 'text-anchor': 'middle', 'pointer-events': 'none' });
    });
    document.getElementById('matrix').replaceChildren(svg);

    const errors = cells.filter(([row, column]) => row !== column).sort((a, b) => b[2] - a[2]);
    const wrong = errors.reduce((sum, cell) => sum + cell[2], 0);
    const total = totals.reduce((sum, count) => sum + count, 0);
    document.getElementById('errors').textContent = `${wrong} of ${total} images wrong` + (errors.length > 12 ? '; the most frequent confusions:' : '.');
    const body = document.getElementById('pairs').tBodies[0];
    body.replaceChildren(...errors.slice(0, 12).map(([row, column, count]) => element('tr', {},
      element('td', {}, className(row)), element('td', {}, className(column)),
      element('td', { class: 'number' }, `${count} of ${totals[row]}`))));
    document.getElementById('pairs').hidden = !errors.length;
  };
  choice.addEventListener('change', draw);
  draw();
}
