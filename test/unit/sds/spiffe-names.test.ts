import { afterEach, describe, expect, test } from '@jest/globals';
import { WatchedSource } from '../../../agent/base/watched';
import { certificatesPem } from '../../../agent/identity/certificate';
import type { CrlSet } from '../../../agent/identity/crl';
import type { FederatedBundles } from '../../../agent/identity/spiffe-bundle';
import { parseSpiffeId } from '../../../agent/identity/spiffe-id';
import type { TrustBundle } from '../../../agent/identity/trust-bundle';
import { X509BundlesResponse } from '../../../sds/proto/generated/workload';
import { TEST_ID } from '../../support/certs';
import {
  currentState,
  issueCa,
  issueSvid,
  type SdsWorld,
  startSdsWorld,
} from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';
import { createWorkloadClient } from '../../support/workload-client';

const OWN = 'spiffe://cluster.local';
const OTHER = 'spiffe://other.example';
const dir = tempDir();
let world: SdsWorld;

const start = async (options: Parameters<typeof startSdsWorld>[1] = {}) => {
  world = await startSdsWorld(dir, { id: parseSpiffeId(TEST_ID), ...options });
};
const pemOf = (bundle: TrustBundle) => certificatesPem(bundle.rootsDer).toString();
const federated = (roots: TrustBundle | undefined): FederatedBundles =>
  new Map([
    [
      'other.example',
      { trustDomain: 'other.example', roots, jwtKeys: [], refreshHintSeconds: undefined },
    ],
  ]);

afterEach(() => world.close());

describe("SPIRE's names", () => {
  test('the SPIFFE ID is the certificate, as default is', async () => {
    await start();
    await world.rotate();
    const [byId, byDefault] = [
      await world.client().get(TEST_ID),
      await world.client().get('default'),
    ];
    expect(byId).toEqual({ ...byDefault, name: TEST_ID });
  });

  test('the trust domain is a context that judges its peers and nobody else, by SPIFFE rules', async () => {
    await start();
    await world.rotate();
    const { trustDomains, rootsPem } = await world.client().get(OWN);
    expect(trustDomains).toEqual(new Map([['cluster.local', pemOf(world.ca.bundle)]]));
    expect(rootsPem).toBeUndefined();
  });

  test('ALL is every trust domain that is believed; ROOTCA is never anything but our own roots', async () => {
    const other = await issueCa('other');
    await start({ federated: new WatchedSource(federated(other.bundle)) });
    await world.rotate();
    expect((await world.client().get('ALL')).trustDomains).toEqual(
      new Map([
        ['cluster.local', pemOf(world.ca.bundle)],
        ['other.example', pemOf(other.bundle)],
      ]),
    );
    expect((await world.client().get(OTHER)).trustDomains).toEqual(
      new Map([['other.example', pemOf(other.bundle)]]),
    );
    expect((await world.client().get('ROOTCA')).rootsPem).toBe(pemOf(world.ca.bundle));
  });

  test.each([
    'spiffe://cluster.local/ns/shop/sa/till',
    'spiffe://unknown.example',
    'spiffe://',
    'spiffe://cluster.local/',
    'SPIFFE://cluster.local',
    'all',
  ])('%s is nobody, and never us', async (name) => {
    await start();
    await world.rotate();
    await expect(world.client().fetch([name])).rejects.toMatchObject({ code: 5 });
  });

  test('a mounted certificate says which names there are', async () => {
    await start({ id: undefined });
    const stream = world.client().openStream();
    stream.request([TEST_ID, OWN]);
    await stream.silence();
    await world.rotate();
    expect((await stream.next()).names).toEqual([OWN]);
    stream.ack();
    expect((await stream.next()).names).toEqual([TEST_ID]);
  });
});

describe('a changed bundle', () => {
  test('of another trust domain is pushed to those who watch it', async () => {
    const [one, two] = [await issueCa('one'), await issueCa('two')];
    const source = new WatchedSource(federated(one.bundle));
    await start({ federated: source });
    await world.rotate();
    const [all, roots] = [world.client().openStream(), world.client().openStream()];
    all.request(['ALL']);
    await all.next();
    all.ack();
    roots.request(['ROOTCA']);
    await roots.next();
    roots.ack();
    source.set(federated(two.bundle));
    expect((await all.next()).secrets[0]!.trustDomains!.get('other.example')).toBe(
      pemOf(two.bundle),
    );
    await roots.silence();
  });

  test('that has become empty lets nobody in any more, under either name and over the Workload API', async () => {
    const one = await issueCa('one');
    const source = new WatchedSource(federated(one.bundle));
    await start({ federated: source });
    await world.rotate();
    const stream = world.client().openStream();
    stream.request([OTHER]);
    await stream.next();
    stream.ack();
    source.set(federated(undefined));
    expect([...(await stream.next()).secrets[0]!.trustDomains!.keys()]).toEqual(['nobody.invalid']);
    expect([...(await world.client().get('ALL')).trustDomains!.keys()]).toEqual(['cluster.local']);
    const client = createWorkloadClient(world.socketPath);
    const bundles = await client
      .stream('FetchX509Bundles', (bytes) => X509BundlesResponse.decode(bytes))
      .next();
    expect([...bundles.bundles.keys()]).toEqual([OWN]);
    client.close();
  });

  test('that is not known yet is waited for under its name, and holds up nobody else', async () => {
    await start({
      federated: new WatchedSource<FederatedBundles>(new Map([['other.example', undefined]])),
    });
    await world.rotate();
    const stream = world.client().openStream();
    stream.request([OTHER]);
    await stream.silence();
    expect([...(await world.client().get('ALL')).trustDomains!.keys()]).toEqual(['cluster.local']);
  });

  test('of ours is sent before a certificate of it is offered, whatever the names', async () => {
    await start();
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['ALL', TEST_ID]);
    await stream.next();
    stream.ack();
    const other = await issueCa('other');
    world.state.set(currentState(await issueSvid(other)));
    expect((await stream.next()).names).toEqual(['ALL']);
    stream.ack();
    expect((await stream.next()).names).toEqual([TEST_ID]);
  });
});

test('with revocation lists, contexts wait for the first and carry it among the roots, where the SPIFFE validator looks', async () => {
  const lists = new WatchedSource<CrlSet | undefined>(undefined);
  await start({ crl: lists });
  await world.rotate();
  const stream = world.client().openStream();
  stream.request(['ALL']);
  await stream.silence();
  lists.set({ pem: Buffer.from('LIST\n'), version: '1', lists: [] } as unknown as CrlSet);
  expect((await stream.next()).secrets[0]!.trustDomains!.get('cluster.local')).toBe(
    `${pemOf(world.ca.bundle)}LIST\n`,
  );
});

test('rotate --wait waits for streams that know the certificate by its SPIFFE ID', async () => {
  await start();
  await world.rotate();
  const stream = world.client().openStream();
  stream.request([TEST_ID]);
  await stream.next();
  stream.ack();
  const svid = await world.rotate();
  let count: number | undefined;
  const waiting = world.server.acknowledged(svid.serial, AbortSignal.timeout(5_000)).then((got) => {
    count = got;
  });
  await stream.next();
  await stream.silence();
  expect(count).toBeUndefined();
  stream.ack();
  await waiting;
  expect(count).toBe(1);
});
