// The divider between bicubic interpolation and the network, one for each picture.
document.querySelectorAll('.divider').forEach((divider) => {
  const move = () => divider.previousElementSibling.style.setProperty('--divider', `${divider.value}%`);
  divider.addEventListener('input', move);
  move(); // browsers keep a slider's place when a page is loaded again
});
