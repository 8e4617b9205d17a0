// The file is read through libuv's thread pool, the answer goes through its event loop.
const http = require('http');
const fs = require('fs');
http
  .createServer((request, response) => {
    fs.readFile('/etc/passwd', (error, text) => {
      response.end(error ? String(error) : `served by node, ${text.length} bytes read\n`);
    });
  })
  .listen(8080);
