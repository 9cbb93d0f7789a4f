// Requests: packed arrays there and back, and a queue that loses none of the changes a person makes.
export class Refused extends Error {}

async function checked(response) {
  if (response.ok) return response;
  let text = `the server answered ${response.status}`;
  try {
    const said = await response.text();
    text = said.startsWith("{") ? JSON.parse(said).error : said || text;
  } catch { /* the status says enough */ }
  throw new Refused(text);
}

async function asked(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("the app does not answer; is it still running?");
  }
  return checked(response);
}

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const [name, { shape, offset }] of Object.entries(head.arrays)) {
    const size = shape.reduce((a, b) => a * b, 1);
    arrays[name] = { shape, data: new Uint8Array(buffer, 4 + length + offset, size) };
  }
  return { head, arrays };
}

export function pack(head, arrays) {
  const places = {};
  let offset = 0;
  for (const [name, { shape, data }] of Object.entries(arrays)) {
    places[name] = { shape, offset };
    offset += data.length;
  }
  const text = new TextEncoder().encode(JSON.stringify({ ...head, arrays: places }));
  const result = new Uint8Array(4 + text.length + offset);
  new DataView(result.buffer).setUint32(0, text.length, true);
  result.set(text, 4);
  let at = 4 + text.length;
  for (const { data } of Object.values(arrays)) {
    result.set(data, at);
    at += data.length;
  }
  return result;
}

const query = (values) => new URLSearchParams(values).toString();
export const address = (what, values) => `/api/${what}?${query(values)}`;

export async function getJson(what) {
  return (await asked(`/api/${what}`)).json();
}

export async function getPacked(what, values, priority = "auto") {
  return unpack(await (await asked(address(what, values), { priority })).arrayBuffer());
}

export async function getPicture(name, priority = "auto") {
  const blob = await (await asked(address("picture", { name }), { priority })).blob();
  return createImageBitmap(blob);
}

export async function postJson(what, values) {
  return (await asked(`/api/${what}`, { method: "POST", body: JSON.stringify(values) })).json();
}

export async function postForPacked(what, body) {
  const content = body instanceof Uint8Array ? body : JSON.stringify(body);
  return unpack(await (await asked(`/api/${what}`, { method: "POST", body: content })).arrayBuffer());
}

export async function postPacked(what, head, arrays) {
  return (await asked(`/api/${what}`, { method: "POST", body: pack(head, arrays), priority: "high" })).json();
}

export async function postForFile(what, body) {
  const response = await asked(`/api/${what}`, { method: "POST", body });
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") || "");
  return { name: name ? name[1] : "file", blob: await response.blob() };
}

export async function upload(file) {
  return (await asked(address("upload", { file: file.name }), { method: "POST", body: file })).json();
}

// Changes go out one after the other, in the order in which they were made.
export class Outbox {
  constructor(failed) {
    this.last = Promise.resolve();
    this.waiting = 0;
    this.failed = failed;
  }

  add(task) {
    this.waiting += 1;
    const done = this.last.then(task).catch((error) => this.failed(error)).finally(() => { this.waiting -= 1; });
    this.last = done;
    return done;
  }
}
