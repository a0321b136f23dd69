import { describe, expect, test } from '@jest/globals';
import { parseCertificates } from '../../../agent/identity/certificate';
import { directEngine } from '../../../agent/identity/direct-engine';
import {
  advance,
  formatSharedRoot,
  makeSharedRoot,
  nextStage,
  parseSharedRoot,
  type SecretContent,
  type SharedRoot,
  SINCE,
} from '../../../agent/webhook/root-secret';
import { outcome } from '../../support/outcome';

const NOW = Date.parse('2026-01-01T00:00:00Z');
const days = (count: number) => count * 24 * 3_600_000;
const inDays = (root: SharedRoot, from: number) =>
  Math.round((nextStage(root).dueAt - from) / days(1));
const serials = (pem: Buffer) => parseCertificates(pem, 'roots').map(({ serial }) => serial);

/** As the Secret would hold it after the change. */
function stored(root: SharedRoot): SecretContent {
  const { data, annotations } = formatSharedRoot(root);
  const kept = Object.entries(data).filter((entry): entry is [string, string] => entry[1] !== null);
  return { data: Object.fromEntries(kept), annotations };
}

test('a root of a year is replaced at its half: announced, a day later in use, two days later alone', async () => {
  const first = await makeSharedRoot(directEngine, NOW);
  expect([nextStage(first).kind, inDays(first, NOW)]).toEqual(['announce', 183]);

  const announcedAt = NOW + days(183);
  const announced = await advance(first, directEngine, announcedAt);
  expect(announced.signer).toBe(first.signer);
  expect(serials(announced.rootsPem)).toEqual([
    ...serials(first.signer.certPem),
    ...serials(announced.next!.certPem),
  ]);
  expect([nextStage(announced).kind, inDays(announced, announcedAt)]).toEqual(['activate', 1]);

  const activated = await advance(announced, directEngine, announcedAt + days(1));
  expect(activated.signer).toBe(announced.next);
  expect(activated.next).toBeUndefined();
  expect(activated.rootsPem).toEqual(announced.rootsPem);
  expect([nextStage(activated).kind, inDays(activated, announcedAt + days(1))]).toEqual([
    'retire',
    2,
  ]);

  const retired = await advance(activated, directEngine, announcedAt + days(3));
  expect(retired.signer).toBe(activated.signer);
  expect(serials(retired.rootsPem)).toEqual(serials(activated.signer.certPem));
  expect(nextStage(retired).kind).toBe('announce');
});

test('a webhook that was away for years begins with a new root: nobody accepts the old one', async () => {
  const old = await makeSharedRoot(directEngine, NOW);
  const later = NOW + days(800);
  expect(nextStage(old).dueAt).toBeLessThan(later);
  const root = await advance(old, directEngine, later);
  expect(root.next).toBeUndefined();
  expect(serials(root.rootsPem)).toEqual(serials(root.signer.certPem));
  expect(serials(root.rootsPem)).not.toEqual(serials(old.rootsPem));
});

test('a time of a stage that is long past, as an operator may write it, brings the next at once', async () => {
  const { data } = stored(await makeSharedRoot(directEngine, NOW));
  const root = parseSharedRoot({ data, annotations: { [SINCE]: '2000-01-01T00:00:00Z' } })!;
  expect(nextStage(root).dueAt).toBeLessThan(NOW);
});

test.each(['announce', 'activate', 'retire'])(
  'what a Secret holds before %s is read as it was written',
  async (stage) => {
    let root = await makeSharedRoot(directEngine, NOW);
    while (nextStage(root).kind !== stage) root = await advance(root, directEngine, NOW);
    const read = parseSharedRoot(stored(root))!;
    expect(stored(read)).toEqual(stored(root));
    expect(JSON.stringify(root)).not.toContain(
      root.signer.keyPem.reveal().toString('base64').slice(0, 40),
    );
  },
);

test('an empty Secret holds none', () => {
  expect(parseSharedRoot({ data: {}, annotations: {} })).toBeUndefined();
});

describe('a Secret that somebody damaged is refused by its key', () => {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  test.each([
    [
      'W41 without its key',
      { 'ca-key.pem': undefined },
      'ca-key.pem',
      'must be present beside ca-cert.pem, root-cert.pem',
    ],
    [
      'W42 without its roots',
      { 'root-cert.pem': undefined },
      'root-cert.pem',
      'must be present beside ca-key.pem, ca-cert.pem',
    ],
    [
      'W43 with text for a certificate',
      { 'ca-cert.pem': base64('x') },
      'ca-cert.pem',
      expect.any(String),
    ],
    [
      'W44 with no root that is good',
      { 'root-cert.pem': base64('x') },
      'root-cert.pem',
      expect.any(String),
    ],
    [
      'W45 with half of a next root',
      { 'next-ca-key.pem': base64('x') },
      'next-ca-cert.pem',
      expect.stringMatching(/^must be present beside /),
    ],
  ])('%s', async (_, change, field, rule) => {
    const good = stored(await makeSharedRoot(directEngine, NOW));
    const data = Object.fromEntries(
      Object.entries({ ...good.data, ...change }).filter(
        (each): each is [string, string] => each[1] !== undefined,
      ),
    );
    expect(outcome(() => parseSharedRoot({ ...good, data }))).toEqual({ field, rule });
  });

  test('W46 with a time that is none', async () => {
    const good = stored(await makeSharedRoot(directEngine, NOW));
    expect(outcome(() => parseSharedRoot({ ...good, annotations: { [SINCE]: 'soon' } }))).toEqual({
      field: `annotation ${SINCE}`,
      rule: 'must be a time, e.g. 2026-01-31T00:00:00Z',
    });
  });
});
