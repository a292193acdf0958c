// The confusion matrix of one mixer of several, and its errors.
const choice = document.getElementById('confusion-mixer');
if (choice) {
  const draw = () => {
    const confusion = data.confusions[choice.value];
    const { cells, classes, unit } = confusion;
    const totals = rowTotals(confusion);
    const label = `Confusion matrix of ${confusion.name}; its errors are listed beside it`;
    document.getElementById('matrix').replaceChildren(drawMatrix(confusion, label));

    const errors = cells.filter(([row, column]) => row !== column).sort((a, b) => b[2] - a[2]);
    const wrong = errors.reduce((sum, cell) => sum + cell[2], 0);
    const total = totals.reduce((sum, count) => sum + count, 0);
    document.getElementById('errors').textContent = `${wrong} of ${total} ${unit} wrong` + (errors.length > 12 ? '; the most frequent confusions:' : '.');
    const body = document.getElementById('pairs').tBodies[0];
    body.replaceChildren(...errors.slice(0, 12).map(([row, column, count]) => element('tr', {},
      element('td', {}, className(classes, row)), element('td', {}, className(classes, column)),
      element('td', { class: 'number' }, `${count} of ${totals[row]}`))));
    document.getElementById('pairs').hidden = !errors.length;
  };
  choice.addEventListener('change', draw);
  draw();
}
