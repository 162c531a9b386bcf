// Prompts in, masks out: the part of the page that has to be quick. Masks arrive as bits and are drawn here, so that
// opacity, difference and truth cost no request. `element`, `trigger` and `server` come from gr.HTML.
const PALETTE = __PALETTE__, FIXED = __FIXED__, BROKEN = __BROKEN__, CHANGED = __CHANGED__;
const root = element.querySelector('.ls-root');
const find = (selector) => root.querySelector(selector);
const panels = find('.ls-panels'), status = find('.ls-status');
const ticket = Math.random().toString(36).slice(2);
const state = {
  scene: { image: '', objects: [], runs: [], alpha: 1, backend: 'torch', choice: 'single' },
  picture: null, photograph: null, answer: null, everything: null, active: 0, past: [], tool: '+', view: 'masks',
  opacity: 0.45, truth: false, cross: null, corner: null, drag: null, zoom: 1, left: 0, top: 0, out: new Set(),
};
const timings = [];
let busy = false, again = false, clicked = null;

function say(text, wrong = false) {
  status.textContent = text;
  status.classList.toggle('ls-wrong', wrong);
}

// --- the scene --------------------------------------------------------------------------------------------------------

const plain = () => JSON.stringify({ ...state.scene, objects: state.scene.objects });
const blank = () => ({ box: null, points: [] });
const isBlank = (one) => !one.box && !one.points.length;

function current() {
  const objects = state.scene.objects;
  if (!objects.length) objects.push(blank());
  state.active = Math.min(Math.max(state.active, 0), objects.length - 1);
  return objects[state.active];
}

function change(edit) {
  if (!state.picture) return;
  state.past.push(JSON.stringify([state.scene.objects, state.active]));
  if (state.past.length > 200) state.past.shift();
  state.everything = null;
  edit();
  ask();
}

function point(x, y, label) {
  change(() => current().points.push([round(x), round(y), label]));
}

function box(x1, y1, x2, y2) {
  change(() => {
    let one = current();
    // a box is an object of its own, unless the present one still waits for its first
    if (one.box) { state.scene.objects.push(one = blank()); state.active = state.scene.objects.length - 1; }
    one.box = [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)].map(round);
  });
}

const round = (value) => Math.round(value * 10) / 10;

const actions = {
  add() {
    const objects = state.scene.objects;
    if (objects.length && isBlank(objects[objects.length - 1])) state.active = objects.length - 1;
    else if (objects.length < 64) { objects.push(blank()); state.active = objects.length - 1; }
    table(); marks();
    say(`Object ${state.active + 1}: click it, or drag a box around it.`);
  },
  undo() {
    if (state.everything) { state.everything = null; return ask(); }
    if (!state.past.length) return say('Nothing to undo.');
    [state.scene.objects, state.active] = JSON.parse(state.past.pop());
    state.everything = null;
    ask();
  },
  delete() { remove(state.active); },
  clear() { if (state.scene.objects.length || state.everything) change(() => { state.scene.objects = []; state.active = 0; }); },
  closer() { zoom(1.5); },
  farther() { zoom(1 / 1.5); },
  whole() { zoom(0); },
  truth() { state.truth = !state.truth; press(); paint(); },
  choose() { find('.ls-file').click(); },
  async paste() {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith('image/'));
        if (type) return upload(await item.getType(type), 'pasted image');
      }
      say('There is no image in the clipboard.', true);
    } catch { say('The browser does not let a button read the clipboard; press Ctrl + V instead.', true); }
  },
  async webcam() {
    try {
      const video = find('video');
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
      find('.ls-camera').hidden = false;
      await video.play();
    } catch { say('There is no webcam, or it may not be used here.', true); }
  },
  take() {
    const video = find('video'), still = document.createElement('canvas');
    [still.width, still.height] = [video.videoWidth, video.videoHeight];
    still.getContext('2d').drawImage(video, 0, 0);
    actions.stop();
    still.toBlob((blob) => upload(blob, 'webcam'), 'image/png');
  },
  stop() {
    const video = find('video');
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
    find('.ls-camera').hidden = true;
  },
};

