// A client of another make, Node's ws, against a running server. Usage:
//
//	NODE_EXTRA_CA_CERTS=root.crt node client.mjs wss://localhost:4431
//
// For each check it prints a line of JSON, {"check": NAME, "got": what happened}. Who
// started it knows what should have. ../python/client.py prints the same for Python.
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import WebSocket from 'ws';

const site = process.argv[2];
const origin = 'https://localhost';
const MiB = 1 << 20;

// open returns a connection that has been accepted, with its messages and its end waiting
// to be taken.
async function open(path, { protocols = [], ...options } = {}) {
  const ws = new WebSocket(site + path, protocols, { origin, perMessageDeflate: false, handshakeTimeout: 10_000, ...options });
  const waiting = [];
  const queue = [];
  ws.on('message', (data, isBinary) => {
    const message = { data, isBinary };
    if (waiting.length > 0) waiting.shift()(message);
    else queue.push(message);
  });
  ws.ended = new Promise((resolve) => ws.on('close', (code, reason) => resolve({ code, reason: reason.toString() })));
  const instead = ws.ended.then(({ code, reason }) => ({ data: Buffer.from(`closed with ${code} ${reason}`) }));
  ws.next = () => (queue.length > 0 ? Promise.resolve(queue.shift()) : Promise.race([new Promise((resolve) => waiting.push(resolve)), instead]));
  ws.on('upgrade', (res) => { ws.answer = res.headers; });
  await once(ws, 'open');
  ws.on('error', (err) => { ws.failure = err.message; });
  return ws;
}

// echoed sends and tells what came back.
async function echoed(ws, data) {
  ws.send(data);
  return describe(await ws.next());
}

// describe tells a short message's content and a long one's length and hash.
function describe({ data, isBinary }) {
  const type = isBinary ? 'binary' : 'text';
  if (data.length > 100) return { type, length: data.length, sha256: createHash('sha256').update(data).digest('hex') };
  return { type, data: isBinary ? data.toString('hex') : data.toString() };
}

// matches returns true, or what came back in place of data.
function matches(got, data, isBinary) {
  return JSON.stringify(got) === JSON.stringify(describe({ data: Buffer.from(data), isBinary })) || got;
}

// refusal returns the status that a handshake is refused with.
async function refusal(path, options) {
  const ws = new WebSocket(site + path, { origin, ...options });
  ws.on('error', () => {}); // by abort below
  const [, res] = await once(ws, 'unexpected-response');
  ws.terminate();
  return res.statusCode;
}

