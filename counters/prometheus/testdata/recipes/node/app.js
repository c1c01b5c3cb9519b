// A server that counts its requests with prom-client, which NODE_PATH must hold;
// see counters/prometheus/recipes_test.go.
const http = require('node:http');
const client = require('prom-client');

client.collectDefaultMetrics();
const inFlight = new client.Gauge({ name: 'http_requests_in_flight', help: 'Requests being worked on.' });
const total = new client.Counter({ name: 'http_requests_total', help: 'Requests that have come.' });

http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://localhost');
  if (url.pathname === '/metrics') {
    response.setHeader('Content-Type', client.register.contentType);
    response.end(await client.register.metrics());
    return;
  }
  total.inc();
  inFlight.inc();
  response.on('close', () => inFlight.dec()); // also when the client has gone
  if (url.pathname === '/hold') {
    await (await fetch(`${process.env.BACKEND}/hold${url.search}`)).text();
  }
  response.end('ok');
}).listen(process.env.PORT, '127.0.0.1');