// the visible part of the image begins at (left, top), in its pixels; a factor of 0 shows all of it
function zoom(factor, x = null, y = null) {
  if (!state.picture) return;
  const { width, height } = state.picture, before = state.zoom;
  state.zoom = factor ? Math.min(Math.max(before * factor, 1), 32) : 1;
  x ??= state.left + width / before / 2; y ??= state.top + height / before / 2;
  look(x - (x - state.left) * before / state.zoom, y - (y - state.top) * before / state.zoom);
}

function look(left, top) {
  const { width, height } = state.picture;
  state.left = Math.min(Math.max(left, 0), width - width / state.zoom);
  state.top = Math.min(Math.max(top, 0), height - height / state.zoom);
  root.toggleAttribute('data-close', state.zoom * state.picture.shown[0] / width > 2.5);
  frame(); marks();
}

function frame() {
  const { width, height } = state.picture;
  for (const one of panels.querySelectorAll('.ls-image')) one.style.transform = state.zoom === 1 ? '' : `scale(${state.zoom}) translate(${-100 * state.left / width}%, ${-100 * state.top / height}%)`;
}

function remove(index) {
  if (index < state.scene.objects.length) change(() => { state.scene.objects.splice(index, 1); state.active = Math.max(0, index - 1); });
}

// --- asking for images and masks --------------------------------------------------------------------------------------

async function waiting(job) {
  root.dataset.busy = '';
  const timer = setInterval(async () => {
    const before = await server.ahead(ticket);
    if ('busy' in root.dataset && before) say(`${before} ${before === 1 ? 'job is' : 'jobs are'} before yours …`);
  }, 700);
  try { return await job; }
  catch (error) { return { error: `The server did not answer (${error}). Is it still running?` }; }
  finally { clearInterval(timer); delete root.dataset.busy; }
}

async function ask() {
  const free = state.picture && !busy, started = clicked ?? performance.now(), asked = plain();
  const job = free ? server.masks([asked, ticket, [...masks.keys()].join(' ')]) : null, sent = performance.now();
  remember(); table(); marks();
  if (!free) { again = busy; return; }
  busy = true;
  const answer = await waiting(job);
  const received = performance.now();
  busy = false;
  if (answer.error) say(answer.error, true);
  else if (JSON.parse(asked).image === state.scene.image) {
    state.answer = whole(answer);
    paint();
    const drawn = performance.now(), decode = answer.columns.reduce((sum, one) => sum + one.decode_ms + one.encode_ms, 0);
    requestAnimationFrame(() => timings.push({
      total: performance.now() - started, sent: sent - started, server: 1000 * answer.seconds, wire: received - sent, drawn: drawn - started,
      model: decode, encode: answer.columns.reduce((sum, one) => sum + one.encode_ms, 0),
    }));
    say(summary(answer));
    trigger('settled');
    if (!root.offsetParent) trigger('slide');
  }
  clicked = null;
  if (again) { again = false; ask(); }
}

function summary(answer) {
  if (answer.notes.length) return answer.notes.join(' ');
  const [base, ...tuned] = answer.columns;
  if (!state.scene.objects.some((one) => !isBlank(one))) return `${state.picture.name}: click an object, or drag a box around it.`;
  if (base.mean_iou === null) return `${state.picture.name}, ${state.picture.width} × ${state.picture.height}`;
  const text = tuned.map((one) => `${one.label} ${one.mean_iou.toFixed(3)}`).join(', ');
  return `${state.picture.name}: mean IoU with the truth of these objects: base ${base.mean_iou.toFixed(3)}, ${text}`;
}

async function open(id, objects = null) {
  say('Opening the image …');
  await show(await waiting(server.open_picture([id, state.scene.runs[0]])), objects);
}

