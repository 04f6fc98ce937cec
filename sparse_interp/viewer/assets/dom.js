// Elements, numbers and the tooltip. Text always enters as text nodes, so
// nothing in a prompt can become markup.

const SVG_SPACE = 'http://www.w3.org/2000/svg';

// What the page says, see payload.py.
const DATA = JSON.parse(byId('data').textContent);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

function el(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

function svgEl(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG_SPACE, tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

function isNumber(value) {
  return typeof value === 'number' && Number.isFinite(value);
}

function short(value) {
  if (!isNumber(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return value.toLocaleString('en');
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

function signed(value) {
  return (value > 0 ? '+' : '') + short(value).replace('-', '−');
}

function loss(value) {
  return isNumber(value) ? value.toFixed(3) : '–';
}

function interval(range) {
  return Array.isArray(range) && range.every(isNumber)
    ? `[${range.map(loss).join(', ')}]`
    : '';
}

// One tooltip for the page: whatever carries data-tip shows it on hover and on
// focus.
function startTips() {
  const tip = byId('tip');
  const show = (event) => {
    const owner = event.target.closest?.('[data-tip]');
    if (!owner) {
      tip.hidden = true;
      return;
    }
    tip.textContent = owner.dataset.tip;
    tip.hidden = false;
    const box = owner.getBoundingClientRect();
    const pointed = event.type !== 'focusin';
    placeTip(
      pointed ? event.clientX : box.left + box.width / 2,
      pointed ? event.clientY : box.bottom,
    );
  };
  document.addEventListener('pointermove', show);
  document.addEventListener('focusin', show);
  document.addEventListener('focusout', () => (tip.hidden = true));
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') tip.hidden = true;
  });
}

function placeTip(x, y) {
  const tip = byId('tip');
  const right = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const below = y + 16 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(x + 12, right))}px`;
  tip.style.top = `${below ? y + 16 : y - tip.offsetHeight - 12}px`;
}
