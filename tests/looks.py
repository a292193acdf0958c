"""What can be measured of how a page looks and is used: its width, the contrast of its texts, and the keyboard."""

from __future__ import annotations

from typing import Any, NamedTuple

# Every text that can be seen, with its contrast after WCAG 2.1 (1.4.3) and what it needs. What lies behind a text is
# what a click on its middle would hit, from the top down until something is opaque; what a page folds is unfolded.
_TEXTS = """
const sheet = new CSSStyleSheet(); // which no policy of the page forbids
sheet.replaceSync(
  '* { pointer-events: auto !important; scroll-behavior: auto !important; transition: none !important }');
document.adoptedStyleSheets.push(sheet);
document.querySelectorAll('details').forEach((one) => { one.open = true; });
const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
const known = new Map();
function colour(text) { // 0..1 red, green, blue, alpha
  if (!known.has(text)) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    known.set(text, Array.from(canvas.getImageData(0, 0, 1, 1).data, (part) => part / 255));
  }
  return known.get(text);
}
function over(top, below) {
  return [0, 1, 2].map((part) => top[part] * top[3] + below[part] * (1 - top[3])).concat(1);
}
function luminance(rgb) {
  const linear = rgb.slice(0, 3).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}
function opacity(element) {
  let whole = 1;
  for (let one = element; one; one = one.parentElement) whole *= Number(getComputedStyle(one).opacity);
  return whole;
}
function paint(element) { // what it paints behind others, or null
  const style = getComputedStyle(element);
  const shape = element instanceof SVGGeometryElement;
  const own = shape ? style.fill.replace('none', 'transparent') : style.backgroundColor;
  const [red, green, blue, alpha] = colour(own);
  const whole = alpha * opacity(element) * (shape ? Number(style.fillOpacity) : 1);
  return whole > 0 ? [red, green, blue, whole] : null;
}
const root = getComputedStyle(document.documentElement);
const dark = root.colorScheme.includes('dark') && matchMedia('(prefers-color-scheme: dark)').matches;
const canvasColour = dark ? [0.07, 0.07, 0.07, 1] : [1, 1, 1, 1]; // where no element has a background
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const text = node.textContent.trim();
  const element = node.parentElement;
  if (!text || element.closest('script, style, noscript, option, [aria-hidden=true]')) continue;
  if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
  if (element.closest('.sr, .md-skip') || element.closest(':disabled')) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  let box = range.getBoundingClientRect();
  if (box.width < 2 || box.height < 2) continue;
  if (box.top < 0 || box.bottom > innerHeight || box.left < 0 || box.right > innerWidth) {
    element.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
    box = range.getBoundingClientRect();
  }
  const style = getComputedStyle(element);
  const svg = element instanceof SVGElement;
  const stack = document.elementsFromPoint(box.left + Math.min(box.width, 8) / 2, box.top + box.height / 2);
  const place = stack.findIndex((one) => one === element || element.contains(one));
  if (place < 0) continue; // cut off by what scrolls around it
  let back = canvasColour;
  const layers = [];
  for (const one of stack.slice(svg ? place + 1 : place)) {
    const painted = paint(one);
    if (painted) layers.push(painted);
    if (painted && painted[3] >= 0.999) break;
  }
  for (const layer of layers.reverse()) back = over(layer, back);
  const [red, green, blue, alpha] = colour(svg ? style.fill : style.color);
  const front = over([red, green, blue, alpha * opacity(element)], back);
  const [most, least] = [luminance(front), luminance(back)].sort((a, b) => b - a);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  found.push([text.slice(0, 40), element.tagName + '.' + (element.getAttribute('class') || ''),
              (most + 0.05) / (least + 0.05), large ? 3 : 4.5]);
}
scrollTo(0, 0);
return found;
"""
_PRESSABLE = "a[href], button, select, input, textarea, summary, [tabindex]:not([tabindex='-1'])"
# Numbers what can be used, and notes what gets the focus and shows it, and what is pressed.
_WATCH = """
document.querySelectorAll('details').forEach((one) => { one.open = true; });
window.used = { focused: [], pressed: [] };
const usable = Array.from(document.querySelectorAll(arguments[0])).filter(
  (one) => !one.disabled && one.checkVisibility({ visibilityProperty: true }) && !one.closest('[inert]'));
usable.forEach((one, place) => { one.dataset.usable = place; });
function outlined(one) {
  const shown = (style) => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
  return shown(getComputedStyle(one)) || (one.nextElementSibling && shown(getComputedStyle(one.nextElementSibling)));
}
document.addEventListener('focusin', (event) => {
  window.used.focused.push([Number(event.target.dataset.usable ?? -1), Boolean(outlined(event.target))]);
});
document.addEventListener('click', (event) => {
  const one = event.target.closest('[data-usable]');
  if (one) window.used.pressed.push(Number(one.dataset.usable));
  if (one && one.matches('a')) event.preventDefault();
}, true);
if (document.activeElement) document.activeElement.blur();
return usable.map((one) => [
  one.tagName.toLowerCase(),
  (one.getAttribute('class') || '').split(' ')[0],
  one.type === 'radio' ? one.name : '',
  one.matches('a, button, summary, [type=radio], [type=checkbox]'),
]);
"""


class Text(NamedTuple):
    """A text that can be seen: its begin, where it stands, its contrast and the one that it needs."""

    text: str
    where: str
    contrast: float
    needed: float


def texts(driver: Any) -> list[Text]:
    """All texts of the page that is shown."""
    return [Text(*found) for found in driver.execute_script(_TEXTS)]


def width(driver: Any) -> int:
    """How wide the page is in CSS pixels, with whatever sticks out of it."""
    return driver.execute_script("return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")


def use_by_keyboard(driver: Any) -> list[str]:
    """What is wrong with a page for who has a keyboard alone: what Tab does not reach, shows no focus, or cannot press.

    One of each kind of control is pressed, by Enter, or Space where there is something to tick.
    """
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    controls = driver.execute_script(_WATCH, _PRESSABLE)
    for begin in range(0, len(controls) + 1, 50):
        ActionChains(driver, duration=0).send_keys(Keys.TAB * min(50, len(controls) + 1 - begin)).perform()
    focused = dict(driver.execute_script("return window.used.focused"))
    groups = {controls[place][2] for place in focused if place >= 0 and controls[place][2]}  # one of a group is reached
    wrong = []
    for place, (tag, kind, group, _) in enumerate(controls):
        if place not in focused and group not in groups:
            wrong.append(f"Tab does not reach {tag}.{kind} (number {place})")
        elif not focused.get(place, True):
            wrong.append(f"{tag}.{kind} shows no focus")
    tried = set()
    for place, (tag, kind, _, pressable) in enumerate(controls):
        if not pressable or (tag, kind) in tried:
            continue
        tried.add((tag, kind))
        find = f"document.querySelector('[data-usable=\"{place}\"]')"
        driver.execute_script(f"window.used.pressed = []; {find}.checked = false; {find}.focus()")
        ActionChains(driver, duration=0).send_keys(Keys.SPACE if tag == "input" else Keys.ENTER).perform()
        if place not in driver.execute_script("return window.used.pressed"):
            wrong.append(f"{tag}.{kind} is not pressed by the keyboard")
    return wrong