async function upload(file, name) {
  if (!file) return;
  if (file.size > 32 * 2 ** 20) return say(`${name || file.name} is larger than 32 MiB; save it smaller.`, true);
  say('Sending the image …');
  const content = await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(',')[1] ?? '');
    reader.readAsDataURL(file);
  });
  await show(await waiting(server.upload([name || file.name, content])), null);
}

async function show(picture, objects) {
  if (picture.error) return say(picture.error, true);
  masks.clear();
  const photograph = new Image();
  photograph.src = picture.url;
  await photograph.decode();
  Object.assign(state, { picture, photograph, plain: null, answer: null, everything: null, past: [], active: 0, cross: null, corner: null, zoom: 1, left: 0, top: 0 });
  state.scene.image = picture.id;
  state.scene.objects = objects ?? picture.objects;
  root.dataset.state = 'ready';
  find('.ls-truth').disabled = !picture.truth.length;
  for (const one of root.querySelectorAll('.ls-strip button')) one.setAttribute('aria-current', String(one.dataset.id === picture.id));
  paint();
  await ask();
}

function strip(examples) {
  find('.ls-strip').replaceChildren(...examples.map((one) => {
    const button = document.createElement('button'), image = document.createElement('img');
    button.type = 'button';
    button.dataset.id = one.id;
    image.src = one.url;
    image.alt = one.name;
    button.append(image, one.iou ? `${one.iou[0].toFixed(2)} → ${one.iou[1].toFixed(2)}` : one.name.split('/').pop());
    button.title = one.iou ? `${one.name}: mean IoU ${one.iou[0].toFixed(3)} with the base, ${one.iou[1].toFixed(3)} tuned` : one.name;
    button.addEventListener('click', () => open(one.id));
    return button;
  }));
}

const counted = (column) => `${column.masks.length} mask${column.masks.length === 1 ? '' : 's'}`;

async function everything(options) {
  if (!state.picture) return;
  say('Looking for everything; this takes a while …');
  const answer = await waiting(server.everything([plain(), JSON.stringify(options), ticket]));
  if (answer.error) return say(answer.error, true);
  state.everything = whole(answer);
  state.out.clear();
  paint();
  const notes = answer.notes.length ? ` ${answer.notes.join(' ')}` : '';
  say(answer.columns.map((one) => `${one.label}: ${counted(one)}`).join(', ') + `. A click leaves a mask out or takes it back; Undo leads back.${notes}`);
}

// the address always leads back to what is shown
let late = null;
function remember() {
  clearTimeout(late);
  late = setTimeout(() => {
    const address = new URL(location.href);
    address.searchParams.set('scene', plain());
    if (address.href.length < 16000) history.replaceState(null, '', address);
  }, 250);
}

// --- drawing ----------------------------------------------------------------------------------------------------------

const shown = () => state.everything ?? state.answer ?? { columns: [{ label: 'base', masks: [], scores: [] }, { label: 'tuned', masks: [], scores: [] }], table: [] };
const pixelsOf = new WeakMap();

// the same with the bits of masks that are here already, which the server leaves out
const masks = new Map();
function whole(answer) {
  const wanted = new Map();
  for (const column of answer.columns) column.masks = column.masks.map((mask) => {
    const one = mask && (mask.bits === undefined ? masks.get(mask.id) : mask);
    if (one) wanted.set(one.id, one);
    return one;
  });
  if (masks.size > 400) masks.clear();
  for (const [id, one] of wanted) masks.set(id, one);
  return answer;
}

// indices of a mask's pixels in the image, those on its contour apart
function pixels(mask) {
  if (pixelsOf.has(mask)) return pixelsOf.get(mask);
  const [left, top, width, height] = mask.box, line = state.picture.shown[0];
  const bits = atob(mask.bits), set = new Uint8Array(width * height), inside = [], edge = [];
  for (let place = 0; place < set.length; place++) set[place] = (bits.charCodeAt(place >> 3) >> (7 - (place & 7))) & 1;
  for (let y = 0, place = 0; y < height; y++) for (let x = 0; x < width; x++, place++) {
    if (!set[place]) continue;
    const inner = x && y && x < width - 1 && y < height - 1 && set[place - 1] && set[place + 1] && set[place - width] && set[place + width];
    (inner ? inside : edge).push((top + y) * line + left + x);
  }
  const found = { inside, edge };
  pixelsOf.set(mask, found);
  return found;
}

