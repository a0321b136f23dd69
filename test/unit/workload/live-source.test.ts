import { expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import { WatchedSource } from '../../../agent/base/watched';
import type { CertSource, CertState, SourceDescription } from '../../../agent/identity/cert-state';
import type { Svid } from '../../../agent/identity/svid';
import { LiveSource } from '../../../agent/workload/live-source';
import { currentState, issueCa, issueSvid, unavailableState } from '../../support/sds-world';
import { testDeps } from '../../support/test-deps';

/** A source whose state the test sets. */
function fakeSource(initial: CertState = { kind: 'starting', bundle: undefined }) {
  const state = new WatchedSource(initial);
  const fake = {
    closed: 0,
    renewed: [] as string[],
    lastError: undefined as AgentError | undefined,
  };
  const source: CertSource = {
    state,
    describe: () =>
      ({ source: 'fake', lastError: fake.lastError, problem: undefined }) as SourceDescription,
    renewNow: async (reason) => {
      fake.renewed.push(reason);
      return undefined as unknown as Svid;
    },
    close: async () => {
      fake.closed += 1;
    },
  };
  return { state, fake, parts: { source, closers: [] } };
}

async function world() {
  const ca = await issueCa();
  const [oldSvid, newSvid] = [await issueSvid(ca), await issueSvid(ca)];
  const before = fakeSource(currentState(oldSvid));
  const live = new LiveSource(before.parts, testDeps());
  const seen: string[] = [];
  live.state.subscribe((state) =>
    seen.push(state.kind === 'current' ? state.svid.serial : state.kind),
  );
  return { live, before, oldSvid, newSvid, seen };
}

test('the old source stays in service, and is renewed, until the new one has a certificate', async () => {
  const { live, before, oldSvid, newSvid, seen } = await world();
  const after = fakeSource();
  live.replace(after.parts);
  after.state.set(unavailableState(undefined));
  expect(live.state.value).toBe(before.state.value);
  before.state.set({
    ...currentState(oldSvid),
    kind: 'current',
    svid: oldSvid,
    bundle: oldSvid.bundle,
    renewAt: 1,
  });
  expect(seen).toEqual([oldSvid.serial, oldSvid.serial]);
  after.state.set(currentState(newSvid));
  expect(seen.at(-1)).toBe(newSvid.serial);
  await live.close();
  expect([before.fake.closed, after.fake.closed]).toEqual([1, 1]);
});

test('a new source takes over at once where the old one has nothing to lose', async () => {
  const { live, before } = await world();
  before.state.set(unavailableState(undefined));
  const after = fakeSource();
  live.replace(after.parts);
  expect(live.state.value.kind).toBe('starting');
  await live.close();
  expect(before.fake.closed).toBe(1);
});

test('what waits is asked to renew, and its trouble is told beside what is in service', async () => {
  const { live, before } = await world();
  const after = fakeSource();
  live.replace(after.parts);
  after.fake.lastError = new AgentError('ERR_CA_UNAVAILABLE', 'sign: nobody answers');
  await live.renewNow('test');
  expect([before.fake.renewed, after.fake.renewed]).toEqual([[], ['test']]);
  expect(live.describe().problem).toBe(after.fake.lastError);
  await live.close();
});

test('of two that wait one after the other, the first is ended unused', async () => {
  const { live, newSvid, seen } = await world();
  const [first, second] = [fakeSource(), fakeSource()];
  live.replace(first.parts);
  live.replace(second.parts);
  first.state.set(currentState(newSvid));
  expect(seen).toHaveLength(1);
  second.state.set(currentState(newSvid));
  expect(seen.at(-1)).toBe(newSvid.serial);
  await live.close();
  expect([first.fake.closed, second.fake.closed]).toEqual([1, 1]);
});
