// While the run works the page loads itself anew, unless nobody looks or something is being copied.
const live = document.getElementById('live');
if (live) {
  const age = Math.max(0, (Date.now() - Date.parse(live.dataset.written)) / 1000);
  const ago = age < 90 ? `${Math.round(age)} s` : age < 5400 ? `${Math.round(age / 60)} min` : `${Math.round(age / 3600)} h`;
  const quiet = age > +live.dataset.quiet ? ' Nothing since: the run may have died. The same command continues it.' : '';
  live.textContent = `Written ${ago} ago; this page follows.${quiet}`;
  setInterval(() => {
    if (document.visibilityState === 'visible' && !String(getSelection())) location.reload();
  }, 10000);
}
