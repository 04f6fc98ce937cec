// Line charts. All charts of one group share the hovered step.

const CHART = { width: 340, height: 190, left: 46, right: 12, top: 12, bottom: 26 };

function tickStep(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
}

function ticks(low, high, count) {
  const step = tickStep(low, high, count);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++)
    values.push(Number((i * step).toPrecision(12)));
  return values;
}

function tickText(value) {
  if (Math.abs(value) >= 1e4)
    return value >= 1e6 ? `${value / 1e6}M` : `${value / 1e3}k`;
  return value !== 0 && Math.abs(value) < 1e-3
    ? value.toExponential(0)
    : String(value);
}

// The y axis begins at zero unless the curve would then be a flat line.
function scales(series) {
  const steps = series.flatMap((s) => s.steps);
  const values = series.flatMap((s) => s.values);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low > 0 && low < 0.7 * high) low = 0;
  if (low === high) [low, high] = [Math.min(0, low), high || 1];
  const step = tickStep(low, high, 4);
  high = Math.ceil(high / step - 1e-6) * step;
  const first = Math.min(...steps);
  const last = Math.max(...steps, first + 1);
  const { width, height, left, right, top, bottom } = CHART;
  return {
    low, high, first, last,
    x: (step) => left + ((step - first) / (last - first)) * (width - left - right),
    y: (value) =>
      height - bottom - ((value - low) / (high - low)) * (height - top - bottom),
  };
}

function axes(scale) {
  const { width, height, left, right, bottom } = CHART;
  const parts = [];
  for (const value of ticks(scale.low, scale.high, 4)) {
    const y = scale.y(value);
    parts.push(
      svgEl('line', { class: 'grid', x1: left, x2: width - right, y1: y, y2: y }),
      svgEl('text', { class: 'tick y', x: left - 6, y: y + 3.5 }, tickText(value)),
    );
  }
  for (const step of ticks(scale.first, scale.last, 4)) {
    const x = scale.x(step);
    parts.push(
      svgEl('line', { class: 'grid notch', x1: x, x2: x,
        y1: height - bottom, y2: height - bottom + 4 }),
      svgEl('text', { class: 'tick x', x, y: height - 8 }, tickText(step)),
    );
  }
  return parts;
}

function nearest(series, step) {
  let best = 0;
  for (let i = 1; i < series.steps.length; i++)
    if (Math.abs(series.steps[i] - step) < Math.abs(series.steps[best] - step))
      best = i;
  return best;
}

// Returns {figure, show(step or null)}; hover(step or null) is called back.
function makeChart(chart, hover) {
  const { width, height, left, right, top, bottom } = CHART;
  const scale = scales(chart.series);
  const lines = chart.series.map((s, i) =>
    svgEl('polyline', {
      class: `curve c${i}`,
      points: s.steps
        .map((step, j) => `${scale.x(step).toFixed(1)},${scale.y(s.values[j]).toFixed(1)}`)
        .join(' '),
    }),
  );
  const cross = svgEl('line', { class: 'cross', y1: top, y2: height - bottom, visibility: 'hidden' });
  const dots = chart.series.map((_, i) =>
    svgEl('circle', { class: `spot c${i}`, r: 3.5, visibility: 'hidden' }),
  );
  const last = chart.series.map((s) => short(s.values.at(-1)));
  const readouts = chart.series.map((_, i) => el('b', {}, last[i]));
  const when = el('span', { class: 'when' }, 'last');
  const svg = svgEl('svg', {
      viewBox: `0 0 ${width} ${height}`, role: 'img', class: 'chart',
      'aria-label': `${chart.title} by step, ` +
        chart.series.map((s, i) => `${s.name} ends at ${last[i]}`).join(', '),
    }, ...axes(scale), ...lines, cross, ...dots);
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    const share = Math.max(0, Math.min(1, (x - left) / (width - left - right)));
    hover(scale.first + share * (scale.last - scale.first));
  });
  svg.addEventListener('pointerleave', () => hover(null));
  const show = (step) => {
    const visible = step === null ? 'hidden' : 'visible';
    cross.setAttribute('visibility', visible);
    chart.series.forEach((s, i) => {
      const at = step === null ? s.steps.length - 1 : nearest(s, step);
      readouts[i].textContent = short(s.values[at]);
      dots[i].setAttribute('visibility', visible);
      dots[i].setAttribute('cx', scale.x(s.steps[at]));
      dots[i].setAttribute('cy', scale.y(s.values[at]));
      if (i > 0) return;
      cross.setAttribute('x1', scale.x(s.steps[at]));
      cross.setAttribute('x2', scale.x(s.steps[at]));
      when.textContent = step === null ? 'last' : `step ${s.steps[at].toLocaleString('en')}`;
    });
  };
  const names = chart.series.map((s, i) =>
    el('span', { class: `series c${i}` }, `${s.name} `, readouts[i]),
  );
  const caption = el('figcaption', {},
    el('span', { class: 'chart-title' }, chart.title),
    el('span', { class: 'chart-unit' }, chart.unit),
    el('span', { class: 'readout' }, ...names, when));
  return { figure: el('figure', {}, caption, svg), show };
}

function drawCharts(container, charts) {
  const made = charts.map((chart) =>
    makeChart(chart, (step) => made.forEach((other) => other.show(step))),
  );
  container.replaceChildren(...made.map((one) => one.figure));
}
