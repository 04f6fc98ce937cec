// Behaviour of a drawn circuit: what is near a node lights up, and a node can
// be chosen by pointer or by keyboard.

// Returns {svg, light(node or null), lightEdge(edge or null), select(node)}.
function mountDrawing(frame, number, choose) {
  const svg = byId(`drawing-${number}`).content.firstElementChild.cloneNode(true);
  svg.setAttribute('role', 'group');
  svg.setAttribute('aria-label', 'Drawing of the circuit; arrow keys move between nodes');
  const nodes = [...svg.querySelectorAll('.node')];
  const links = [...svg.querySelectorAll('.edge, .stream')];
  let chosen = null;

  for (const title of svg.querySelectorAll('title')) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  nodes.forEach((node, i) => {
    node.setAttribute('role', 'button');
    node.setAttribute('tabindex', i === 0 ? '0' : '-1');
    node.setAttribute('aria-label', node.dataset.tip);
    node.setAttribute('aria-pressed', 'false');
  });

  const clear = () => {
    svg.classList.remove('focused');
    for (const lit of svg.querySelectorAll('.lit')) lit.classList.remove('lit');
  };
  const lightEnds = (link) => {
    link.classList.add('lit');
    nodes[link.dataset.source].classList.add('lit');
    nodes[link.dataset.target].classList.add('lit');
  };
  const light = (node) => {
    clear();
    const shown = node ?? chosen;
    if (shown === null) return;
    svg.classList.add('focused');
    nodes[shown].classList.add('lit');
    const name = String(shown);
    for (const link of links)
      if (link.dataset.source === name || link.dataset.target === name) lightEnds(link);
  };
  const lightEdge = (edge) => {
    if (edge === null) return light(null);
    clear();
    svg.classList.add('focused');
    lightEnds(svg.querySelector(`[data-edge="${edge}"]`));
  };
  const select = (node) => {
    chosen = node;
    nodes.forEach((one, i) => {
      one.classList.toggle('chosen', i === node);
      one.setAttribute('aria-pressed', String(i === node));
    });
    if (node !== null) {
      giveFocusTo(node, false);
      bringIntoView(frame, nodes[node]);
    }
    light(null);
  };
  // One tab stop for the whole drawing; arrow keys move it.
  const giveFocusTo = (node, really) => {
    nodes.forEach((one, i) => one.setAttribute('tabindex', i === node ? '0' : '-1'));
    if (really) nodes[node].focus();
  };

  svg.addEventListener('pointerover', (event) => {
    const node = event.target.closest('.node');
    const edge = event.target.closest('.edge');
    if (node) light(Number(node.dataset.node));
    else lightEdge(edge ? Number(edge.dataset.edge) : null);
  });
  svg.addEventListener('pointerleave', () => light(null));
  svg.addEventListener('focusin', (event) => {
    const node = event.target.closest('.node');
    if (node) light(Number(node.dataset.node));
  });
  svg.addEventListener('focusout', () => light(null));
  svg.addEventListener('click', (event) => {
    const node = event.target.closest('.node');
    if (node) choose(Number(node.dataset.node));
  });
  svg.addEventListener('keydown', (event) => {
    const node = event.target.closest('.node');
    if (!node) return;
    if (event.key === 'Enter' || event.key === ' ') choose(Number(node.dataset.node));
    else if (event.key === 'Escape') choose(null);
    else if (event.key in ARROWS) giveFocusTo(neighbourOf(node, nodes, ARROWS[event.key]), true);
    else return;
    event.preventDefault();
  });
  frame.replaceChildren(svg);
  return { svg, light, lightEdge, select };
}

// Scrolls the frame alone, and only when the node is out of sight.
function bringIntoView(frame, node) {
  const outer = frame.getBoundingClientRect();
  const inner = node.getBoundingClientRect();
  if (inner.left < outer.left || inner.right > outer.right)
    frame.scrollLeft += (inner.left + inner.right - outer.left - outer.right) / 2;
  if (inner.top < outer.top || inner.bottom > outer.bottom)
    frame.scrollTop += (inner.top + inner.bottom - outer.top - outer.bottom) / 2;
}

const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

// The nearest node in a direction; going sideways counts double.
function neighbourOf(node, nodes, [dx, dy]) {
  const at = (one) => {
    const { e, f } = one.transform.baseVal.consolidate().matrix;
    return [e, f];
  };
  const [x, y] = at(node);
  let best = Number(node.dataset.node);
  let least = Infinity;
  nodes.forEach((other, i) => {
    const [u, v] = at(other);
    const along = (u - x) * dx + (v - y) * dy;
    const aside = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
    if (other === node || along <= 1 || along + 2 * aside >= least) return;
    [best, least] = [i, along + 2 * aside];
  });
  return best;
}

// Hides edges below a share of the largest weight.
function hideLightEdges(svg, circuit, share) {
  const largest = Math.max(0, ...circuit.edges.map(([, , weight]) => Math.abs(weight)));
  let shown = 0;
  for (const edge of svg.querySelectorAll('.edge')) {
    const weight = Math.abs(circuit.edges[edge.dataset.edge][2]);
    const hide = weight < share * largest;
    edge.classList.toggle('hidden', hide);
    shown += !hide;
  }
  return shown;
}

// The drawing as a file: the markup as Python wrote it, and its style.
function svgDownload(number) {
  const svg = byId(`drawing-${number}`).content.firstElementChild.cloneNode(true);
  const style = byId('circuit-style').content.textContent;
  const { width, height } = svg.viewBox.baseVal;
  svg.prepend(
    svgEl('style', {}, style),
    svgEl('rect', { class: 'paper', width, height }),
  );
  const text = new XMLSerializer().serializeToString(svg);
  return `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
}

function jsonDownload(circuit) {
  const edges = circuit.edges.map(([source, target, weight]) => ({
    source: circuit.ids[source], target: circuit.ids[target], weight,
  }));
  const means = Object.fromEntries(circuit.ids.map((id, i) => [id, circuit.means[i]]));
  const { history, ...record } = circuit.record;
  const note = 'weights and means are rounded to 4 digits; circuit.npz has all';
  const text = JSON.stringify({ note, ...record, edges, means }, null, 1);
  return `data:application/json;charset=utf-8,${encodeURIComponent(text)}`;
}
