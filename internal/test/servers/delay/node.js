// Answers /delay/MS after MS milliseconds: node node.js PORTS TLSPORTS CERTIFICATE
// KEY [http2].
const fs = require('fs'), http = require('http'), https = require('https'), http2 = require('http2');
const [ports, tlsPorts, cert, key, also] = process.argv.slice(2);
const answer = (request, response) => {
  const delay = /^\/delay\/(\d+)/.exec(request.url);
  request.resume();
  request.on('end', () => setTimeout(() => response.end('done'), delay ? Number(delay[1]) : 0));
};
const tls = {cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true};
const plain = () => also ? http2.createServer(answer) : http.createServer(answer);
const secured = () => also ? http2.createSecureServer(tls, answer) : https.createServer(tls, answer);
for (const port of ports.split(',')) plain().listen(Number(port), '0.0.0.0');
for (const port of tlsPorts.split(',')) secured().listen(Number(port), '0.0.0.0');
