'use strict';

const data = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';

function element(name, attributes, ...children) {
  const made = name.startsWith('svg:') ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  Object.entries(attributes || {}).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
}

const tip = document.getElementById('tip');

function showTip(lines, x, y) {
  tip.replaceChildren();
  lines.forEach((line, place) => {
    const row = document.createElement(place ? 'div' : 'b');
    row.textContent = line;
    tip.append(row);
  });
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
  const top = y + 14 + box.height > innerHeight ? y - 14 - box.height : y + 14;
  tip.style.left = Math.max(4, left) + 'px';
  tip.style.top = Math.max(4, top) + 'px';
}

function hideTip() {
  tip.hidden = true;
}

document.addEventListener('pointermove', (event) => {
  const target = event.target.closest('[data-tip]');
  if (target) showTip(target.dataset.tip.split('\n'), event.clientX, event.clientY);
  else if (!event.target.closest('.curves')) hideTip();
});
function showFocused() {
  const target = document.activeElement;
  if (!target.matches('[data-tip]:focus-visible, .curves:focus-visible')) return false;
  if (target.tell) { // a chart that makes its own tip
    target.tell();
    return true;
  }
  const box = (target.querySelector('.dot') || target).getBoundingClientRect();
  showTip(target.dataset.tip.split('\n'), box.right, box.bottom);
  return true;
}
document.addEventListener('focusin', showFocused);
document.addEventListener('focusout', hideTip);
document.addEventListener('scroll', () => showFocused() || hideTip(), { passive: true }); // focusing may scroll
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') hideTip();
});

function sortBy(header) {
  const table = header.closest('table');
  const body = table.tBodies[0];
  const place = header.cellIndex;
  const flipped = { ascending: 'descending', descending: 'ascending' };
  const direction = flipped[header.getAttribute('aria-sort')] || header.dataset.first;
  const sign = direction === 'ascending' ? 1 : -1;
  const keyed = Array.from(body.rows, (row) => [row.cells[place].dataset.value, row]);
  keyed.sort(([a], [b]) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // missing values stay last
    return sign * (place ? a - b : a.localeCompare(b, 'en', { numeric: true }));
  });
  body.append(...keyed.map(([, row]) => row));
  header.parentElement.querySelectorAll('[aria-sort]').forEach((other) => other.setAttribute('aria-sort', 'none'));
  header.setAttribute('aria-sort', direction);
}
document.querySelectorAll('.sortable th[aria-sort]').forEach((header) => {
  header.querySelector('button').addEventListener('click', () => sortBy(header));
});

document.querySelectorAll('button.copy').forEach((button) => {
  button.addEventListener('click', async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    } catch {
      getSelection().selectAllChildren(source); // no permission: leave it selected for the user
    }
  });
});
