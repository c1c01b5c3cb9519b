// Answers /delay/MS after so many milliseconds: node node.js PORTS TLSPORTS CERTIFICATE KEY.
const fs = require('fs'), http = require('http'), https = require('https');
const [ports, tlsPorts, cert, key] = process.argv.slice(2);
const answer = (request, response) => {
  const delay = /^\/delay\/(\d+)/.exec(request.url);
  request.resume();
  request.on('end', () => setTimeout(() => response.end('done'), delay ? Number(delay[1]) : 0));
};
const tls = {cert: fs.readFileSync(cert), key: fs.readFileSync(key)};
for (const port of ports.split(',')) http.createServer(answer).listen(Number(port), '0.0.0.0');
for (const port of tlsPorts.split(',')) https.createServer(tls, answer).listen(Number(port), '0.0.0.0');