function blend(data, places, [red, green, blue], opacity) {
  for (const place of places) {
    const at = 4 * place;
    data[at] += opacity * (red - data[at]);
    data[at + 1] += opacity * (green - data[at + 1]);
    data[at + 2] += opacity * (blue - data[at + 2]);
  }
}

// the pixels of the image without masks; read back once
function untouched(context, width, height) {
  if (!state.plain) {
    context.drawImage(state.photograph, 0, 0, width, height);
    state.plain = context.getImageData(0, 0, width, height).data;
  }
  return state.plain;
}

function paint() {
  if (!state.picture) return;
  const { columns } = shown(), difference = state.view === 'difference';
  const drawn = difference ? columns.slice(1) : columns, [width, height] = state.picture.shown;
  panels.removeAttribute('aria-busy');
  for (const one of panels.querySelectorAll('.ls-skeleton')) one.remove();
  while (panels.children.length > drawn.length) panels.lastChild.remove();
  while (panels.children.length < drawn.length) panels.append(panel());
  drawn.forEach((column, index) => {
    const figure = panels.children[index], canvas = figure.querySelector('.ls-image');
    figure.classList.toggle('ls-is-base', !difference && index === 0);
    figure.querySelector('strong').textContent = difference ? `base → ${column.label}` : column.label;
    const mean = column.mean_iou ?? null;
    figure.querySelector('span').textContent = state.everything ? counted(column) : mean === null ? '' : `mean IoU ${mean.toFixed(3)}`;
    const stack = figure.querySelector('.ls-stack');
    stack.style.aspectRatio = `${width} / ${height}`;
    stack.style.maxWidth = `calc(var(--ls-room) * ${width / height})`;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    canvas.setAttribute('aria-label', `${state.picture.name} with the masks of ${column.label}`);
    const context = canvas.getContext('2d', { willReadFrequently: true });
    const data = new Uint8ClampedArray(untouched(context, width, height)), image = new ImageData(data, width, height);
    if (difference) {
      const strong = Math.max(state.opacity, 0.6), { fixed, broken, changed } = differences(columns[0], column, width * height);
      for (const [places, colour] of [[changed, CHANGED], [fixed, FIXED], [broken, BROKEN]]) blend(data, places, colour, strong);
    } else {
      const order = column.masks.map((mask, number) => [mask, number]).filter(([mask]) => mask);
      order.sort(([one], [other]) => other.box[2] * other.box[3] - one.box[2] * one.box[3]);
      for (const [mask, number] of order) {
        if (state.everything && column.key === leftOutOf() && state.out.has(number)) continue;
        const { inside, edge } = pixels(mask), colour = PALETTE[number % PALETTE.length];
        blend(data, inside, colour, state.opacity);
        blend(data, edge, colour, 1);
      }
    }
    if (state.truth) for (const mask of state.picture.truth) {
      const { edge } = pixels(mask), dark = (at) => ((at % width) + ((at / width) | 0)) % 6 < 3;
      blend(data, edge.filter(dark), [0, 0, 0], 1);
      blend(data, edge.filter((at) => !dark(at)), [255, 255, 255], 1);
    }
    context.putImageData(image, 0, 0);
  });
  find('.ls-legend').hidden = !difference;
  frame(); table(); marks();
}

