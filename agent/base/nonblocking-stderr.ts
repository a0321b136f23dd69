import { fstatSync } from 'node:fs';
import { openLibc } from './libc';

/** Of Linux, on every processor that we run on. @see fcntl(2) */
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const STDERR = 2;

interface Fcntl {
  fcntl(fd: number, command: number, argument: number): number;
}

/**
 * Makes writes to standard error fail where it is a pipe or socket that nobody reads, instead of waiting for ever: a stuck reader of the log
 * must not stop the agent. Node.js does so as soon as it makes a stream of it, which nothing but this need have asked for; Bun never does.
 * Terminals and files stay as they are.
 */
export function makeStderrNonblocking(): void {
  if (!isPipeOrSocket(STDERR)) return;
  const c = openLibc<Fcntl>({ fcntl: { args: ['i32', 'i32', 'i32'], returns: 'i32' } });
  if (c) c.fcntl(STDERR, F_SETFL, c.fcntl(STDERR, F_GETFL, 0) | O_NONBLOCK);
  else makeStream();
}

/** The stream is made by the first look at it. */
const makeStream = () => process.stderr.writable;

function isPipeOrSocket(fd: number): boolean {
  try {
    const stats = fstatSync(fd);
    return stats.isFIFO() || stats.isSocket();
  } catch {
    // It is closed.
    return false;
  }
}
