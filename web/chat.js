// The chat page: one conversation, kept in this browser, answered by this server's own API.
'use strict';

const $ = (id) => document.getElementById(id);
const log = $('log'), prompt = $('prompt');
let messages = [];     // {role, content}, as sent
let running = null;    // the AbortController of the answer being written

// ---- what the browser remembers: the key in this tab alone and until it is closed, because localStorage outlives the
// visit on disk and is open to every later page of this origin (whatever serves at this port next) ----
const saved = (() => { try { return JSON.parse(localStorage.ingot || '{}'); } catch { return {}; } })();
const fields = { system: '', temperature: '', 'max-tokens': '', seed: '', key: '' };
try { saved.key = sessionStorage.ingotKey; } catch { /* no storage: typed anew each time */ }
for (const id in fields) {
  $(id).value = saved[id] ?? fields[id];
  $(id).addEventListener('input', remember);
}
function remember() {
  const all = { messages };
  for (const id in fields) if (id !== 'key') all[id] = $(id).value;
  try {
    localStorage.ingot = JSON.stringify(all);
    sessionStorage.ingotKey = $('key').value;
  } catch { /* a private window: nothing is kept */ }
}

// ---- text with the little markup that models write; built from nodes, so that no answer can inject any ----
function element(name, parent, text, className) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  if (className) e.className = className;
  parent?.append(e);
  return e;
}
function inline(parent, text) {
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*|\*[^*\s][^*\n]*\*)/)) {
    if (part.length > 2 && part[0] === '`' && part.endsWith('`')) element('code', parent, part.slice(1, -1));
    else if (part.length > 4 && part.startsWith('**') && part.endsWith('**')) element('strong', parent, part.slice(2, -2));
    else if (part.length > 2 && part[0] === '*' && part.endsWith('*')) element('em', parent, part.slice(1, -1));
    else parent.append(part);
  }
}
function render(target, text) {
  target.replaceChildren();
  let list = null, code = null, paragraph = null;
  for (const line of text.split('\n')) {
    if (code) {
      if (line.trimStart().startsWith('```')) code = null;
      else code.textContent += line + '\n';
      continue;
    }
    const item = line.match(/^\s*(?:([-*+])|(\d+)[.)])\s+(.*)/), head = line.match(/^#{1,6}\s+(.*)/);
    if (!item) list = null;
    if (item || head || !line.trim() || line.trimStart().startsWith('```')) paragraph = null;
    if (line.trimStart().startsWith('```')) {
      code = element('code', element('pre', target), '');
    } else if (head) {
      inline(element('h3', target), head[1]);
    } else if (item) {
      const kind = item[2] ? 'OL' : 'UL';
      if (list?.tagName !== kind) {
        list = element(kind.toLowerCase(), target);
        if (item[2]) list.start = Number(item[2]);
      }
      inline(element('li', list), item[3]);
    } else if (line.trim()) {
      if (paragraph) paragraph.append(document.createElement('br'));
      else paragraph = element('p', target);
      inline(paragraph, line);
    }
  }
}

// ---- turns on the page ----
function near_end() { return log.scrollHeight - log.scrollTop - log.clientHeight < 80; }
function follow(was_near) { if (was_near) log.scrollTop = log.scrollHeight; }
function show(role, text) {
  $('hello')?.setAttribute('hidden', '');
  const turn = element('article', log, undefined, 'turn ' + role);
  const bubble = element('div', turn, undefined, 'bubble');
  if (role === 'user') bubble.textContent = text;
  else render(bubble, text);
  const foot = role === 'assistant' ? element('div', turn, undefined, 'foot') : null;
  const speed = foot && element('span', foot, '', 'speed');
  if (foot) {
    const copy = element('button', foot, 'Copy');
    copy.type = 'button';
    copy.onclick = () => navigator.clipboard?.writeText(turn.dataset.text || text).then(() => {
      copy.textContent = 'Copied';
      setTimeout(() => { copy.textContent = 'Copy'; }, 1200);
    });
  }
  log.scrollTop = log.scrollHeight;
  return { turn, bubble, speed };
}

