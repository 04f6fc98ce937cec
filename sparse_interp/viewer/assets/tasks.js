// The task table: one row per task, good or bad, sortable by any column.

// Grows where a loss is outside.
const STRIP = { width: 150, height: 26, low: 0.001, high: 10 };
const CHANCE = Math.log(2);
const MARKS = [
  ['full', 'full model', (row) => row.full_loss],
  ['alone', 'circuit alone', (row) => row.circuit.test_loss],
  ['raw', 'circuit alone, raw', (row) => row.circuit.raw_loss],
  ['random', 'random circuit', (row) => row.circuit.random_loss],
  ['without', 'model without the circuit', (row) => without(row.circuit)],
];

const COLUMNS = [
  { title: 'task', value: (row) => row.name },
  { title: 'outcome', value: (row) => row.status },
  { title: 'full model', tip: 'test loss of the full model',
    value: (row) => row.full_loss,
    range: (row) => row.full_loss_interval },
  { title: 'nodes', value: (row) => row.circuit.nodes },
  { title: 'edges', value: (row) => row.circuit.edges },
  { title: 'circuit', tip: 'test loss of the circuit alone, with its scale and shift',
    value: (row) => row.circuit.test_loss,
    range: (row) => row.circuit.test_loss_interval },
  { title: 'raw', tip: 'the same with scale 1 and shift 0',
    value: (row) => row.circuit.raw_loss,
    range: (row) => row.circuit.raw_loss_interval },
  { title: 'scale, shift', tip: 'what multiplies the difference of the two logits, and what is added',
    value: (row) => row.circuit.scale, text: (row) => calibrationText(row.circuit) },
  { title: 'KL', tip: 'from the full model to the circuit with its scale and shift, over the two answers, on test pairs; the target is for it',
    only: 'kl', value: (row) => row.circuit.test_kl,
    range: (row) => row.circuit.test_kl_interval },
  { title: 'without', tip: 'test loss of the full model with the circuit ablated, with the scale and the shift that suit it best; raw where no such fit was made',
    value: (row) => without(row.circuit),
    range: (row) => row.circuit.calibrated_necessity_loss_interval ?? row.circuit.necessity_loss_interval },
  { title: 'random', tip: 'mean test loss of random circuits of the same size, with scales and shifts of their own',
    value: (row) => row.circuit.random_loss,
    range: (row) => row.circuit.random_loss_interval },
  { title: 'losses, log scale', value: null },
].filter((column) => !column.only || column.only === DATA.target.on);

function without(circuit) {
  return circuit.calibrated_necessity_loss ?? circuit.necessity_loss;
}

function calibrationText({ scale, shift }) {
  return isNumber(scale) && isNumber(shift) ? `×${short(scale)}, ${signed(shift)}` : '–';
}

function stripX(value) {
  const { width, low, high } = STRIP;
  const share = Math.log(Math.max(low, Math.min(high, value)) / low) / Math.log(high / low);
  return 6 + share * (width - 12);
}

function mark(kind, x, y) {
  const shapes = {
    full: () => svgEl('circle', { cx: x, cy: y, r: 4 }),
    alone: () => svgEl('path', { d: `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5-5.5z` }),
    raw: () => svgEl('path', { d: `M${x} ${y - 5}l5 5l-5 5l-5-5z` }),
    random: () => svgEl('path', { d: `M${x - 4} ${y - 4}l8 8m0-8l-8 8` }),
    without: () => svgEl('path', { d: `M${x - 5} ${y - 4}h10l-5 9z` }),
  };
  const shape = shapes[kind]();
  shape.setAttribute('class', `mark ${kind}`);
  return shape;
}

function strip(row, target) {
  const { width, height } = STRIP;
  const found = MARKS.map(([kind, name, value]) => [kind, name, value(row)])
    .filter(([, , value]) => isNumber(value));
  if (!found.length) return null;
  const line = (x, kind) => svgEl('line', { class: kind, x1: x, x2: x, y1: 2, y2: height - 2 });
  return svgEl('svg', {
      class: 'strip', viewBox: `0 0 ${width} ${height}`, width, height, role: 'img',
      'aria-label': found.map(([, name, value]) => `${name} ${loss(value)}`).join(', '),
    },
    svgEl('line', { class: 'base', x1: 6, x2: width - 6, y1: height / 2, y2: height / 2 }),
    isNumber(target.loss) ? line(stripX(target.loss), 'target-line') : null,
    line(stripX(CHANCE), 'chance-line'),
    ...found.map(([kind, , value]) => mark(kind, stripX(value), height / 2)));
}

