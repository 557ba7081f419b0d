// The lineage graph: a layered layout of our own, drawn as SVG, with pan, zoom and highlighting.
//
// Layout in four steps: (1) a node's layer is the longest path to it; sources move up to their first reader; (2) edges that
// skip layers get a dummy node in each; (3) sweeps order every layer by the mean place of its neighbours; (4) sweeps
// move nodes towards their neighbours as far as the order allows. Deterministic: the same graph looks the same.
const Graph = (() => {
  const W = 208, H = 46, GAP_X = 74, GAP_Y = 16;
  const NS = 'http://www.w3.org/2000/svg';

  function layout(nodes, edges) {
    const parents = new Map(nodes.map(n => [n.id, []])), children = new Map(nodes.map(n => [n.id, []]));
    for (const [a, b] of edges) { parents.get(b).push(a); children.get(a).push(b); }
    const layer = new Map();
    const depth = id => {
      if (!layer.has(id)) { layer.set(id, 0); layer.set(id, Math.max(-1, ...parents.get(id).map(depth)) + 1); }
      return layer.get(id);
    };
    nodes.forEach(n => depth(n.id));
    for (const n of nodes) {
      const readers = children.get(n.id);
      if (!parents.get(n.id).length && readers.length) layer.set(n.id, Math.min(...readers.map(r => layer.get(r))) - 1);
    }
    const layers = [], cells = new Map();
    const cell = (id, at, dummy) => {
      const c = { id, layer: at, dummy, up: [], down: [], y: 0, h: dummy ? 10 : H };
      cells.set(id, c); (layers[at] ||= []).push(c); return c;
    };
    nodes.forEach(n => cell(n.id, layer.get(n.id), false));
    const paths = edges.map(([a, b]) => {
      const path = [cells.get(a)];
      for (let l = layer.get(a) + 1; l < layer.get(b); l++) path.push(cell(`${a}→${b}#${l}`, l, true));
      path.push(cells.get(b));
      for (let i = 1; i < path.length; i++) { path[i - 1].down.push(path[i]); path[i].up.push(path[i - 1]); }
      return path;
    });
    const rank = () => layers.forEach(l => l.forEach((c, i) => { c.i = i; }));
    rank();
    const crossings = () => {
      let n = 0;
      for (const l of layers) {
        const ends = [];
        for (const c of l) for (const d of c.down) ends.push([c.i, d.i]);
        for (let i = 0; i < ends.length; i++) for (let j = i + 1; j < ends.length; j++)
          if ((ends[i][0] - ends[j][0]) * (ends[i][1] - ends[j][1]) < 0) n++;
      }
      return n;
    };
    const mean = cs => cs.length ? cs.reduce((s, c) => s + c.i, 0) / cs.length : -1;
    let best = null, least = Infinity;
    const big = cells.size > 1500;
    for (let sweep = 0; sweep < (big ? 4 : 24); sweep++) {
      const down = sweep % 2 === 0, order = down ? layers : [...layers].reverse();
      for (const l of order) {
        const key = new Map(l.map(c => { const m = mean(down ? c.up : c.down); return [c, m < 0 ? c.i : m]; }));
        l.sort((a, b) => key.get(a) - key.get(b) || a.i - b.i);
        l.forEach((c, i) => { c.i = i; });
      }
      const now = big ? 0 : crossings();
      if (now < least) { least = now; best = layers.map(l => [...l]); }
    }
    if (best) best.forEach((l, i) => { layers[i] = l; });
    rank();
    for (const l of layers) { let y = 0; for (const c of l) { c.y = y; y += c.h + GAP_Y; } }
    const wish = c => {
      const near = [...c.up, ...c.down];
      if (!near.length) return c.y;
      const ys = near.map(n => n.y + n.h / 2).sort((a, b) => a - b), m = ys.length >> 1;
      return (ys.length % 2 ? ys[m] : (ys[m - 1] + ys[m]) / 2) - c.h / 2;
    };
    for (let sweep = 0; sweep < 30; sweep++) {
      for (const l of sweep % 2 ? [...layers].reverse() : layers) {
        // Blocks that want the same place stand side by side around the mean of their wishes.
        const blocks = [];
        for (const c of l) {
          let b = { cells: [c], size: c.h, sum: wish(c), n: 1 };
          b.y = b.sum;
          while (blocks.length) {
            const p = blocks[blocks.length - 1];
            if (p.y + p.size + GAP_Y <= b.y) break;
            blocks.pop();
            const shift = p.size + GAP_Y;
            b = { cells: [...p.cells, ...b.cells], size: shift + b.size, sum: p.sum + b.sum - b.n * shift, n: p.n + b.n };
            b.y = b.sum / b.n;
          }
          blocks.push(b);
        }
        for (const b of blocks) { let y = b.y; for (const c of b.cells) { c.y = y; y += c.h + GAP_Y; } }
      }
    }
    let x = 0;
    const top = Math.min(...[...cells.values()].map(c => c.y));
    for (const l of layers) { for (const c of l || []) { c.x = x; c.y -= top; } x += W + GAP_X; }
    const bottom = Math.max(...[...cells.values()].map(c => c.y + c.h));
    return { cells, paths, width: x - GAP_X, height: bottom };
  }

  const curve = path => {
    const at = (c, right) => [c.x + (right ? W : 0), c.y + c.h / 2];
    let [x, y] = at(path[0], true), d = `M${x} ${y.toFixed(1)}`;
    for (let i = 1; i < path.length; i++) {
      const [tx, ty] = at(path[i], false), mid = (x + tx) / 2;
      d += `C${mid} ${y.toFixed(1)} ${mid} ${ty.toFixed(1)} ${tx - (i === path.length - 1 ? 5 : 0)} ${ty.toFixed(1)}`;
      [x, y] = [tx, ty];
      if (path[i].dummy) { x += W; d += `L${x} ${y.toFixed(1)}`; }
    }
    return d;
  };
  const element = (name, attributes, parent) => {
    const e = document.createElementNS(NS, name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    parent.append(e);
    return e;
  };
  const cut = (text, most) => text.length > most ? text.slice(0, most - 1) + '…' : text;

  // Draws `nodes` ({id, name, sub, kind}) and `edges` ([from, to]) into `box`; `open(id)` is called for a chosen node.
  function draw(box, nodes, edges, { focus, open }) {
    box.replaceChildren();
    const svg = element('svg', { role: 'group', 'aria-label': 'Lineage graph' }, box);
    if (!nodes.length) return;
    const { cells, paths, width, height } = layout(nodes, edges);
    const defs = element('defs', {}, svg);
    const marker = element('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 4, refY: 4, markerWidth: 6, markerHeight: 6, orient: 'auto' }, defs);
    element('path', { d: 'M0 0 8 4 0 8z', class: 'arrow' }, marker);
    const scene = element('g', {}, svg);
    const lines = paths.map(path => {
      const from = path[0].id, to = path[path.length - 1].id;
      return { from, to, line: element('path', { class: 'edge', d: curve(path), 'marker-end': 'url(#arrow)', 'data-from': from, 'data-to': to }, scene) };
    });
    const near = (id, key, other) => {
      const seen = new Set([id]), todo = [id];
      while (todo.length) { const n = todo.pop(); for (const l of lines) if (l[key] === n && !seen.has(l[other])) { seen.add(l[other]); todo.push(l[other]); } }
      return seen;
    };
    const drawn = new Map();
    for (const n of nodes) {
      const c = cells.get(n.id);
      const g = element('g', { class: 'node' + (n.id === focus ? ' focus' : ''), transform: `translate(${c.x} ${c.y.toFixed(1)})`, tabindex: 0, role: 'link', 'data-id': n.id, 'aria-label': `${n.name}, ${n.sub}`, style: `--kind: var(--${n.kind}, var(--faint))` }, scene);
      element('rect', { class: 'box', width: W, height: H, rx: 9 }, g);
      element('rect', { class: 'bar', x: 9, y: 11, width: 4, height: H - 22, rx: 2 }, g);
      element('text', { x: 22, y: 20 }, g).textContent = cut(n.name, 24);
      element('text', { x: 22, y: 35, class: 'sub' }, g).textContent = cut(n.sub, 30);
      element('title', {}, g).textContent = n.name;
      drawn.set(n.id, g);
      const light = on => {
        scene.classList.toggle('lit', on);
        if (!on) return;
        const up = near(n.id, 'to', 'from'), down = near(n.id, 'from', 'to');
        for (const [id, g] of drawn) g.classList.toggle('on', up.has(id) || down.has(id));
        for (const l of lines) l.line.classList.toggle('on', (up.has(l.from) && up.has(l.to)) || (down.has(l.from) && down.has(l.to)));
      };
      g.addEventListener('mouseenter', () => light(true));
      g.addEventListener('mouseleave', () => light(false));
      g.addEventListener('focus', () => light(true));
      g.addEventListener('blur', () => light(false));
      g.addEventListener('keydown', e => { if (e.key === 'Enter') open(n.id); });
      g.addEventListener('click', () => { if (!moved) open(n.id); });
    }
    let view = { x: 0, y: 0, k: 1 }, moved = false;
    const show = () => scene.setAttribute('transform', `translate(${view.x} ${view.y}) scale(${view.k})`);
    const fit = () => {
      const w = box.clientWidth || 800, h = box.clientHeight || 400, pad = 28;
      const k = Math.min((w - 2 * pad) / width, (h - 2 * pad) / height, 1.1);
      view = { k, x: (w - width * k) / 2, y: (h - height * k) / 2 };
      const at = focus && cells.get(focus);
      // Too small to read: keep a readable size and look at the node in question.
      if (at && k < .45) view = { k: .7, x: w / 2 - (at.x + W / 2) * .7, y: h / 2 - (at.y + H / 2) * .7 };
      show();
    };
    const zoom = (factor, x, y) => {
      const k = Math.max(.08, Math.min(3, view.k * factor));
      view = { k, x: x - (x - view.x) * k / view.k, y: y - (y - view.y) * k / view.k };
      show();
    };
    svg.addEventListener('wheel', e => {
      e.preventDefault();
      const r = svg.getBoundingClientRect();
      zoom(Math.exp(-e.deltaY * (e.ctrlKey ? .01 : .0016)), e.clientX - r.left, e.clientY - r.top);
    }, { passive: false });
    let from = null;
    svg.addEventListener('pointerdown', e => { from = { x: e.clientX - view.x, y: e.clientY - view.y, cx: e.clientX, cy: e.clientY }; moved = false; });
    svg.addEventListener('pointermove', e => {
      if (!from) return;
      if (!moved && Math.hypot(e.clientX - from.cx, e.clientY - from.cy) > 4) { moved = true; svg.setPointerCapture(e.pointerId); svg.classList.add('drag'); }
      if (moved) { view.x = e.clientX - from.x; view.y = e.clientY - from.y; show(); }
    });
    const end = () => { from = null; svg.classList.remove('drag'); };
    svg.addEventListener('pointerup', end);
    svg.addEventListener('pointercancel', end);
    const tools = document.createElement('div');
    tools.className = 'tools';
    for (const [label, title, act] of [
      ['+', 'Zoom in', () => zoom(1.25, box.clientWidth / 2, box.clientHeight / 2)],
      ['−', 'Zoom out', () => zoom(.8, box.clientWidth / 2, box.clientHeight / 2)],
      ['⤢', 'Fit', fit],
    ]) {
      const b = document.createElement('button');
      b.type = 'button'; b.textContent = label; b.title = title; b.setAttribute('aria-label', title);
      b.addEventListener('click', act);
      tools.append(b);
    }
    box.append(tools);
    fit();
  }
  return { draw, layout };
})();