// ---- one answer ----
async function* events(response) { // the payloads of a stream of server-sent events
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const blocks = rest.split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split('\n').filter((l) => l.startsWith('data: ')).map((l) => l.slice(6)).join('\n');
      if (data) yield data;
    }
  }
}
function request() {
  const system = $('system').value.trim();
  const body = {
    messages: system ? [{ role: 'system', content: system }, ...messages] : messages,
    stream: true, stream_options: { include_usage: true },
  };
  if ($('temperature').value) body.temperature = Number($('temperature').value);
  if ($('max-tokens').value) body.max_completion_tokens = Number($('max-tokens').value);
  if ($('seed').value) body.seed = Number($('seed').value);
  return { method: 'POST', headers: headers(), body: JSON.stringify(body), signal: running.signal };
}
function headers() {
  const h = { 'content-type': 'application/json' };
  if ($('key').value) h.authorization = 'Bearer ' + $('key').value;
  return h;
}
async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) { $('settings').hidden = false; $('key').focus(); }
  return new Error(body.error?.message || 'The server answered ' + response.status + '.');
}
async function answer() {
  const view = show('assistant', ''), started = performance.now();
  let text = '', tokens = 0, first = 0, last = 0, drawn = true;
  const measure = () => {
    const rate = tokens > 1 && last > first ? (tokens - 1) / (last - first) * 1000 : 0;
    view.speed.textContent = tokens + (tokens === 1 ? ' token' : ' tokens') + (rate ? ' · ' + rate.toFixed(1) + ' tokens/s' : '') +
      ' · first after ' + ((first - started) / 1000).toFixed(2) + ' s';
  };
  const draw = () => { // at most once a frame, however fast tokens come
    drawn = true;
    const near = near_end();
    render(view.bubble, text);
    measure();
    follow(near);
  };
  running = new AbortController();
  busy(true);
  view.turn.classList.add('waiting');
  try {
    const response = await fetch('v1/chat/completions', request());
    if (!response.ok) throw await refusal(response);
    for await (const data of events(response)) {
      if (data === '[DONE]') break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      if (chunk.usage) tokens = chunk.usage.completion_tokens;
      const piece = chunk.choices[0]?.delta?.content;
      if (!piece) continue;
      last = performance.now();
      if (!tokens) { first = last; view.turn.classList.replace('waiting', 'writing'); }
      tokens++;
      text += piece;
      if (drawn) { drawn = false; requestAnimationFrame(draw); }
    }
  } catch (e) {
    if (e.name !== 'AbortError') {
      view.turn.classList.add('error');
      text += (text ? '\n\n' : '') + (e instanceof TypeError ? 'The server cannot be reached.' : e.message);
    } else {
      view.turn.classList.add('stopped');
    }
  }
  view.turn.classList.remove('waiting', 'writing');
  if (text) render(view.bubble, text);
  else if (view.turn.classList.contains('stopped')) render(view.bubble, '*stopped*');
  if (first) { measure(); if (view.turn.classList.contains('stopped')) view.speed.textContent += ' · stopped'; }
  view.turn.dataset.text = text;
  follow(near_end());
  if (first) messages.push({ role: 'assistant', content: text });
  else messages.pop(); // unanswered: the next message starts anew
  running = null;
  busy(false);
  remember();
}

// ---- controls ----
function busy(on) {
  $('send').hidden = on;
  $('stop').hidden = !on;
  ready();
}
function ready() { $('send').disabled = !prompt.value.trim(); }
function fit() {
  prompt.style.height = 'auto';
  prompt.style.height = prompt.scrollHeight + 'px';
  ready();
}
function send(text) {
  if (running || !text.trim()) return;
  messages.push({ role: 'user', content: text });
  show('user', text);
  prompt.value = '';
  fit();
  answer();
}
function stop() { running?.abort(); }

$('composer').addEventListener('submit', (e) => { e.preventDefault(); send(prompt.value); });
$('stop').addEventListener('click', stop);
prompt.addEventListener('input', fit);
prompt.addEventListener('keydown', (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(prompt.value); }
});
document.addEventListener('keydown', (e) => { if (e.key === 'Escape') stop(); });
$('gear').addEventListener('click', () => {
  $('settings').hidden = !$('settings').hidden;
  $('gear').setAttribute('aria-expanded', String(!$('settings').hidden));
});
$('new').addEventListener('click', () => {
  stop();
  messages = [];
  for (const turn of log.querySelectorAll('.turn')) turn.remove();
  $('hello').removeAttribute('hidden');
  remember();
  prompt.focus();
});
for (const idea of ['What is the capital of France?', 'Tell me a short story about a lighthouse.', 'Explain rainbows to a child.']) {
  const b = element('button', $('ideas'), idea);
  b.type = 'button';
  b.onclick = () => send(idea);
}

// ---- start ----
messages = Array.isArray(saved.messages) ? saved.messages : [];
for (const m of messages) { const v = show(m.role, m.content); v.turn.dataset.text = m.content; }
remember();
fit();
fetch('v1/models', { headers: headers() }).then((r) => r.ok ? r.json() : Promise.reject(r.status)).then((list) => {
  $('model').textContent = list.data[0].id;
  document.title = list.data[0].id + ' · Ingot';
}).catch((status) => { $('status').textContent = status === 401 ? 'An API key is needed: see Settings.' : 'The server cannot be reached.'; });
