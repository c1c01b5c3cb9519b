// The app of the tests: node server.js PORT BACKEND. It asks the backend when it may answer.
// TLS_CERT and TLS_KEY in the environment are PEM files for TLS.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');

const [port, backend] = process.argv.slice(2);

function wait(id, then) {
  http.get(`http://${backend}/hold?id=${id}`, { agent: false }, (answer) => answer.resume().on('end', then));
}

function handle(request, response) {
  request.resume();
  const url = new URL(request.url, 'http://test');
  if (url.pathname === '/hold') {
    wait(url.searchParams.get('id'), () => response.end('ok'));
    return;
  }
  response.end('ok');
}

const secure = process.env.TLS_CERT;
const server = secure
  ? https.createServer({ cert: fs.readFileSync(secure), key: fs.readFileSync(process.env.TLS_KEY) }, handle)
  : http.createServer(handle);
server.keepAliveTimeout = 600000;
server.listen(Number(port), '127.0.0.1');
