// A cursor in each chart of curves reads the values of all visible lines at one epoch.
document.querySelectorAll('.curves').forEach((chart) => {
  const { series, along, first, last, left, right } = chart.dataset;
  const { unit, lines } = data.curves[series];
  const cursor = chart.querySelector('.cursor');
  const epochs = Array.from(new Set(Object.values(lines).flatMap(([, points]) => points.map((point) => point[0])))).sort((a, b) => a - b);
  let at = epochs.length - 1;
  const pixel = (epoch) => +left + (epoch - first) / (last - first) * (right - left);
  const written = (value) => (unit === '%' ? value.toFixed(1) : String(+value.toPrecision(3))) + (unit && ` ${unit}`);
  const read = (x, y) => {
    const values = [];
    Object.entries(lines).forEach(([index, [name, points]]) => {
      if (!points.length || chart.querySelector(`.curve[data-mixer="${index}"]`).matches('.off')) return;
      const distance = (point) => Math.abs(point[0] - epochs[at]);
      const point = points.reduce((best, other) => (distance(other) < distance(best) ? other : best));
      if (distance(point) < 0.5) values.push([point[1], name]);
    });
    values.sort((a, b) => (unit === '%' ? b[0] - a[0] : a[0] - b[0]));
    cursor.setAttribute('transform', `translate(${pixel(epochs[at])} 0)`);
    cursor.style.visibility = 'visible';
    showTip([`${along} ${+epochs[at].toFixed(2)}`, ...values.map(([value, name]) => written(value) + '\u2002' + name)], x, y);
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
