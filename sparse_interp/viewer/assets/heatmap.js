// The example prompts, coloured by the activation of a chosen node.

// Undoes pack() of payload.py: row by row, little-endian int16 times a scale.
function unpack(circuit) {
  const bytes = Uint8Array.from(atob(circuit.activations), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const width = circuit.ids.length ? bytes.length / 2 / circuit.ids.length : 0;
  return circuit.scale.map((scale, row) =>
    Array.from({ length: width }, (_, i) => scale * view.getInt16(2 * (row * width + i), true)),
  );
}

// [begin, end) of what differs between two prompts of a pair.
function differing(here, there) {
  let begin = 0;
  while (begin < here.length && here[begin] === there[begin]) begin++;
  let end = here.length;
  const shift = there.length - here.length;
  while (end > begin && end + shift > begin && here[end - 1] === there[end - 1 + shift]) end--;
  return [begin, end];
}

function tokenText(piece) {
  // A line break is shown as a sign, and then made.
  const parts = piece.split('\n').flatMap((part, i) =>
    i ? [el('span', { class: 'sign' }, '⏎'), '\n', part] : [part]);
  return parts.filter((part) => part !== '');
}

function tokenSpan(piece, position, last, value, largest, differs, whose) {
  const span = el('span', {
    class: ['token', last ? 'last' : '', differs ? 'differs' : ''].join(' ').trim(),
    'data-tip': `${JSON.stringify(piece)} at ${position}` +
      (value === null ? '' : `\nactivation ${signed(value)} ${whose}`) +
      (last ? '\nthe answer is read here' : ''),
  }, ...tokenText(piece));
  if (value !== null && value !== 0) {
    span.classList.add(value > 0 ? 'positive' : 'negative');
    const share = largest ? Math.abs(value) / largest : 0;
    span.style.setProperty('--level', `${(8 + 62 * share).toFixed(1)}%`);
  }
  return span;
}

function percent(value) {
  return isNumber(value) ? `${(100 * value).toFixed(1)}%` : '–';
}

function promptFigure(example, partner, values, largest, whose) {
  const last = example.pieces.length - 1;
  const [begin, end] = partner ? differing(example.pieces, partner.pieces) : [0, 0];
  const tokens = example.pieces.map((piece, i) =>
    tokenSpan(piece, i, i === last, values ? values[i] : null, largest, i >= begin && i < end, whose));
  const verdict = example.probability > 0.5 ? 'right' : example.probability < 0.5 ? 'wrong' : '';
  const others = [['raw', example.raw_probability], ['full model', example.full_probability]]
    .filter(([, value]) => isNumber(value)).map(([name, value]) => `${name} ${percent(value)}`);
  return el('figure', { class: 'prompt' },
    el('figcaption', {},
      el('span', { class: 'side' }, example.side ?? ''),
      el('span', {}, 'answer ', el('code', { class: 'answer' }, shown(example.answer))),
      el('span', { class: 'muted' }, 'not ', el('code', {}, shown(example.other_answer))),
      el('span', { class: `sure ${verdict}`, 'data-tip': 'how probable the circuit makes this answer, of the two, with its scale and shift' },
        `circuit ${percent(example.probability)}`),
      others.length ? el('span', { class: 'sure muted', 'data-tip': 'raw: the circuit with scale 1 and shift 0; full model: nothing ablated' },
        others.join(', ')) : null),
    el('pre', {}, ...tokens));
}

function shown(text) {
  return String(text ?? '').replaceAll('\n', '⏎').replaceAll(' ', '␣');
}

// Puts prompts of a pair side by side; `row` is null or a row of unpack(), and
// `whose` says in which model the values were seen.
function drawPrompts(container, examples, row, whose) {
  if (!examples.length) {
    container.replaceChildren(el('p', { class: 'notice' }, 'No example prompts were stored.'));
    return;
  }
  const largest = row ? Math.max(0, ...row.map(Math.abs)) : 0;
  const pairs = [];
  let offset = 0;
  examples.forEach((example, i) => {
    const values = row ? row.slice(offset, offset + example.pieces.length) : null;
    offset += example.pieces.length;
    const mate = example.side === 'b' ? examples[i - 1] : examples[i + 1];
    const figure = promptFigure(example, mate && mate.side !== example.side ? mate : null, values, largest, whose);
    if (example.side === 'b' && pairs.length) pairs.at(-1).append(figure);
    else pairs.push(el('div', { class: 'pair' },
      el('p', { class: 'condition' }, `pair ${pairs.length + 1}`,
        example.condition ? ` · ${example.condition}` : ''), figure));
  });
  container.replaceChildren(heatKey(row, largest, whose), ...pairs);
}

function heatKey(row, largest, whose) {
  const signs = el('span', { class: 'muted' },
    el('span', { class: 'token differs' }, 'differs'), ' between the two prompts, ',
    el('span', { class: 'token last' }, 'last'), ' token, where the answer is read');
  if (!row) return el('p', { class: 'heat-key' }, signs);
  return el('p', { class: 'heat-key' },
    el('span', { class: 'scale' }, signed(-largest), el('i', { class: 'ramp' }), signed(largest)),
    el('span', {}, `activation ${whose}`),
    signs);
}
