import { afterEach } from '@jest/globals';
import { type Daemon, type DaemonOptions, startDaemon } from './daemon';

const started: Daemon[] = [];

afterEach(async () => {
  await Promise.all(started.splice(0).map((daemon) => daemon.kill('SIGKILL')));
});

/** As `startDaemon`, for one test: whatever becomes of the test, the daemon does not outlive it. */
export function testDaemon(options: DaemonOptions): Daemon {
  const daemon = startDaemon(options);
  started.push(daemon);
  return daemon;
}