function stripKey(target) {
  const key = ([kind, name]) => el('span', {},
    svgEl('svg', { width: 14, height: 14, viewBox: '0 0 14 14', class: 'strip' }, mark(kind, 7, 7)), name);
  return el('p', { class: 'strip-key' }, ...MARKS.map(key),
    isNumber(target.loss) ? el('span', {}, el('i', { class: 'rule target' }),
      `target ${target.text}` + (target.on === 'kl' ? ' of the full model (of a circuit, the target is for KL)' : '')) : null,
    el('span', {}, el('i', { class: 'rule chance' }), 'guessing 0.693'));
}

// Losses by condition, and of whom they are.
function conditionLine(whose, conditions) {
  const parts = Object.entries(conditions ?? {}).map(([name, value]) => `${name} ${loss(value)}`);
  return parts.length
    ? el('span', { class: 'conditions' }, `${whose}: ${parts.join(' · ')}`) : null;
}

function figureCell(column, row) {
  if (column.text) return el('td', { class: 'number' }, column.text(row));
  const value = column.value(row);
  const counted = Number.isInteger(value) && !column.range;
  return el('td', { class: 'number' },
    isNumber(value) ? (counted ? short(value) : loss(value)) : '–',
    el('span', { class: 'range' }, interval(column.range?.(row))));
}

function taskRow(row, target, open) {
  const kind = row.status.replaceAll(' ', '-');
  const name = row.stored
    ? el('a', { href: hashOf(row.name, null), class: 'task-link' }, row.name)
    : el('span', { class: 'task-link' }, row.name);
  const cells = [
    el('th', { scope: 'row' }, name,
      row.description ? el('span', { class: 'conditions' }, row.description) : null,
      conditionLine('full model', row.conditions)),
    el('td', {}, el('span', { class: `badge ${kind}` }, row.status)),
    figureCell(COLUMNS[2], row),
  ];
  const measured = isNumber(row.circuit.test_loss);
  if (measured) {
    cells.push(...COLUMNS.slice(3, -1).map((column) => figureCell(column, row)));
    if (row.reason) cells[1].append(el('span', { class: 'range' }, row.reason));
  } else {
    cells.push(el('td', { class: 'reason', colspan: COLUMNS.length - 4 }, row.reason));
  }
  cells.push(el('td', {}, strip(row, target)));
  return el('tr', {
    class: row.stored ? 'open' : null, 'data-task': row.name,
    onclick: row.stored ? () => open(row.name) : null,
  }, ...cells);
}

// Missing values come last in either direction.
function compareBy(column, direction) {
  return (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    const [noX, noY] = [x === null || x === undefined, y === null || y === undefined];
    if (noX || noY) return noX - noY;
    return direction * (typeof x === 'string' ? x.localeCompare(y) : x - y);
  };
}

function drawTasks(container, tasks, target, open) {
  if (!tasks.length) {
    container.replaceChildren(el('p', { class: 'notice' }, 'summary.json lists no task.'));
    return;
  }
  const body = el('tbody');
  const fill = (rows) => body.replaceChildren(...rows.map((row) => taskRow(row, target, open)));
  const heads = COLUMNS.map((column) => {
    if (!column.value) return el('th', { scope: 'col' }, column.title);
    const head = el('th', { scope: 'col', 'aria-sort': 'none' });
    head.append(el('button', {
      type: 'button', 'data-tip': column.tip,
      onclick: () => {
        const up = head.getAttribute('aria-sort') !== 'ascending';
        heads.forEach((other) => other.hasAttribute('aria-sort') && other.setAttribute('aria-sort', 'none'));
        head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        fill([...tasks].sort(compareBy(column, up ? 1 : -1)));
      },
    }, column.title));
    return head;
  });
  const losses = [target.loss, ...tasks.flatMap((row) => MARKS.map(([, , value]) => value(row)))]
    .filter((value) => isNumber(value) && value > 0);
  STRIP.low = Math.min(STRIP.low, ...losses);
  STRIP.high = Math.max(STRIP.high, ...losses);
  fill(tasks);
  container.replaceChildren(
    el('table', { class: 'tasks' }, el('thead', {}, el('tr', {}, ...heads)), body));
  byId('loss-key').replaceChildren(stripKey(target));
}
