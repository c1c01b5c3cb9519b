// Answers a POST when it has all of its body, and a GET at once. What leaves
// well is in leaving.mjs.
import cluster from 'node:cluster';
import { createServer } from 'node:http';
import process from 'node:process';
import { countWorkers, leaving } from './leaving.mjs';

if (cluster.isPrimary) {
  countWorkers();
  for (let n = 0; n < 2; n++) cluster.fork();
  let stopping = false;
  cluster.on('exit', () => stopping || cluster.fork());
  process.once('SIGTERM', () => {
    stopping = true;
    for (const worker of Object.values(cluster.workers)) worker.process.kill();
  });
} else {
  const work = leaving(async (request, response) => {
    let n = 0;
    try {
      for await (const part of request) n += part.length;
    } catch {
      return; // the client has gone
    }
    // The worker's process, so that one can see which has answered.
    response.end(`${n} bytes, worker ${process.pid}\n`);
  });
  createServer((request, response) => {
    if (request.url === '/ready') response.end('ok\n'); // not work
    else work(request, response);
  }).listen(process.env.PORT);
}