// pixels that differ between two models: put right, newly wrong, or changed where nobody knows; object by object
function differences(before, after, size) {
  const kinds = new Uint8Array(size), rows = shown().table, found = { fixed: [], broken: [], changed: [] };
  const fill = (masks, bit, side) => { for (const mask of masks) if (mask) for (const part of Object.values(pixels(mask))) for (const at of part) side[at] |= bit; };
  const whole = !!state.everything; // masks that nobody asked for have no partners
  const objects = whole ? [[before.masks, after.masks, null]] : before.masks.map((mask, place) => [[mask], [after.masks[place]], rows[place]?.label ?? null]);
  for (const [one, other, label] of objects) {
    if (!whole && (!one[0] || !other[0])) continue;
    const side = new Uint8Array(size);
    fill(one, 1, side); fill(other, 2, side);
    const truth = label === null ? null : state.picture.truth[label];
    if (truth) fill([truth], 4, side);
    side.forEach((which, at) => {
      const base = which & 1, tuned = which >> 1 & 1;
      if (base !== tuned) kinds[at] = Math.max(kinds[at], !truth ? 1 : tuned === (which >> 2) ? 2 : 3);
    });
  }
  kinds.forEach((kind, at) => { if (kind) found[['', 'changed', 'fixed', 'broken'][kind]].push(at); });
  return found;
}

function panel() {
  const figure = document.createElement('figure');
  figure.className = 'ls-panel';
  figure.innerHTML = '<figcaption><strong></strong><span></span></figcaption><div class="ls-stack"><canvas class="ls-image" role="img"></canvas>'
    + '<canvas class="ls-marks" tabindex="0" role="application" aria-label="Image to prompt: arrow keys move the cross, Enter sets a point"></canvas></div>';
  listen(figure.querySelector('.ls-marks'));
  new ResizeObserver(() => marks()).observe(figure);
  return figure;
}

function marks() {
  if (!state.picture) return;
  const boards = [...panels.querySelectorAll('.ls-marks')];
  for (const canvas of boards) {
    const { width, height } = canvas.getBoundingClientRect(), dense = window.devicePixelRatio || 1;
    if (!width) continue;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    const context = canvas.getContext('2d'), scale = state.zoom * width / state.picture.width;
    context.scale(dense, dense);
    if (state.everything) labels(context, state.everything.columns[boards.indexOf(canvas) + (state.view === 'difference' ? 1 : 0)], width / state.picture.shown[0]);
    context.translate(-state.left * scale, -state.top * scale);
    if (!state.everything) state.scene.objects.forEach((one, number) => {
      const colour = `rgb(${PALETTE[number % PALETTE.length]})`, active = number === state.active;
      if (one.box) rectangle(context, one.box.map((side) => side * scale), colour, active);
      for (const [x, y, label] of one.points) dot(context, x * scale, y * scale, colour, label);
    });
    if (state.drag?.box) rectangle(context, state.drag.box.map((side) => side * scale), '#fff', true);
    if (state.corner && state.cross) rectangle(context, [...state.corner, ...state.cross].map((side) => side * scale), '#fff', true);
    if (state.cross && canvas === document.activeElement) {
      const [x, y] = state.cross.map((place) => place * scale);
      for (const [style, line] of [['#000', 4], ['#fff', 2]]) {
        context.strokeStyle = style; context.lineWidth = line;
        context.beginPath();
        context.moveTo(x - 12, y); context.lineTo(x + 12, y); context.moveTo(x, y - 12); context.lineTo(x, y + 12);
        context.stroke();
      }
    }
  }
}

// score, and class where one is told, in the corner of every mask that is large enough
function labels(context, column, scale) {
  const [wide, high] = [state.picture.shown[0] / state.picture.width * state.left, state.picture.shown[1] / state.picture.height * state.top];
  context.font = '11px system-ui, sans-serif'; context.textBaseline = 'top';
  column.masks.forEach((mask, place) => {
    if (!mask || mask.box[2] * scale * state.zoom < 26) return;
    const text = [column.names?.[place], column.scores[place]?.toFixed(2)].filter(Boolean).join(' ');
    const x = (mask.box[0] - wide) * scale * state.zoom, y = (mask.box[1] - high) * scale * state.zoom;
    context.fillStyle = 'rgb(0 0 0 / .7)'; context.fillRect(x, y, context.measureText(text).width + 6, 15);
    context.fillStyle = '#fff'; context.fillText(text, x + 3, y + 2);
  });
}

