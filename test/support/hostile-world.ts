import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll } from '@jest/globals';
import { type Daemon, startDaemon } from './daemon';
import { type RawClient, rawConnect } from './raw-http2';
import { expectWell } from './sds-daemon';
import { until } from './until';

const MB = 1024 * 1024;
/** What may stay of one storm, and of all storms of a file: the C library keeps what lies between blocks in use, V8 keeps nothing. */
const MAY_STAY_BYTES = 30 * MB;
const MAY_STAY_AT_ALL_BYTES = 50 * MB;

/** A living daemon with clients that mean it harm. After each test a good client gets its secret; at the end memory has come back. */
export interface HostileWorld {
  readonly daemon: Daemon;
  /** Connects, and waits where the kernel says that the backlog is full. */
  connect(options?: { readonly paused?: boolean }): Promise<RawClient>;
  /** Closes the oldest raw clients but for so many. */
  keep(count: number): void;
  /** Open descriptors of the daemon. */
  descriptors(): number;
  /** Hangs up on behalf of all raw clients, and resolves once the daemon is as small as before this test but for what may stay. */
  memoryBack(): Promise<void>;
}

export const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** Starts a daemon for the tests of a file. The world may be used inside tests only. */
export function useHostileWorld(): HostileWorld {
  let dir: string;
  let daemon: Daemon;
  let calmBytes: number;
  let beforeBytes: number;
  const raw: RawClient[] = [];
  const hangUp = () => {
    for (const each of raw.splice(0)) each.destroy();
  };

  /** Of a daemon that lives: one that died is told with its exit code or signal and what it wrote. */
  const rssAnon = () => {
    daemon.assertAlive();
    return daemon.rssAnon();
  };

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'keyturn-sds-'));
    daemon = startDaemon({ dir });
    await daemon.ready();
    await expectWell(daemon);
    calmBytes = daemon.rssAnon();
    beforeBytes = calmBytes;
  });
  afterEach(async () => {
    hangUp();
    await expectWell(daemon);
    beforeBytes = daemon.rssAnon();
  });
  afterAll(async () => {
    try {
      await until(
        'memory at the end',
        async () => rssAnon() < calmBytes + MAY_STAY_AT_ALL_BYTES,
        20_000,
        250,
      );
    } finally {
      await daemon.stop();
      rmSync(dir, { recursive: true, force: true });
    }
  });

  return {
    get daemon() {
      return daemon;
    },
    connect: async (options) => {
      for (;;) {
        try {
          const made = await rawConnect(daemon.sdsSocket, options);
          raw.push(made);
          return made;
        } catch (caught) {
          daemon.assertAlive();
          if ((caught as NodeJS.ErrnoException).code !== 'EAGAIN') throw caught;
          await pause(5);
        }
      }
    },
    keep: (count) => {
      for (const each of raw.splice(0, Math.max(raw.length - count, 0))) each.destroy();
    },
    descriptors: () => readdirSync(`/proc/${daemon.pid}/fd`).length,
    memoryBack: async () => {
      hangUp();
      await until('memory', async () => rssAnon() < beforeBytes + MAY_STAY_BYTES, 20_000, 250);
    },
  };
}
