// Puts the page together. The chosen circuit and node live in the address
// (#circuit=name&node=site:channel), so a link to them can be shared.

let current = null;

function hashOf(task, node) {
  const part = (text) => encodeURIComponent(text).replaceAll('%3A', ':');
  return `#circuit=${part(task)}` + (node === null ? '' : `&node=${part(node)}`);
}

function go(task, node) {
  const hash = hashOf(task, node);
  if (location.hash === hash) followHash();
  else location.hash = hash;
}

function followHash() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const name = asked.get('circuit');
  const found = DATA.circuits.findIndex((circuit) => circuit.name === name);
  if (found >= 0) {
    if (current?.number !== found) openCircuit(found);
    const node = DATA.circuits[found].ids.indexOf(asked.get('node'));
    current.choose(node < 0 ? null : node);
  } else if (!current && DATA.circuits.length) {
    openCircuit(0);
    current.choose(null);
  }
}

function openTask(name) {
  go(name, null);
  byId('circuits').scrollIntoView();
}

function definitions(entries) {
  return entries.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value)));
}

function circuitFigures(circuit) {
  const m = circuit.record.metrics ?? {};
  const figure = (name, tip, key) =>
    el('div', { 'data-tip': tip }, el('dt', {}, name), el('dd', {}, loss(m[key]),
      el('span', { class: 'range' }, interval(m[`${key}_interval`]))));
  const measured = (name, tip, key) => (isNumber(m[key]) ? figure(name, tip, key) : null);
  return el('dl', { class: 'figures' },
    el('div', {}, el('dt', {}, 'nodes'), el('dd', {}, short(circuit.ids.length))),
    el('div', {}, el('dt', {}, 'edges'), el('dd', {}, short(circuit.edges.length))),
    figure('circuit alone', 'test loss of the circuit, everything else ablated, with its scale and shift', 'test_loss'),
    figure('raw', 'the same with scale 1 and shift 0', 'raw_loss'),
    el('div', { 'data-tip': 'what multiplies the difference of the two logits, and what is added' },
      el('dt', {}, 'scale, shift'), el('dd', {}, calibrationText(circuit.record.calibration ?? {}))),
    measured('KL', 'from the full model to the circuit with its scale and shift, over the two answers, on test pairs', 'test_kl'),
    measured('raw KL', 'the same with scale 1 and shift 0', 'raw_kl'),
    figure('full model', 'test loss of the full model', 'full_loss'),
    figure('without circuit, raw', 'necessity: test loss of the full model, the circuit ablated, without scale and shift', 'necessity_loss'),
    measured('without circuit', 'necessity: the same with the scale and the shift that suit it best: a bias is no ignorance', 'calibrated_necessity_loss'),
    measured('ranked right', 'share of pairs whose side a prefers its own answer more than side b does, circuit alone', 'ranked_right'),
    measured('ranked right without', 'the same of the full model with the circuit ablated; 0.5 is chance', 'ablated_ranked_right'),
    measured('agreement', 'share of prompts on which circuit and full model prefer the same answer', 'agreement'),
    measured('listed only', 'test loss with what is removed constant wherever it is read: only what is listed computes', 'listed_loss'),
    measured('share of the model', 'kept nodes (or edges, if they carry gates) of those that lead anywhere', 'size_share'),
    isNumber(m.droppable_units) ? el('div', { 'data-tip': 'kept units of which each could be left out alone' },
      el('dt', {}, 'droppable'), el('dd', {}, short(m.droppable_units))) : null,
    ...Object.entries(m.under ?? {}).map(([kind, losses]) =>
      el('div', { 'data-tip': `raw loss of the circuit where removed parts take: ${kind}` },
        el('dt', {}, kind), el('dd', {}, loss(losses.raw_loss),
          el('span', { class: 'range' }, interval(losses.raw_loss_interval))))),
    figure('random circuit', 'mean test loss of random circuits of the same size, with scales and shifts of their own', 'random_loss'),
    measured('raw random', 'the same with scale 1 and shift 0', 'raw_random_loss'));
}

function drawingTools(number, circuit, drawing, frame) {
  const count = el('output', {}, `${circuit.edges.length} edges`);
  const slider = el('input', {
    type: 'range', min: '0', max: '1', step: '0.02', value: '0',
    oninput: (event) => {
      const shown = hideLightEdges(drawing.svg, circuit, Number(event.target.value));
      count.textContent = `${shown} of ${circuit.edges.length} edges`;
    },
  });
  const fit = el('input', {
    type: 'checkbox', id: 'fit',
    onchange: (event) => frame.classList.toggle('fit', event.target.checked),
  });
  const file = circuit.name.replaceAll(/[^\w.-]+/g, '_');
  return el('p', { class: 'tools' },
    el('label', {}, 'hide light edges ', slider), count,
    el('label', {}, fit, ' fit to width'),
    el('span', { class: 'downloads' }, 'download ',
      el('a', { href: jsonDownload(circuit), download: `${file}.json` }, 'json'), ' · ',
      el('a', { href: svgDownload(number), download: `${file}.svg` }, 'svg')));
}