function rectangle(context, [x1, y1, x2, y2], colour, active) {
  for (const [style, line, dash] of [['rgb(0 0 0 / .65)', active ? 4 : 3, []], [colour, active ? 2 : 1.4, active ? [] : [5, 4]]]) {
    context.strokeStyle = style; context.lineWidth = line;
    context.setLineDash(dash);
    context.strokeRect(Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1));
  }
  context.setLineDash([]);
}

function dot(context, x, y, colour, label) {
  context.beginPath();
  context.arc(x, y, 7, 0, 2 * Math.PI);
  context.fillStyle = label ? colour : '#fff';
  context.fill();
  context.lineWidth = 2; context.strokeStyle = label ? '#fff' : colour;
  context.stroke();
  context.beginPath();
  context.moveTo(x - 3.5, y); context.lineTo(x + 3.5, y);
  if (label) { context.moveTo(x, y - 3.5); context.lineTo(x, y + 3.5); }
  context.lineWidth = 2; context.strokeStyle = '#000';
  context.stroke();
}

function table() {
  const place = find('.ls-table'), { columns, table: rows } = shown();
  find('.ls-empty').hidden = !state.picture || state.scene.objects.length > 0 || !!state.everything;
  if (!state.scene.objects.length || state.everything) return place.replaceChildren();
  const heads = ['object', 'prompts'];
  for (const column of columns) {
    heads.push(`${column.label}: IoU`, 'predicted', 'area px');
    if (column !== columns[0]) heads.push('Dice to base');
  }
  const number = (value, digits = 3) => value === null || value === undefined ? '–' : value.toFixed(digits);
  const made = document.createElement('table'), body = document.createElement('tbody');
  const top = made.createTHead().insertRow();
  for (const text of [...heads, 'remove']) { const head = document.createElement('th'); head.scope = 'col'; head.textContent = text; top.append(head); }
  state.scene.objects.forEach((one, index) => {
    const line = body.insertRow(), row = rows[index];
    line.classList.toggle('ls-active', index === state.active);
    const choose = document.createElement('button'), swatch = document.createElement('span');
    swatch.className = 'ls-swatch';
    swatch.style.background = `rgb(${PALETTE[index % PALETTE.length]})`;
    choose.type = 'button';
    choose.append(swatch, String(index + 1));
    choose.setAttribute('aria-label', `Choose object ${index + 1}`);
    choose.addEventListener('click', () => { state.active = index; table(); marks(); });
    line.insertCell().append(choose);
    const count = one.points.length;
    line.insertCell().textContent = [one.box && 'box', count && `${count} point${count > 1 ? 's' : ''}`].filter(Boolean).join(', ') || 'none yet';
    columns.forEach((column, place) => {
      const cell = row?.columns[place];
      line.insertCell().textContent = number(cell?.iou);
      line.insertCell().textContent = number(cell?.score);
      line.insertCell().textContent = cell?.area?.toLocaleString('en') ?? '–';
      if (place) line.insertCell().textContent = number(cell?.dice);
    });
    const away = document.createElement('button');
    away.type = 'button';
    away.textContent = '×';
    away.setAttribute('aria-label', `Remove object ${index + 1}`);
    away.addEventListener('click', () => remove(index));
    line.insertCell().append(away);
  });
  made.append(body);
  place.replaceChildren(made);
}

function press() {
  root.dataset.tool = state.tool;
  for (const one of root.querySelectorAll('[data-tool]')) if (one !== root) one.setAttribute('aria-pressed', String(one.dataset.tool === state.tool));
  for (const one of root.querySelectorAll('[data-view]')) one.setAttribute('aria-pressed', String(one.dataset.view === state.view));
  find('.ls-truth').setAttribute('aria-pressed', String(state.truth));
}

// --- mouse, touch, keyboard -------------------------------------------------------------------------------------------

