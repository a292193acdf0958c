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
}
