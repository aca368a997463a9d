// Node's ws, to stand behind nginx. It prints its address and echoes. NODE_PATH leads to ws.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
server.on('listening', () => console.log(`127.0.0.1:${server.address().port}`));
server.on('connection', (ws) => {
  ws.on('message', (data, binary) => ws.send(data, { binary }));
});