function listen(canvas) {
  const place = (event) => {
    const frame = canvas.getBoundingClientRect(), { width, height } = state.picture;
    const inside = (value, limit) => Math.min(Math.max(value, 0), limit);
    const x = state.left + (event.clientX - frame.left) / frame.width * width / state.zoom, y = state.top + (event.clientY - frame.top) / frame.height * height / state.zoom;
    return [inside(x, width), inside(y, height)];
  };
  canvas.addEventListener('pointerdown', (event) => {
    if (!state.picture || event.button > 1) return;
    if (event.button === 1 || state.tool === 'pan') {
      state.drag = { pan: [state.left, state.top], at: [event.clientX, event.clientY] };
      canvas.setPointerCapture(event.pointerId);
      return event.preventDefault();
    }
    state.drag = { from: place(event), at: [event.clientX, event.clientY], box: null, boxes: event.pointerType !== 'touch' || state.tool === 'box' };
    if (state.drag.boxes) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', (event) => {
    const drag = state.drag;
    if (drag?.pan) {
      const frame = canvas.getBoundingClientRect(), { width, height } = state.picture;
      return look(drag.pan[0] - (event.clientX - drag.at[0]) / frame.width * width / state.zoom, drag.pan[1] - (event.clientY - drag.at[1]) / frame.height * height / state.zoom);
    }
    if (!drag?.boxes) return;
    if (drag.box || Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) > 5) { drag.box = [...drag.from, ...place(event)]; marks(); }
  });
  canvas.addEventListener('pointercancel', () => { state.drag = null; marks(); });
  canvas.addEventListener('pointerup', (event) => {
    const drag = state.drag;
    state.drag = null;
    if (!drag || drag.pan) return;
    clicked = performance.now();
    if (drag.box) {
      const [x1, y1, x2, y2] = drag.box;
      if (Math.abs(x2 - x1) >= 1 && Math.abs(y2 - y1) >= 1) return box(x1, y1, x2, y2);
    }
    if (Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) > 12) return;
    state.cross = drag.from;
    if (state.everything) return leaveOut(...drag.from);
    point(...drag.from, event.shiftKey || state.tool === '-' ? 0 : 1);
  });
  canvas.addEventListener('wheel', (event) => {
    if (!state.picture || !(event.ctrlKey || event.metaKey || state.tool === 'pan')) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 400), ...place(event));
  }, { passive: false });
  canvas.addEventListener('focus', () => { state.cross ??= state.picture && [state.picture.width / 2, state.picture.height / 2]; marks(); });
  canvas.addEventListener('blur', () => marks());
  canvas.addEventListener('keydown', key);
}

// masks are left out of what is kept as tuned, that of the first run; base is kept whole
const leftOutOf = () => state.everything?.columns[1].key;

// of the tuned masks that nobody asked for, the smallest one here: out, or back again
function leaveOut(x, y) {
  const [wide, high] = state.picture.shown, at = Math.floor(y * high / state.picture.height) * wide + Math.floor(x * wide / state.picture.width);
  let best = null;
  const { masks } = state.everything.columns[1];
  masks.forEach((mask, place) => {
    if (!mask) return;
    const { inside, edge } = pixels(mask);
    if ((inside.includes(at) || edge.includes(at)) && (best === null || inside.length + edge.length < best[1])) best = [place, inside.length + edge.length];
  });
  if (best === null) return say('No mask of the tuned model is here.');
  if (!state.out.delete(best[0])) state.out.add(best[0]);
  paint();
  say(`Mask ${best[0] + 1} is ${state.out.has(best[0]) ? 'left out' : 'back'}; ${masks.length - state.out.size} of the tuned masks stay.`);
}

