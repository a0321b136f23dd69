import { afterEach, expect, test } from '@jest/globals';
import { atOnce } from '../../../agent/base/steps';
import { WatchedSource } from '../../../agent/base/watched';
import { type CrlSet, crlSetSteps } from '../../../agent/identity/crl';
import { HOUR_MS, type TestCa } from '../../support/certs';
import { parseCrl } from '../../support/parse-crl';
import { makeList } from '../../support/proxy-sets';
import { type SdsWorld, startSdsWorld } from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';

let world: SdsWorld;
afterEach(() => world.close());

function listsOf(ca: TestCa, number: number): CrlSet {
  const now = Date.now();
  const times = { thisUpdateAt: now - 60_000, nextUpdateAt: now + HOUR_MS };
  return atOnce(crlSetSteps([parseCrl(makeList(ca, { number, ...times }))]));
}

test('H11 ROOTCA waits for the first revocation lists, carries them for leaves alone, and follows them without the certificate', async () => {
  const crl = new WatchedSource<CrlSet | undefined>(undefined);
  world = await startSdsWorld(tempDir(), { crl });
  await world.rotate();
  const stream = world.client().openStream();
  stream.request(['default', 'ROOTCA']);
  expect((await stream.next()).names).toEqual(['default']);
  stream.ack();
  await stream.silence();
  for (const number of [1, 2]) {
    const lists = listsOf(world.ca, number);
    crl.set(lists);
    const { names, secrets } = await stream.next();
    expect(names).toEqual(['ROOTCA']);
    expect(secrets[0]).toMatchObject({ crlPem: lists.pem.toString(), onlyVerifyLeafCertCrl: true });
    stream.ack();
  }
  await world.rotate();
  expect((await stream.next()).names).toEqual(['default']);
  stream.ack();
  await stream.silence();
});

test('without --crl there is nothing of revocation in ROOTCA', async () => {
  world = await startSdsWorld(tempDir());
  await world.rotate();
  const stream = world.client().openStream();
  stream.request(['ROOTCA']);
  expect((await stream.next()).secrets[0]).toMatchObject({
    crlPem: undefined,
    onlyVerifyLeafCertCrl: false,
  });
});
