// Connects and leaks: for tests/live/interpreters.rs. Says "ready", connects to the port for each line, and ends with its standard input.
const net = require('net');

const taken = [];

function connectOne(port) {
  // Half-open: the peer's end is not answered.
  taken.push(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
}

process.stdin.on('data', () => connectOne(Number(process.argv[2])));
process.stdin.on('end', () => process.exit(0));
console.log('ready');
