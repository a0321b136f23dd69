import { expect, test } from '@jest/globals';
import type { AgentStatus } from '../../../agent/admin/agent-view';
import { type Watched, WatchedSource } from '../../../agent/base/watched';
import type { CertSource, CertState, SourceDescription } from '../../../agent/identity/cert-state';
import { agentHealth } from '../../../agent/services/agent-health';
import { fakeView, WORKLOAD_ID } from '../../support/fake-view';
import { MINUTE, tell } from '../../support/keeper-story';

const lastError = {
  code: 'ERR_CA_REJECTED',
  message: 'sign: no',
  hint: 'ask again',
  at: '2026-01-01T00:00:00.000Z',
};

function served(sources: readonly CertSource[], changes?: Watched<unknown>) {
  return { workloads: () => sources.map((source) => ({ source })), changes };
}

function summary(workload: Partial<AgentStatus['workloads'][number]>): string {
  return agentHealth(fakeView({ workload }), served([]), () => 0).summary();
}

test.each([
  [{}, 'certificate 01 until 2026-01-02T00:00:00.000Z, renewal at 2026-01-01T12:00:00.000Z'],
  [
    { state: 'overdue', lastError } as const,
    'certificate 01 until 2026-01-02T00:00:00.000Z, renewal fails: sign: no (ask again)',
  ],
  [
    { state: 'unavailable', lastError } as const,
    'certificate 01 expired at 2026-01-02T00:00:00.000Z: sign: no (ask again)',
  ],
])(
  'the summary of one workload names its certificate and what hinders it: %j',
  (workload, want) => {
    expect(summary(workload)).toBe(`${WORKLOAD_ID}: ${want}`);
  },
);

test('the summary of several says which are not ready', () => {
  const [one] = fakeView().workloads();
  const workloads = () => [one!, one!];
  expect(agentHealth(fakeView({ workloads }), served([]), () => 0).summary()).toBe(
    '2 workloads have their certificates',
  );
  const view = fakeView({
    workloads,
    reasons: () => ['spiffe://td/a: no certificate yet', 'spiffe://td/b: no certificate yet'],
  });
  expect(agentHealth(view, served([]), () => 0).summary()).toBe(
    '2 workloads, not ready: spiffe://td/a: no certificate yet; spiffe://td/b: no certificate yet',
  );
});

test('the summary of many that are not ready stays one line', () => {
  const [one] = fakeView().workloads();
  const workloads = () => Array.from({ length: 100 }, () => one!);
  const view = fakeView({
    workloads,
    reasons: () => Array.from({ length: 100 }, (_, index) => `workload w${index}: no`),
  });
  expect(agentHealth(view, served([]), () => 0).summary()).toBe(
    '100 workloads, not ready: workload w0: no; workload w1: no; workload w2: no; and 97 more',
  );
});

test.each([
  ['an attempt of a minute', { attemptSince: 60_000, dueAt: 0 }, undefined],
  [
    'an attempt of two minutes that has ten',
    { attemptSince: 0, attemptUntil: 600_000, dueAt: undefined },
    undefined,
  ],
  [
    'an attempt that should have ended two minutes ago',
    { attemptSince: -600_000, attemptUntil: 0, dueAt: undefined },
    'istiod: an attempt has hung since 1969-12-31T23:50:00.000Z',
  ],
  [
    'an attempt of two minutes',
    { attemptSince: 0, dueAt: undefined },
    'istiod: an attempt has hung since 1970-01-01T00:00:00.000Z',
  ],
  [
    'what is due since two minutes',
    { attemptSince: undefined, dueAt: 0 },
    'istiod: overdue since 1970-01-01T00:00:00.000Z',
  ],
  ['what is due later', { attemptSince: undefined, dueAt: 240_000 }, undefined],
  ['nothing due at all', { attemptSince: undefined, dueAt: undefined }, undefined],
])('after two minutes, %s: %j', (_, times, want) => {
  const describe = () => ({ source: 'istiod', ...times }) as SourceDescription;
  expect(
    agentHealth(fakeView(), served([{ describe } as CertSource]), () => 120_000).stalled(),
  ).toBe(want);
});

test('a keeper is never stalled while its CA is away for a day', async () => {
  const story = await tell({ prepare: (ca) => ca.failWith('ERR_CA_UNAVAILABLE') });
  const health = agentHealth(fakeView(), served([story.keeper]), () => story.clock.now());
  for (let minute = 1; minute <= 24 * 60; minute += 1) {
    await story.clock.advanceTo(story.after(minute * MINUTE));
    expect(health.stalled()).toBeUndefined();
  }
});

test('a change of any source is told until somebody has heard enough', () => {
  const states = [
    new WatchedSource<CertState>({ kind: 'starting', bundle: undefined }),
    new WatchedSource<CertState>({ kind: 'starting', bundle: undefined }),
  ];
  const sources = states.map((state) => ({ state }) as unknown as CertSource);
  let told = 0;
  const stop = agentHealth(fakeView(), served(sources), () => 0).onChange(() => {
    told += 1;
  });
  const before = told;
  for (const state of states) state.set({ kind: 'starting', bundle: undefined });
  expect(told - before).toBe(2);
  stop();
  states[0]!.set({ kind: 'starting', bundle: undefined });
  expect(told - before).toBe(2);
});

test('workloads that come and go with a list are followed from then on, and no longer', () => {
  const state = () => new WatchedSource<CertState>({ kind: 'starting', bundle: undefined });
  const [first, second] = [state(), state()];
  let sources = [{ state: first } as unknown as CertSource];
  const changes = new WatchedSource(0);
  let heard = 0;
  const supervised = { workloads: () => sources.map((source) => ({ source })), changes };
  const stop = agentHealth(fakeView(), supervised, () => 0).onChange(() => {
    heard += 1;
  });
  sources = [{ state: second } as unknown as CertSource];
  changes.set(1);
  const before = heard;
  first.set({ kind: 'starting', bundle: undefined });
  expect(heard).toBe(before);
  second.set({ kind: 'starting', bundle: undefined });
  expect(heard).toBe(before + 1);
  stop();
  second.set({ kind: 'starting', bundle: undefined });
  changes.set(2);
  expect(heard).toBe(before + 1);
});
