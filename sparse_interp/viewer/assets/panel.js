// What is known of a chosen node: what it is, what feeds it, what it feeds.

function sideOf(circuit, node, end) {
  const [here, there] = end === 'inputs' ? [1, 0] : [0, 1];
  return circuit.edges
    .map((edge, number) => ({ edge: number, node: edge[there], here: edge[here], weight: edge[2] }))
    .filter((link) => link.here === node)
    .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
}

function linkRow(circuit, link, largest, actions) {
  const share = largest ? (100 * Math.abs(link.weight)) / largest : 0;
  const bar = el('i', { class: `bar ${link.weight >= 0 ? 'positive' : 'negative'}` });
  bar.style.width = `${share.toFixed(1)}%`;
  return el('li', {
      onpointerenter: () => actions.lightEdge(link.edge),
      onpointerleave: () => actions.lightEdge(null),
    },
    el('button', { type: 'button', class: 'node-link', onclick: () => actions.choose(link.node) },
      el('i', { class: `swatch ${circuit.kinds[link.node]}` }), circuit.ids[link.node]),
    el('span', { class: 'track' }, bar),
    el('span', { class: 'weight' }, signed(link.weight)));
}

function linkList(title, links, none, circuit, actions) {
  const largest = Math.max(0, ...circuit.edges.map(([, , weight]) => Math.abs(weight)));
  return el('div', { class: 'links' },
    el('h4', {}, title, el('span', { class: 'count' }, String(links.length))),
    links.length
      ? el('ol', {}, ...links.map((link) => linkRow(circuit, link, largest, actions)))
      : el('p', { class: 'muted' }, none));
}

// Nodes of the same residual channel: earlier writes feed a read by identity,
// but in a parallel model not those of the same block.
function streamMates(circuit, node) {
  const channel = circuit.ids[node].split(':').at(-1);
  const layer = (i) => circuit.ids[i].split('.')[0];
  const same = (i) => circuit.ids[i].endsWith(`:${channel}`) &&
    !(circuit.record.model?.parallel_residual && layer(i) === layer(node));
  const mates = circuit.ids.map((_, i) => i).filter(same);
  if (circuit.kinds[node] === 'write')
    return mates.filter((i) => i > node && ['read', 'final'].includes(circuit.kinds[i]));
  return mates.filter((i) => i < node && circuit.kinds[i] === 'write');
}

function streamList(circuit, node, actions) {
  const kind = circuit.kinds[node];
  const channel = Number(circuit.ids[node].split(':').at(-1));
  // Channels of positions stand behind those of the stream.
  const isPosition = kind === 'read' && channel >= (circuit.record.model?.d_model ?? Infinity);
  if (isPosition || !['read', 'write', 'final'].includes(kind)) return null;
  const mates = streamMates(circuit, node);
  const title = kind === 'write' ? 'Read later from the stream by' : 'Written to the stream by';
  const none = kind === 'write'
    ? 'No later node of the circuit reads this channel.'
    : 'No earlier node of the circuit: the channel holds the embedding and what removed nodes leave.';
  return el('div', { class: 'links' }, el('h4', {}, title),
    mates.length
      ? el('p', { class: 'mates' }, ...mates.map((mate) =>
          el('button', { type: 'button', class: 'node-link', onclick: () => actions.choose(mate) },
            el('i', { class: `swatch ${circuit.kinds[mate]}` }), circuit.ids[mate])))
      : el('p', { class: 'muted' }, none));
}

const NO_EDGES = {
  query: ['', 'Queries meet keys in the attention pattern, which is no weight.'],
  key: ['', 'Keys meet queries in the attention pattern, which is no weight.'],
  read: ['No edge: it is read as it is.', ''],
  write: ['', 'It is added to the residual stream.'],
  final: ['It is the residual stream itself.', 'The unembedding reads it; it is not counted.'],
};

function drawPanel(container, circuit, node, words, actions) {
  if (node === null) {
    container.replaceChildren(
      el('h3', {}, 'Choose a node'),
      el('p', { class: 'muted' }, 'Click a node of the drawing, or move to it with the arrow keys ' +
        'and press Enter: its inputs and outputs appear here, and its activation colours the prompts.'));
    return;
  }
  const kind = circuit.kinds[node];
  const [noInputs, noOutputs] = NO_EDGES[kind] ?? ['', ''];
  const facts = [[circuit.means_are, signed(circuit.means[node])]];
  if (isNumber(circuit.scores[node])) facts.push(['pruning score', signed(circuit.scores[node])]);
  container.replaceChildren(
    el('h3', {}, el('i', { class: `swatch ${kind}` }), circuit.ids[node]),
    el('p', {}, words),
    el('dl', { class: 'node-facts' },
      ...facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value)))),
    linkList('Inputs', sideOf(circuit, node, 'inputs'), noInputs || 'None in the circuit.', circuit, actions),
    linkList('Outputs', sideOf(circuit, node, 'outputs'), noOutputs || 'None in the circuit.', circuit, actions),
    streamList(circuit, node, actions) ?? '');
}