function openCircuit(number) {
  const circuit = DATA.circuits[number];
  const { record } = circuit;
  const frame = el('div', { class: 'frame', tabindex: '-1' });
  const drawing = mountDrawing(frame, number, (node) =>
    go(circuit.name, node === null ? null : circuit.ids[node]));
  const panel = el('aside', { class: 'panel', 'aria-live': 'polite' });
  const prompts = el('div', { class: 'prompts' });
  const history = el('div', { class: 'charts' });
  const legend = byId('legend').content.cloneNode(true);
  byId('circuit').replaceChildren(
    el('div', { class: 'circuit-head' },
      el('div', {}, el('h3', {}, circuit.name === record.task ? record.task : `${record.task} (${circuit.name})`),
        circuit.standing ? el('p', { class: 'standing' }, circuit.standing) : null,
        el('p', {}, record.description ?? ''),
        circuit.target ? el('p', { class: 'muted' }, `Asked for: ${circuit.target} on test pairs.`) : null,
        el('p', { class: 'muted' }, `Where parts are removed, ${circuit.ablation}.`),
        conditionLine('circuit', record.metrics?.test_conditions)),
      circuitFigures(circuit)),
    drawingTools(number, circuit, drawing, frame),
    frame,
    el('div', { class: 'legend-frame' }, legend),
    el('div', { class: 'detail' }, panel, prompts),
    el('details', {}, el('summary', {}, 'How it was measured'),
      el('dl', { class: 'formulas' }, ...definitions(circuit.formulas))),
    el('details', {}, el('summary', {}, 'How it was pruned'), history,
      el('pre', { class: 'config' }, JSON.stringify({
        ablation: record.ablation, calibration: record.calibration,
        prune_config: record.prune_config, provenance: record.provenance,
      }, null, 2))));
  drawCharts(history, circuit.history);
  for (const button of byId('circuit-choice').children)
    button.setAttribute('aria-pressed', String(Number(button.dataset.circuit) === number));

  const rows = unpack(circuit);
  const words = [...drawing.svg.querySelectorAll('.node')].map((node) =>
    node.dataset.tip.split('\n').slice(1).join(' '));
  const actions = {
    lightEdge: drawing.lightEdge,
    choose: (node) => go(circuit.name, circuit.ids[node]),
  };
  const choose = (node) => {
    drawing.select(node);
    drawPanel(panel, circuit, node, node === null ? '' : words[node], actions);
    drawPrompts(prompts, record.examples, node === null ? null : rows[node], circuit.activations_are);
  };
  current = { number, choose };
}

function drawNonzeros(container) {
  const rows = Object.entries(DATA.nonzeros).map(([name, entry]) =>
    el('tr', { class: entry.asked === entry.found ? null : 'off' },
      el('th', { scope: 'row' }, name),
      ...[entry.asked, entry.found, entry.size].map((value) =>
        el('td', { class: 'number' }, isNumber(value) ? value.toLocaleString('en') : '–')),
      el('td', { class: 'number' }, short(entry.found / entry.size))));
  const heads = ['tensor', 'asked', 'found', 'size', 'density'];
  container.replaceChildren(el('table', {},
    el('thead', {}, el('tr', {}, ...heads.map((head) => el('th', { scope: 'col' }, head)))),
    el('tbody', {}, ...rows)));
}

function start() {
  startTips();
  document.title = DATA.title;
  byId('title').textContent = DATA.title;
  byId('lead').textContent = DATA.lead;
  byId('outside').textContent = DATA.outside;
  byId('tiles').replaceChildren(...DATA.tiles.map(([figure, words]) =>
    el('div', { class: 'tile' }, el('b', {}, figure), el('span', {}, words))));
  if (DATA.curves.length) drawCharts(byId('curves'), DATA.curves);
  else byId('curves').replaceChildren(el('p', { class: 'notice' }, 'This workdir holds no training metrics.'));
  drawTasks(byId('task-table'), DATA.tasks, DATA.target, openTask);
  byId('method').replaceChildren(...definitions(DATA.method));
  byId('facts').replaceChildren(...definitions(DATA.facts));
  drawNonzeros(byId('nonzeros'));
  byId('config').textContent = JSON.stringify(DATA.config, null, 2);
  byId('circuit-choice').replaceChildren(...DATA.circuits.map((circuit, i) =>
    el('button', { type: 'button', 'data-circuit': i, 'aria-pressed': 'false',
      onclick: () => go(circuit.name, null) }, circuit.name)));
  if (!DATA.circuits.length)
    byId('circuit').replaceChildren(el('p', { class: 'notice' },
      `This workdir holds no circuit.${DATA.tasks.length ? ' The task table says why for each task.' : ''}`));
  addEventListener('hashchange', followHash);
  followHash();
  if (location.hash.startsWith('#circuit=')) byId('circuits').scrollIntoView();
  document.documentElement.dataset.ready = 'yes';
}

start();
