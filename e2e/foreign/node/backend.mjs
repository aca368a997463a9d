// A server of another make, Node's ws, to stand behind a proxy. It prints its port, tells
// every client the header fields of its handshake, and echoes. Usage: node backend.mjs
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  perMessageDeflate: { threshold: 1 },
  handleProtocols: (offered) => (offered.has('chat') ? 'chat' : false),
});
server.on('listening', () => console.log(server.address().port));
server.on('connection', (ws, request) => {
  ws.send(JSON.stringify(request.headers));
  ws.on('message', (data, isBinary) => {
    if (data.toString() === 'close') ws.close(4002, 'as asked');
    else ws.send(data, { binary: isBinary });
  });
});