const checks = {
  async text() {
    const ws = await open('/echo');
    return [await echoed(ws, 'tom'), await echoed(ws, ''), await echoed(ws, '日本語 \u0000 👋')];
  },
  async binary() {
    const ws = await open('/echo');
    return [await echoed(ws, Buffer.from([0, 255, 254])), await echoed(ws, Buffer.alloc(0))];
  },
  async fragments() {
    const ws = await open('/echo');
    ws.send('one ', { fin: false });
    ws.ping(); // control frames may come between
    ws.send('two ', { fin: false });
    ws.send('', { fin: false });
    ws.send('three', { fin: true });
    return describe(await ws.next());
  },
  async 'a MiB of text'() {
    const ws = await open('/echo');
    const text = 'x'.repeat(MiB);
    return matches(await echoed(ws, text), text, false);
  },
  async 'a MiB of bytes'() {
    const ws = await open('/echo');
    const bytes = randomBytes(MiB);
    return matches(await echoed(ws, bytes), bytes, true);
  },
  async 'many in order'() {
    const ws = await open('/echo');
    for (let i = 0; i < 1000; i++) ws.send(String(i));
    for (let i = 0; i < 1000; i++) {
      const { data } = await ws.next();
      if (data.toString() !== String(i)) return `${data} in place of ${i}`;
    }
    return 'in order';
  },
  async 'close by the client'() {
    const ws = await open('/echo');
    ws.close(4001, 'bye');
    return ws.ended;
  },
  async 'close by the server'() {
    const ws = await open('/rate');
    for (let i = 0; i < 5; i++) ws.send('quick');
    return ws.ended;
  },
  async 'too big'() {
    const ws = await open('/small');
    ws.send('x'.repeat(2 << 10));
    return (await ws.ended).code;
  },
  // The rest of what the client is sending must not make the reason unreadable.
  async 'far too big'() {
    const ws = await open('/small');
    ws.send(randomBytes(16 * MiB));
    return (await ws.ended).code;
  },
  async 'far too big when inflated'() {
    const ws = await open('/bomb', { perMessageDeflate: true });
    ws.send(Buffer.alloc(16 * MiB));
    return (await ws.ended).code;
  },
  async 'bad UTF-8'() {
    const ws = await open('/echo');
    ws.send(Buffer.from([0xff, 0xfe]), { binary: false });
    return (await ws.ended).code;
  },
  async ping() {
    const ws = await open('/echo');
    const pongs = [];
    const data = 'x'.repeat(125);
    ws.on('pong', (data) => pongs.push(data.toString()));
    ws.ping(data);
    await echoed(ws, 'after');
    ws.pong('unasked');
    return pongs.length === 1 && pongs[0] === data ? echoed(ws, 'still there') : { pongs };
  },
  async 'ping by the server'() {
    const ws = await open('/ping');
    await once(ws, 'ping');
    await once(ws, 'ping'); // which would not come without a pong to the first
    return echoed(ws, 'still there');
  },
  async compression() {
    const ws = await open('/deflate', { perMessageDeflate: true });
    const text = 'x'.repeat(MiB);
    const same = matches(await echoed(ws, text), text, false);
    const again = matches(await echoed(ws, text), text, false);
    // Encrypted bytes of the connection, so 4 MiB if either side had not compressed.
    const few = ws._socket.bytesWritten < MiB / 4 && ws._socket.bytesRead < MiB / 4;
    return { extensions: ws.answer['sec-websocket-extensions'], same, again, few };
  },
  async 'compression of what does not shrink'() {
    const ws = await open('/deflate', { perMessageDeflate: { threshold: 0 } });
    const bytes = randomBytes(MiB);
    return [matches(await echoed(ws, bytes), bytes, true), await echoed(ws, ''), await echoed(ws, 'tom')];
  },
  async 'compressed fragments'() {
    const ws = await open('/deflate', { perMessageDeflate: { threshold: 0 } });
    ws.send('one '.repeat(1000), { fin: false, compress: true });
    ws.send('two '.repeat(1000), { fin: true, compress: true });
    return matches(describe(await ws.next()), 'one '.repeat(1000) + 'two '.repeat(1000), false);
  },
  async 'a smaller window of the server'() {
    const ws = await open('/deflate', { perMessageDeflate: { serverMaxWindowBits: 10 } });
    return { extensions: ws.answer['sec-websocket-extensions'] ?? null, echo: await echoed(ws, 'tom') };
  },
  async 'a smaller window of the client'() {
    const ws = await open('/deflate', { perMessageDeflate: { threshold: 0, clientMaxWindowBits: 10 } });
    const text = Array.from({ length: 10_000 }, (_, i) => i).join();
    return { extensions: ws.answer['sec-websocket-extensions'], same: matches(await echoed(ws, text), text, false) };
  },
  async 'compression not configured'() {
    const ws = await open('/echo', { perMessageDeflate: true });
    return { extensions: ws.answer['sec-websocket-extensions'] ?? null, echo: await echoed(ws, 'tom') };
  },
  async subprotocol() {
    const ws = await open('/chat', { protocols: ['chat.v1', 'other', 'chat.v2'] });
    return { protocol: ws.protocol, echo: await echoed(ws, 'tom') };
  },
  async 'subprotocol not offered'() {
    const ws = await open('/chat');
    return ws.protocol;
  },
  async 'origin refused'() {
    return refusal('/echo', { origin: 'https://elsewhere.example' });
  },
  async 'no origin'() {
    const ws = await open('/echo', { origin: undefined });
    return echoed(ws, 'tom');
  },
  async 'too many from one address'() {
    const ws = await open('/one');
    const status = await refusal('/one');
    ws.close();
    await ws.ended;
    return status;
  },
  async 'told to go'() {
    const ws = await open('/echo');
    print('told to go: open', await echoed(ws, 'tom'));
    return (await ws.ended).code;
  },
};

function print(check, got) {
  process.stdout.write(JSON.stringify({ check, got }) + '\n');
}

for (const [name, check] of Object.entries(checks)) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('nothing within 20 s')), 20_000); });
  try {
    print(name, await Promise.race([check(), late]));
  } catch (err) {
    print(name, { error: err.message });
  }
  clearTimeout(timer);
}
process.exit(0);