function key(event) {
  if (!state.picture || event.ctrlKey || event.metaKey || event.altKey) return;
  const { width, height } = state.picture, step = (event.shiftKey ? 10 : 1) * Math.max(width, height) / 200;
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const cross = state.cross ??= [width / 2, height / 2];
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (moves[name]) {
    state.cross = [Math.min(Math.max(cross[0] + step * moves[name][0], 0), width), Math.min(Math.max(cross[1] + step * moves[name][1], 0), height)];
    marks();
  } else if (name === 'Enter') {
    clicked = performance.now();
    point(...cross, event.shiftKey || state.tool === '-' ? 0 : 1);
  } else if (name === 'b') {
    if (!state.corner) { state.corner = [...cross]; say('Move the cross to the opposite corner and press B again.'); }
    else { const [x, y] = state.corner; state.corner = null; if (x !== cross[0] && y !== cross[1]) box(x, y, ...cross); else marks(); }
  } else if (name === '+' || name === '=') zoom(1.5, ...cross);
  else if (name === '-') zoom(1 / 1.5, ...cross);
  else if (name === '0') zoom(0);
  else if (name === 'd') { state.view = state.view === 'difference' ? 'masks' : 'difference'; press(); paint(); }
  else if (name === 't') { if (state.picture.truth.length) actions.truth(); }
  else if (name === 'n') actions.add();
  else if (name === 'u') actions.undo();
  else if (name === 'Delete' || name === 'Backspace') actions.delete();
  else if (/^[1-9]$/.test(name)) { if (state.scene.objects[name - 1]) { state.active = name - 1; table(); marks(); } }
  else if (name === 'Escape') { state.corner = null; marks(); }
  else return;
  event.preventDefault();
}

root.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.tool) { state.tool = button.dataset.tool; press(); }
  else if (button.dataset.view) { state.view = button.dataset.view; press(); paint(); }
  else actions[button.dataset.do]?.();
});
find('[data-do="opacity"]').addEventListener('input', (event) => { state.opacity = event.target.value / 100; paint(); });
find('.ls-file').addEventListener('change', (event) => { upload(event.target.files[0]); event.target.value = ''; });
root.addEventListener('dragover', (event) => event.preventDefault());
root.addEventListener('drop', (event) => { event.preventDefault(); upload(event.dataTransfer.files[0]); });
document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith('image/'));
  if (file && root.offsetParent) { event.preventDefault(); upload(file, 'pasted image'); }
});

// --- what the rest of the page uses ------------------------------------------------------------------------------------

window.loraSam = {
  timings, open, everything, actions,
  json: () => JSON.stringify({ scene: state.scene, opacity: state.opacity, everything: !!state.everything, found: state.everything?.found, left_out: [...state.out], left_out_of: leftOutOf() }),
  state: () => ({ ...state.scene, active: state.active, answer: state.answer, everything: state.everything, view: state.view, tool: state.tool, zoom: [state.zoom, state.left, state.top], busy }),
  link: () => location.href,
  objects(text) { if (text) change(() => { state.scene.objects = JSON.parse(text); state.active = 0; }); },
  async set(settings) {
    const before = state.scene.runs[0];
    Object.assign(state.scene, settings);
    if (settings.runs && state.scene.runs[0] !== before) {
      state.scene.backend = 'torch';
      const answer = await server.examples(state.scene.runs[0]);
      strip(answer.examples ?? []);
      trained(answer.trained);
      if (state.scene.image.startsWith('test:')) return open('');
    }
    await ask();
  },
};

// the tool of what the run was trained with
function trained(told) {
  if (!told) return;
  state.tool = told.tool;
  find('.ls-trained').textContent = told.note;
  press();
}

press();
(async () => {
  const opening = await waiting(server.opening(new URL(location.href).searchParams.get('scene') ?? ''));
  if (opening.error) return say(opening.error, true);
  strip(opening.examples);
  trained(opening.trained);
  Object.assign(state.scene, opening.scene);
  if (opening.scene.image) await open(opening.scene.image, opening.scene.objects);
  else if (opening.examples.length) await open(opening.examples[0].id);
  else { root.dataset.state = 'ready'; say('Upload an image, or paste one with Ctrl + V.'); }
  if (opening.note) say(opening.note, true);
  trigger('opened');
})();
