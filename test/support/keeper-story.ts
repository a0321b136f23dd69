import { afterEach } from '@jest/globals';
import type { Deps } from '../../agent/base/deps';
import type { Labels, MetricName } from '../../agent/base/metrics';
import type { CertSource, CertState } from '../../agent/identity/cert-state';
import { parseSpiffeId } from '../../agent/identity/spiffe-id';
import type { Svid } from '../../agent/identity/svid';
import { createKeeper, type KeeperOptions } from '../../agent/lifecycle/keeper';
import { TEST_ID } from './certs';
import { instantEngine, ScriptedCa, testRoots } from './scripted-ca';
import { settle, TestClock } from './test-clock';
import { testDeps } from './test-deps';

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** A keeper with its scripted CA on a virtual clock, watched. */
export interface Story {
  readonly clock: TestClock;
  readonly ca: ScriptedCa;
  readonly keeper: CertSource;
  /** Every state since the start, with when it came. */
  readonly states: readonly { readonly at: number; readonly state: CertState }[];
  readonly events: ReturnType<typeof testDeps>['events'];
  /** Of a counter, how often it was recorded with these labels. */
  counted<N extends MetricName>(name: N, labels: Labels<N>): number;
  /** The SVID that is offered now. */
  readonly svid: Svid | undefined;
  readonly kinds: readonly CertState['kind'][];
  readonly startedAt: number;
  /** Epoch milliseconds of that long after the start. */
  after(ms: number): number;
}

const open: CertSource[] = [];
afterEach(async () => {
  for (const keeper of open.splice(0)) await keeper.close();
});

export interface StoryOptions
  extends Partial<
    Pick<
      KeeperOptions,
      'warmStart' | 'ttlMs' | 'rotation' | 'engine' | 'caTimeoutMs' | 'news' | 'turn'
    >
  > {
  readonly random?: Deps['random'];
  readonly lifeMs?: number;
  /** Sets up the CA before the keeper starts. */
  readonly prepare?: (ca: ScriptedCa, clock: TestClock) => void;
  readonly clock?: TestClock;
}

/** Starts the story and lets the first attempt end. No jitter unless asked for, so that half of a day is twelve hours. */
export async function tell(options: StoryOptions = {}): Promise<Story> {
  const clock = options.clock ?? new TestClock();
  const ca = new ScriptedCa((await testRoots())[0], clock, options.lifeMs);
  options.prepare?.(ca, clock);
  const counts: string[] = [];
  const metrics: Deps['metrics'] = {
    record: (name, labels) => counts.push(JSON.stringify([name, labels])),
  };
  const deps = testDeps({ clock, random: options.random ?? (() => 0), metrics });
  const startedAt = clock.now();
  const keeper = createKeeper(
    {
      ca,
      id: parseSpiffeId(TEST_ID),
      engine: options.engine ?? (await instantEngine()),
      keyAlgorithm: 'ecdsa-p256',
      ttlMs: options.ttlMs ?? DAY,
      rotation: options.rotation ?? { ratio: 0.5, jitterRatio: 0 },
      caTimeoutMs: options.caTimeoutMs,
      warmStart: options.warmStart,
      news: options.news,
      turn: options.turn,
    },
    deps,
  );
  open.push(keeper);
  const states: { at: number; state: CertState }[] = [];
  keeper.state.subscribe((state) => states.push({ at: clock.now(), state }));
  await settle();
  return {
    clock,
    ca,
    keeper,
    states,
    events: deps.events,
    counted: (name, labels) =>
      counts.filter((each) => each === JSON.stringify([name, labels])).length,
    get svid() {
      const { value } = keeper.state;
      return value.kind === 'current' || value.kind === 'overdue' ? value.svid : undefined;
    },
    get kinds() {
      return states.map(({ state }) => state.kind);
    },
    startedAt,
    after: (ms) => startedAt + ms,
  };
}
