// The documentation of one project: manifest, catalog and last results, embedded in the page or fetched beside it.
(async () => {
  'use strict';
  const $ = (selector, root = document) => root.querySelector(selector);
  const main = $('#main');
  // Every text that comes from a project passes through here before it becomes HTML.
  const esc = text => String(text ?? '').replace(/[&<>"']/g, c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c]);

  // ---- Data ----
  async function read() {
    const embedded = $('#data');
    if (embedded) return JSON.parse(embedded.textContent);
    const get = async (name, needed) => {
      const answer = await fetch(name).catch(() => null);
      if (answer?.ok) return answer.json();
      if (needed) throw new Error(`${name} cannot be read: run "smelt docs generate", and open this page through "smelt docs serve"`);
      return null;
    };
    const [manifest, catalog, results] = await Promise.all([get('manifest.json', true), get('catalog.json', true), get('last_results.json', true)]);
    return { manifest, catalog, results };
  }
  let data;
  try { data = await read(); } catch (e) { main.innerHTML = `<p class="problem">${esc(e.message)}</p>`; return; }
  const { manifest, catalog, results } = data;
  const project = manifest.metadata.project_name;
  $('#project').textContent = project;

  const nodes = new Map();
  const tests = new Map();
  for (const n of Object.values(manifest.nodes)) {
    if (n.resource_type === 'test') {
      for (const id of n.attached_node ? [n.attached_node] : n.depends_on.nodes) (tests.get(id) || tests.set(id, []).get(id)).push(n);
    } else if (!n.resource_type.endsWith('operation')) nodes.set(n.unique_id, n);
  }
  for (const group of [manifest.sources, manifest.exposures]) for (const n of Object.values(group)) nodes.set(n.unique_id, n);
  const kindOf = n => n.resource_type === 'model' ? n.config.materialized : n.resource_type;
  const kindName = n => kindOf(n).replace(/_/g, ' ');
  const title = n => n.resource_type === 'source' ? `${n.source_name}.${n.name}` : n.label || n.name;
  const style = n => `style="--kind: var(--${esc(kindOf(n))}, var(--faint))"`;
  const cataloged = id => catalog?.nodes?.[id] || catalog?.sources?.[id];
  const stat = (id, key) => cataloged(id)?.stats?.[key]?.value;
  const outcome = new Map((results?.results || []).map(r => [r.unique_id, r]));
  const edges = [];
  for (const [id, parents] of Object.entries(manifest.parent_map)) for (const p of parents) if (nodes.has(id) && nodes.has(p)) edges.push([p, id]);
  const parentsOf = id => edges.filter(e => e[1] === id).map(e => e[0]), childrenOf = id => edges.filter(e => e[0] === id).map(e => e[1]);

  // ---- Text ----
  const number = n => Number(n).toLocaleString('en-US');
  const bytes = n => { const units = ['B', 'KB', 'MB', 'GB', 'TB']; let i = 0; n = Number(n); while (n >= 1000 && i < 4) { n /= 1000; i++; } return `${n >= 100 || !i ? Math.round(n) : n.toFixed(1)} ${units[i]}`; };
  const instant = text => String(text).replace('T', ' ').replace(/(\.\d+)?Z$/, ' UTC');
  const href = id => `#/node/${encodeURIComponent(id)}`;

  // Markdown, as far as descriptions need it; raw HTML stays text.
  function markdown(source) {
    const inline = text => {
      const kept = [];
      const keep = html => `\u0001${kept.push(html) - 1}\u0001`;
      text = text.replace(/`([^`]+)`/g, (_, code) => keep(`<code>${esc(code)}</code>`));
      text = text.replace(/\[([^\]]+)\]\(([^)\s]+)\)/g, (all, label, url) => /^(https?:|mailto:|#)/.test(url) ? keep(`<a href="${esc(url)}" rel="noopener">${esc(label)}</a>`) : all);
      text = esc(text).replace(/\*\*([^*]+)\*\*/g, '<strong>$1</strong>').replace(/(^|\W)\*([^*\s][^*]*)\*/g, '$1<em>$2</em>').replace(/(^|\W)_([^_\s][^_]*)_(?=\W|$)/g, '$1<em>$2</em>');
      return text.replace(/\u0001(\d+)\u0001/g, (_, i) => kept[i]);
    };
    const out = [], lines = String(source || '').replace(/\u0001/g, '').split(/\r?\n/);
    for (let i = 0; i < lines.length;) {
      const line = lines[i];
      let m;
      if (/^\s*$/.test(line)) i++;
      else if (/^```/.test(line)) {
        const code = [];
        for (i++; i < lines.length && !/^```/.test(lines[i]); i++) code.push(lines[i]);
        i++; out.push(`<pre><code>${esc(code.join('\n'))}</code></pre>`);
      } else if ((m = /^(#{1,6})\s+(.*)/.exec(line))) { out.push(`<h3>${inline(m[2])}</h3>`); i++; }
      else if (/^\s*([-*+]|\d+[.)])\s+/.test(line)) {
        const items = [], tag = /^\s*\d/.test(line) ? 'ol' : 'ul';
        for (; i < lines.length && lines[i].trim(); i++) {
          const item = /^\s*(?:[-*+]|\d+[.)])\s+(.*)/.exec(lines[i]);
          if (item) items.push(item[1]); else items[items.length - 1] += ' ' + lines[i].trim();
        }
        out.push(`<${tag}>${items.map(t => `<li>${inline(t)}</li>`).join('')}</${tag}>`);
      } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|?[\s:|-]+\|?\s*$/.test(lines[i + 1] || '')) {
        const row = l => l.trim().replace(/^\||\|$/g, '').split('|').map(c => inline(c.trim()));
        const head = row(line), body = [];
        for (i += 2; i < lines.length && /\|/.test(lines[i]); i++) body.push(row(lines[i]));
        out.push(`<table><tr>${head.map(c => `<th>${c}</th>`).join('')}</tr>${body.map(r => `<tr>${r.map(c => `<td>${c}</td>`).join('')}</tr>`).join('')}</table>`);
      } else {
        const text = [];
        for (; i < lines.length && lines[i].trim() && !/^(```|#{1,6}\s|\s*[-*+]\s)/.test(lines[i]); i++) text.push(lines[i].trim());
        if (!text.length) text.push(lines[i++]);
        out.push(`<p>${inline(text.join(' '))}</p>`);
      }
    }
    return out.join('');
  }

  const KEYWORDS = new Set('select from where group by having order limit offset qualify with as on using join inner left right full outer cross semi anti union all intersect except distinct case when then else end and or not in is null like ilike between exists cast try_cast over partition rows range groups preceding following unbounded current row interval true false asc desc nulls first last lateral unnest values filter insert into update delete create table view recursive any some escape at time zone within stream'.split(' '));
  function highlight(sql) {
    const token = /(\{#[\s\S]*?#\}|\{\{[\s\S]*?\}\}|\{%[\s\S]*?%\})|(--[^\n]*|\/\*[\s\S]*?\*\/)|('(?:[^']|'')*')|("(?:[^"]|"")*"|`[^`]*`)|(\b\d+(?:\.\d+)?\b)|([A-Za-z_]\w*)/g;
    let out = '', at = 0, m;
    const put = (cls, text) => { out += text.split('\n').map(part => cls && part ? `<span class="${cls}">${esc(part)}</span>` : esc(part)).join('\n'); };
    while ((m = token.exec(sql))) {
      put('', sql.slice(at, m.index));
      put(m[1] ? 'jin' : m[2] ? 'com' : m[3] ? 'str' : m[5] ? 'num-lit' : m[6] && KEYWORDS.has(m[6].toLowerCase()) ? 'kw' : '', m[0]);
      at = token.lastIndex;
    }
    put('', sql.slice(at));
    return out.split('\n').map(l => `<span class="l">${l}</span>`).join('');
  }

  // ---- Sidebar ----
  function tree() {
    const leaf = n => `<li><a href="${href(n.unique_id)}" data-id="${esc(n.unique_id)}" ${style(n)} title="${esc(title(n))}"><i class="dot"></i><span>${esc(n.resource_type === 'source' ? n.name : title(n))}</span></a></li>`;
    const folder = (name, html, count, root) => `<details open class="${root ? 'root' : ''}"><summary>${esc(name)}<span class="n">${count}</span></summary><ul>${html}</ul></details>`;
    const grouped = (list, path) => {
      const root = { folders: new Map(), leaves: [] };
      for (const n of list) {
        let at = root;
        for (const part of path(n)) at = at.folders.get(part) || at.folders.set(part, { folders: new Map(), leaves: [] }).get(part);
        at.leaves.push(n);
      }
      const count = f => f.leaves.length + [...f.folders.values()].reduce((s, x) => s + count(x), 0);
      const html = f => [...f.folders].map(([name, x]) => `<li>${folder(name, html(x), count(x))}</li>`).join('') + f.leaves.sort((a, b) => title(a) < title(b) ? -1 : 1).map(leaf).join('');
      return html(root);
    };
    const all = [...nodes.values()], of = (...types) => all.filter(n => types.includes(n.resource_type));
    const section = (name, list, path) => list.length ? folder(name, grouped(list, path), list.length, true) : '';
    const own = n => n.fqn.slice(n.package_name === project ? 1 : 0, -1);
    $('#tree').innerHTML =
      section('Sources', of('source'), n => [n.source_name]) + section('Models', of('model'), own) +
      section('Snapshots', of('snapshot'), () => []) + section('Seeds', of('seed'), () => []) + section('Exposures', of('exposure'), () => []);
  }

  // ---- Pages ----
  const card = (head, body, count, right) => `<section class="card"><header><h2>${head}</h2>${count === undefined ? '' : `<span class="count">${count}</span>`}${right ? `<div class="right">${right}</div>` : ''}</header>${body}</section>`;
  const row = id => {
    const n = nodes.get(id), rows = stat(id, 'num_rows');
    return `<li><a href="${href(id)}" ${style(n)}><i class="dot"></i>${esc(title(n))}<span class="what">${esc(kindName(n))}${rows === undefined || rows === null ? '' : ` · ${number(rows)} rows`}</span></a></li>`;
  };
  const list = ids => ids.length ? `<ul class="rows">${ids.map(row).join('')}</ul>` : '<p class="empty">Nothing</p>';
  const chip = t => {
    const status = outcome.get(t.unique_id)?.status, name = t.test_metadata?.name || t.name, own = { ...(t.test_metadata?.kwargs || {}) };
    delete own.model; delete own.column_name;
    const more = Object.values(own).map(v => typeof v === 'string' ? v : JSON.stringify(v)).join(' ');
    return `<span class="chip ${esc(status || '')}" title="${esc(`${t.name}${status ? `: ${status}` : ''}${more ? `\n${more}` : ''}`)}">${esc(name.replace(/_/g, ' '))}</span>`;
  };

  function overview() {
    const all = [...nodes.values()], count = type => all.filter(n => n.resource_type === type).length;
    const models = all.filter(n => n.resource_type === 'model' || n.resource_type === 'snapshot' || n.resource_type === 'seed');
    const total = key => models.reduce((s, n) => s + Number(stat(n.unique_id, key) || 0), 0);
    const statuses = {};
    for (const r of outcome.values()) statuses[r.status] = (statuses[r.status] || 0) + 1;
    const tile = (value, label) => `<div class="tile"><b>${value}</b><span>${label}</span></div>`;
    const tags = {};
    for (const n of all) for (const t of n.tags || []) (tags[t] ||= []).push(n);
    main.innerHTML = `<div class="page">
      <div class="title"><div class="crumbs">${esc(manifest.metadata.adapter_type || '')} · generated ${esc(instant(manifest.metadata.generated_at))}</div><h1>${esc(project)}</h1></div>
      <div class="tiles">${tile(count('model'), 'models')}${tile(count('source'), 'sources')}${tile(count('snapshot'), 'snapshots')}${tile(Object.values(manifest.nodes).filter(n => n.resource_type === 'test').length, 'data tests')}${catalog ? tile(number(total('num_rows')), 'rows') + tile(bytes(total('num_bytes')), 'in the lake') : ''}</div>
      ${card('Lineage', '<div class="graph" id="lineage"></div>', `${all.length} nodes, ${edges.length} edges`, '<a class="plain" href="#/graph">Full screen</a>')}
      ${card('Tables', `<div class="scroll"><table><thead><tr><th>Name</th><th>Kind</th><th>Description</th><th>Rows</th><th>Size</th><th>Tests</th></tr></thead><tbody>${models.sort((a, b) => (a.schema + a.name < b.schema + b.name ? -1 : 1)).map(n => `<tr><td class="name"><a href="${href(n.unique_id)}">${esc(n.name)}</a></td><td><span class="badge kind" ${style(n)}>${esc(kindName(n))}</span></td><td><div class="md">${markdown(n.description)}</div></td><td class="num">${stat(n.unique_id, 'num_rows') === undefined ? '' : number(stat(n.unique_id, 'num_rows'))}</td><td class="num">${stat(n.unique_id, 'num_bytes') === undefined ? '' : bytes(stat(n.unique_id, 'num_bytes'))}</td><td class="num">${(tests.get(n.unique_id) || []).length || ''}</td></tr>`).join('')}</tbody></table></div>`, models.length)}
      <div class="cols2">${outcome.size ? card(`Last command: ${esc(results.args?.which || '')}`, `<dl class="facts" style="margin:0">${Object.entries(statuses).map(([s, n]) => `<div><dt>${esc(s)}</dt><dd class="${esc(s)}">${n}</dd></div>`).join('')}<div><dt>took</dt><dd>${Number(results.elapsed_time).toFixed(1)} s</dd></div></dl>`, instant(results.metadata.generated_at)) : ''}
      ${Object.keys(tags).length ? card('Tags', `<div class="in">${Object.entries(tags).sort().map(([t, ns]) => `<a class="badge tag" href="#/tag/${encodeURIComponent(t)}">${esc(t)} <span>${ns.length}</span></a> `).join('')}</div>`) : ''}</div>
    </div>`;
    lineage($('#lineage'), all.map(n => n.unique_id));
  }

  function tagged(tag) {
    const ids = [...nodes.values()].filter(n => (n.tags || []).includes(tag)).map(n => n.unique_id);
    main.innerHTML = `<div class="page"><div class="title"><div class="crumbs">tag</div><h1>${esc(tag)}</h1></div>${card('Tagged', list(ids), ids.length)}${card('Lineage', '<div class="graph" id="lineage"></div>')}</div>`;
    lineage($('#lineage'), ids);
  }

  // `ids` and the edges among them.
  function lineage(box, ids, focus) {
    const among = new Set(ids);
    const shown = ids.map(id => { const n = nodes.get(id), rows = stat(id, 'num_rows'); return { id, name: title(n), sub: kindName(n) + (rows === undefined || rows === null ? '' : ` · ${number(rows)} rows`), kind: kindOf(n) }; });
    Graph.draw(box, shown, edges.filter(([a, b]) => among.has(a) && among.has(b)), { focus, open: id => { location.hash = href(id).slice(1); } });
  }
  function around(id, up, down) {
    const found = new Set([id]);
    for (const [steps, next] of [[up, parentsOf], [down, childrenOf]]) {
      let edge = [id];
      for (let i = 0; i < steps && edge.length; i++) { edge = [...new Set(edge.flatMap(next))].filter(x => !found.has(x) || x === id); edge.forEach(x => found.add(x)); }
    }
    return [...nodes.keys()].filter(x => found.has(x));
  }

  function graph(query) {
    const focus = nodes.has(query.get('focus')) ? query.get('focus') : '', up = query.get('up') ?? '2', down = query.get('down') ?? '2';
    const kinds = [...new Set([...nodes.values()].map(kindOf))];
    main.className = 'full';
    main.innerHTML = `<div class="graphbar"><label>Around <select id="focus"><option value="">everything</option>${[...nodes.values()].sort((a, b) => title(a) < title(b) ? -1 : 1).map(n => `<option value="${esc(n.unique_id)}" ${n.unique_id === focus ? 'selected' : ''}>${esc(title(n))}</option>`).join('')}</select></label>
      <label>upstream <input id="up" type="number" min="0" max="99" value="${esc(up)}" ${focus ? '' : 'disabled'}></label><label>downstream <input id="down" type="number" min="0" max="99" value="${esc(down)}" ${focus ? '' : 'disabled'}></label>
      <div class="legend">${kinds.map(k => `<span style="--kind: var(--${esc(k)}, var(--faint))"><i class="dot"></i>${esc(k.replace(/_/g, ' '))}</span>`).join('')}</div></div><div class="graph" id="lineage"></div>`;
    const go = () => {
      const q = new URLSearchParams();
      if ($('#focus').value) { q.set('focus', $('#focus').value); q.set('up', $('#up').value || 0); q.set('down', $('#down').value || 0); }
      location.hash = `/graph${q.size ? `?${q}` : ''}`;
    };
    for (const id of ['#focus', '#up', '#down']) $(id).addEventListener('change', go);
    lineage($('#lineage'), focus ? around(focus, Number(up), Number(down)) : [...nodes.keys()], focus);
  }

  function node(id, column) {
    const n = nodes.get(id);
    if (!n) { main.innerHTML = `<p class="problem">There is no ${esc(id)} in this project.</p>`; return; }
    const found = cataloged(id), own = n.meta?.smelt || {}, mine = tests.get(id) || [], result = outcome.get(id);
    const fact = (label, value, cls = '') => value === undefined || value === null || value === '' ? '' : `<div><dt>${label}</dt><dd class="${cls}">${value}</dd></div>`;
    const facts = [
      fact('Rows', stat(id, 'num_rows') === undefined ? '' : number(stat(id, 'num_rows'))), fact('Size', stat(id, 'num_bytes') === undefined ? '' : bytes(stat(id, 'num_bytes'))),
      fact('Files', stat(id, 'num_files')), fact('Version', stat(id, 'version')), fact('Last commit', stat(id, 'last_commit') && esc(instant(stat(id, 'last_commit')))),
      fact('Schedule', own.schedule && esc(own.schedule)), fact('Group', n.group && esc(n.group)), fact('Loader', n.loader && esc(n.loader)), fact('Reads', n.external?.location && esc(n.external.location), 'path'),
      fact('Owner', n.owner && esc([n.owner.name, n.owner.email].filter(Boolean).join(', '))), fact('Maturity', n.maturity && esc(n.maturity)), fact('URL', n.url && /^https?:/.test(n.url) && `<a href="${esc(n.url)}" rel="noopener">${esc(n.url)}</a>`),
      fact('Partitioned by', (n.config?.partition_by || []).length ? esc([n.config.partition_by].flat().join(', ')) : ''), fact('Unique key', n.config?.unique_key && esc([n.config.unique_key].flat().join(', '))),
      fact('Last result', result && `<span class="${esc(result.status)}">${esc(result.status)}</span>`), fact('File', esc(n.original_file_path), 'path'),
    ].join('');

    const names = new Map();
    for (const c of Object.values(found?.columns || {}).sort((a, b) => a.index - b.index)) names.set(c.name.toLowerCase(), { name: c.name, type: c.type, comment: c.comment });
    for (const c of Object.values(n.columns || {})) { const key = c.name.toLowerCase(); names.set(key, { name: c.name, type: c.data_type, ...names.get(key), said: c }); }
    const columns = [...names.values()].map(c => {
      const on = mine.filter(t => t.column_name?.toLowerCase() === c.name.toLowerCase());
      const key = (n.primary_key || []).some(k => k.toLowerCase() === c.name.toLowerCase()) ? '<span class="chip key">key</span>' : '';
      const constraints = (c.said?.constraints || []).map(k => `<span class="chip">${esc(k.type.replace(/_/g, ' '))}</span>`).join('');
      return `<tr id="column-${esc(c.name)}" class="${column?.toLowerCase() === c.name.toLowerCase() ? 'at' : ''}"><td class="name">${esc(c.name)}</td><td class="type">${esc(c.type || '')}</td><td><div class="md">${markdown(c.said?.description || c.comment || '')}</div></td><td>${key}${constraints}${on.map(chip).join('')}${(c.said?.tags || []).map(t => `<span class="chip">#${esc(t)}</span>`).join('')}</td></tr>`;
    });
    const expectations = own.expectations || [];
    const whole = mine.filter(t => !t.column_name);
    const testRows = mine.map(t => { const r = outcome.get(t.unique_id); return `<tr><td class="name" style="white-space:normal">${esc(t.name)}</td><td>${esc(t.column_name || '')}</td><td>${esc((t.config.severity || '').toLowerCase())}</td><td><span class="status ${esc(r?.status || 'never')}">${esc(r?.status || 'not run')}</span>${r?.failures ? ` ${number(r.failures)} rows` : ''}</td></tr>`; });
    const codes = [['Source', n.raw_code], ['Compiled', n.compiled_code]].filter(([, code]) => code);
    const meta = Object.entries(n.meta || {}).filter(([k]) => k !== 'smelt');
    main.innerHTML = `<div class="page">
      <div class="title"><div class="crumbs">${esc(n.resource_type === 'exposure' ? n.type : `${n.schema}.${n.alias || n.identifier || n.name}`)}</div><h1>${esc(title(n))}</h1>
        ${n.description ? `<div class="lead md">${markdown(n.description)}</div>` : ''}${n.source_description ? `<div class="lead md">${markdown(n.source_description)}</div>` : ''}
        <div class="badges"><span class="badge kind" ${style(n)}><i class="dot"></i>${esc(kindName(n))}</span>${n.access && n.access !== 'protected' ? `<span class="badge">${esc(n.access)}</span>` : ''}${n.contract?.enforced ? '<span class="badge">contract</span>' : ''}${(n.tags || []).map(t => `<a class="badge tag" href="#/tag/${encodeURIComponent(t)}">${esc(t)}</a>`).join('')}</div></div>
      <section class="card"><dl class="facts" style="margin:0">${facts}</dl></section>
      ${card('Lineage', '<div class="graph" id="lineage"></div>', undefined, `<div class="tabs" role="tablist" id="depth">${[['1', 'Neighbours'], ['99', 'All']].map(([v, l], i) => `<button type="button" role="tab" data-depth="${v}" aria-selected="${!i}">${l}</button>`).join('')}</div><a class="plain" href="#/graph?focus=${encodeURIComponent(id)}">Full screen</a>`)}
      ${columns.length ? card('Columns', `<div class="scroll"><table class="columns"><thead><tr><th>Name</th><th>Type</th><th>Description</th><th>Tests</th></tr></thead><tbody>${columns.join('')}</tbody></table></div>`, columns.length) : ''}
      ${codes.length ? card('SQL', `<pre class="sql" id="code" tabindex="0">${highlight(codes[0][1].trim())}</pre>`, undefined, `<div class="tabs" role="tablist" id="codes">${codes.map(([l], i) => `<button type="button" role="tab" data-code="${i}" aria-selected="${!i}">${l}</button>`).join('')}</div><button type="button" class="plain" id="copy">Copy</button>`) : ''}
      ${expectations.length ? card('Expectations', `<div class="scroll"><table><thead><tr><th>Name</th><th>Every row must satisfy</th><th>Otherwise</th></tr></thead><tbody>${expectations.map(e => `<tr><td class="name">${esc(e.name)}</td><td class="type" style="max-width:none">${esc(e.expect)}</td><td><span class="chip">${esc(e.on_violation)}</span>${result?.adapter_response?.violations?.[e.name] ? ` ${number(result.adapter_response.violations[e.name])} rows` : ''}</td></tr>`).join('')}</tbody></table></div>`, expectations.length) : ''}
      ${testRows.length ? card('Data tests', `<div class="scroll"><table><thead><tr><th>Name</th><th>Column</th><th>Severity</th><th>Last result</th></tr></thead><tbody>${testRows.join('')}</tbody></table></div>`, `${testRows.length}${whole.length && whole.length < testRows.length ? `, ${whole.length} on the whole table` : ''}`) : ''}
      ${meta.length ? card('Meta', `<div class="scroll"><table><tbody>${meta.map(([k, v]) => `<tr><td class="name">${esc(k)}</td><td>${esc(typeof v === 'string' ? v : JSON.stringify(v))}</td></tr>`).join('')}</tbody></table></div>`) : ''}
      <div class="cols2">${card('Reads', list(parentsOf(id)), parentsOf(id).length)}${card('Read by', list(childrenOf(id)), childrenOf(id).length)}</div>
    </div>`;
    lineage($('#lineage'), around(id, 1, 1), id);
    const choose = (group, act) => group?.addEventListener('click', e => {
      const b = e.target.closest('button');
      if (!b) return;
      for (const other of group.children) other.setAttribute('aria-selected', other === b);
      act(b);
    });
    choose($('#depth'), b => lineage($('#lineage'), around(id, Number(b.dataset.depth), Number(b.dataset.depth)), id));
    let code = codes[0]?.[1];
    choose($('#codes'), b => { code = codes[b.dataset.code][1]; $('#code').innerHTML = highlight(code.trim()); });
    $('#copy')?.addEventListener('click', async e => { await navigator.clipboard?.writeText(code); e.target.textContent = 'Copied'; setTimeout(() => { e.target.textContent = 'Copy'; }, 1200); });
    if (column) $('tr.at')?.scrollIntoView({ block: 'center' });
  }

  // ---- Search ----
  const input = $('#search'), hits = $('#results');
  const texts = [...nodes.values()].map(n => ({
    n, name: title(n).toLowerCase(), columns: [...new Set([...Object.keys(n.columns || {}), ...Object.keys(cataloged(n.unique_id)?.columns || {})])],
    more: [n.description, ...Object.values(n.columns || {}).map(c => c.description), ...(n.tags || [])].join(' ').toLowerCase(), sql: (n.raw_code || '').toLowerCase(),
  }));
  let chosen = 0, found = [];
  function search() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    hits.hidden = !words.length;
    input.setAttribute('aria-expanded', String(!hits.hidden));
    if (!words.length) return;
    const score = (t, w) => {
      if (t.name === w) return 100;
      if (t.name.startsWith(w)) return 80;
      if (t.name.includes(w)) return 60;
      if (t.columns.some(c => c.toLowerCase() === w)) return 50;
      if (t.columns.some(c => c.toLowerCase().includes(w))) return 40;
      if (t.more.includes(w)) return 20;
      return t.sql.includes(w) ? 10 : 0;
    };
    found = texts.map(t => { const s = words.map(w => score(t, w)); return { t, s: s.includes(0) ? 0 : Math.min(...s) * 100 + s.reduce((a, b) => a + b, 0) }; })
      .filter(f => f.s).sort((a, b) => b.s - a.s || (a.t.name < b.t.name ? -1 : 1)).slice(0, 30)
      .map(({ t }) => ({ n: t.n, column: t.name.includes(words[0]) ? '' : t.columns.find(c => words.every(w => c.toLowerCase().includes(w))) || '' }));
    chosen = 0;
    const mark = text => words.reduce((html, w) => html.replace(new RegExp(`(${w.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')})(?![^<]*>)`, 'ig'), '\u0002$1\u0003'), esc(text)).replace(/\u0002/g, '<mark>').replace(/\u0003/g, '</mark>');
    hits.innerHTML = found.length ? found.map((f, i) => `<li role="option" id="hit-${i}" data-i="${i}" aria-selected="${!i}" ${style(f.n)}><i class="dot"></i><b>${mark(title(f.n))}</b><span class="badge kind">${esc(kindName(f.n))}</span><span class="where">${f.column ? `column ${mark(f.column)}` : mark((f.n.description || '').split('\n')[0]) || esc(f.n.original_file_path)}</span></li>`).join('') : '<li class="none">Nothing found</li>';
  }
  const pick = i => {
    const hit = found[i];
    if (!hit) return;
    input.value = ''; search(); input.blur();
    location.hash = href(hit.n.unique_id).slice(1) + (hit.column ? `?column=${encodeURIComponent(hit.column)}` : '');
  };
  input.addEventListener('input', search);
  input.addEventListener('keydown', e => {
    if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
      e.preventDefault();
      chosen = Math.max(0, Math.min(found.length - 1, chosen + (e.key === 'ArrowDown' ? 1 : -1)));
      [...hits.children].forEach((li, i) => li.setAttribute('aria-selected', String(i === chosen)));
      hits.children[chosen]?.scrollIntoView({ block: 'nearest' });
      input.setAttribute('aria-activedescendant', `hit-${chosen}`);
    } else if (e.key === 'Enter') pick(chosen);
    else if (e.key === 'Escape') { input.value = ''; search(); input.blur(); }
  });
  hits.addEventListener('mousedown', e => { const li = e.target.closest('li[data-i]'); if (li) { e.preventDefault(); pick(Number(li.dataset.i)); } });
  input.addEventListener('blur', () => { hits.hidden = true; });
  input.addEventListener('focus', search);

  // ---- Theme, keys, routes ----
  const store = { get: () => { try { return localStorage.getItem('smelt-theme'); } catch { return null; } }, set: v => { try { localStorage.setItem('smelt-theme', v); } catch { /* private window */ } } };
  const theme = t => { document.documentElement.dataset.theme = t; };
  theme(store.get() || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
  const toggle = () => { const t = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark'; theme(t); store.set(t); };
  $('#theme').addEventListener('click', toggle);
  document.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey || /INPUT|SELECT|TEXTAREA/.test(e.target.tagName)) return;
    if (e.key === '/') { e.preventDefault(); input.focus(); input.select(); }
    else if (e.key === 't') toggle();
    else if (e.key === 'g') location.hash = '/graph';
    else if (e.key === 'o') location.hash = '/';
  });
  function route() {
    const [path, query] = location.hash.replace(/^#/, '').split('?'), parts = path.split('/').filter(Boolean).map(decodeURIComponent);
    main.className = '';
    main.scrollTop = 0;
    const view = parts[0] === 'graph' ? 'graph' : parts.length ? '' : 'overview';
    if (parts[0] === 'node') node(parts[1], new URLSearchParams(query).get('column'));
    else if (parts[0] === 'tag') tagged(parts[1]);
    else if (parts[0] === 'graph') graph(new URLSearchParams(query));
    else overview();
    document.querySelectorAll('.links a').forEach(a => a.toggleAttribute('aria-current', a.dataset.view === view));
    document.querySelectorAll('#tree a').forEach(a => {
      const here = a.dataset.id === parts[1];
      a.toggleAttribute('aria-current', here);
      if (here) { a.closest('details').open = true; a.scrollIntoView({ block: 'nearest' }); }
    });
    document.title = `${parts[1] && nodes.has(parts[1]) ? title(nodes.get(parts[1])) : parts[1] || 'docs'} · ${project}`;
    document.documentElement.dataset.ready = 'yes';
  }
  tree();
  addEventListener('hashchange', () => { route(); main.focus({ preventScroll: true }); });
  let resize;
  addEventListener('resize', () => { clearTimeout(resize); resize = setTimeout(route, 150); });
  route();
})();
