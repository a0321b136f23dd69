import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach } from '@jest/globals';
import { until } from './until';

/** A service manager's end of the socket that sd_notify(3) sends to. */
export interface NotifySocket {
  /** Every datagram so far but the barriers of `systemd-notify`. */
  readonly datagrams: readonly string[];
  /** Resolves with the first datagram, past or future, that matches. */
  datagram(pattern: RegExp): Promise<string>;
}

const opened: { stop(): void }[] = [];

afterEach(() => {
  for (const each of opened.splice(0)) each.stop();
});

/** Resolves when datagrams can be sent to `name`, a path or an abstract name after `@`. Closed after the test. */
export async function openNotifySocket(name: string): Promise<NotifySocket> {
  const child = spawn('python3', [join(__dirname, 'notify_socket.py'), name], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  opened.push({ stop: () => child.kill('SIGKILL') });
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) =>
    lines.push(JSON.parse(line) as string),
  );
  await until(`a socket ${name}`, async () => lines.length > 0);
  const datagrams = () => lines.slice(1).filter((each) => each !== 'BARRIER=1');
  return {
    get datagrams() {
      return datagrams();
    },
    datagram: (pattern) =>
      until(`a datagram ${pattern}`, async () => datagrams().find((each) => pattern.test(each))),
  };
}
