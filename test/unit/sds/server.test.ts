import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync, lstatSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { certificatesPem } from '../../../agent/identity/certificate';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { underLoad } from '../../support/load';
import { createSdsClient, type Received, type ReceivedSecret } from '../../support/sds-client';
import {
  currentState,
  issueCa,
  issueSvid,
  type SdsWorld,
  startSdsWorld,
  unavailableState,
} from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';

let world: SdsWorld;
beforeEach(async () => {
  world = await startSdsWorld(tempDir());
});
afterEach(() => world.close());

function serialOf(secret: ReceivedSecret | undefined): string {
  return new X509Certificate(secret!.chainPem!).serialNumber.toLowerCase();
}

describe('a stream', () => {
  test('istio 10a.1 gets the identity as PEM that belongs together, and as ROOTCA exactly the trust bundle', async () => {
    const svid = await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default', 'ROOTCA']);
    const { secrets, names } = await stream.next();
    expect(names).toEqual(['ROOTCA', 'default']);
    const [roots, identity] = secrets;
    expect(serialOf(identity)).toBe(svid.serial);
    const leaf = new X509Certificate(identity!.chainPem!);
    expect(leaf.checkPrivateKey(createPrivateKey(identity!.keyPem!))).toBe(true);
    expect(roots!.rootsPem).toBe(certificatesPem(svid.bundle.rootsDer).toString());
    expect(leaf.verify(new X509Certificate(roots!.rootsPem!).publicKey)).toBe(true);
  });

  test('istio 10a.2 a rotation pushes default alone, unless the roots changed too', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['ROOTCA', 'default']);
    await stream.next();
    stream.ack();
    await world.rotate();
    expect((await stream.next()).names).toEqual(['default']);
    stream.ack();
    await stream.silence();
  });

  test('istio 10a.4, 10.21 is answered with the added name alone', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    expect((await stream.next()).names).toEqual(['default']);
    stream.request(['default', 'ROOTCA']);
    expect((await stream.next()).names).toEqual(['ROOTCA']);
    stream.ack();
    await stream.silence();
  });

  test('istio 10.22 asks for the roots and then, without a nonce, for the certificate', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['ROOTCA']);
    expect((await stream.next()).names).toEqual(['ROOTCA']);
    stream.request(['default'], { nonce: '', version: '' });
    expect((await stream.next()).names).toEqual(['default']);
  });

  test('istio 10.23 is answered twice when it sends the same first request twice', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default'], { nonce: '' });
    const first = await stream.next();
    stream.request(['default'], { nonce: '' });
    const second = await stream.next();
    expect(second.version).toBe(first.version);
    expect(second.nonce).not.toBe(first.nonce);
  });

  test('istio 10a.5, 10.28 (D4) with the nonce and version of an agent before this one is answered', async () => {
    await world.rotate();
    const before = world.client().openStream();
    before.request(['default']);
    const { nonce, version } = await before.next();
    const after = world.client().openStream();
    after.request(['default'], { nonce, version });
    expect((await after.next()).version).toBe(version);
  });

  test('istio 10a.6, 10.31 hears nothing after it unsubscribed, and everything after it came back', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    await stream.next();
    stream.request([]);
    await world.rotate();
    await stream.silence();
    stream.request(['default']);
    expect((await stream.next()).names).toEqual(['default']);
  });

  test('istio 10a.6, 10.32 hears nothing after a NACK until the secret is another', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    await stream.next();
    stream.nack('key values mismatch');
    await stream.silence();
    const refused = world.events.filter(({ event }) =>
      event.startsWith('secret rejected by client'),
    );
    expect(refused).toEqual([
      expect.objectContaining({
        level: 'warn',
        facts: expect.objectContaining({ message: 'key values mismatch' }),
      }),
    ]);
    const svid = await world.rotate();
    expect(serialOf((await stream.next()).secrets[0])).toBe(svid.serial);
  });

  test('istio 10a.7, 10.27 is pushed only what it watches', async () => {
    await world.rotate();
    const [leaves, roots] = [world.client().openStream(), world.client().openStream()];
    leaves.request(['default']);
    roots.request(['ROOTCA']);
    for (const each of [leaves, roots]) {
      await each.next();
      each.ack();
    }
    await world.rotate();
    expect((await leaves.next()).names).toEqual(['default']);
    await roots.silence();
  });

  test('istio 10a.8, 10.25, 10.26 waits with an identity that cannot be made, and is answered when it can; other streams are well', async () => {
    world.state.set(unavailableState(world.ca.bundle));
    const waiting = world.client().openStream();
    waiting.request(['default', 'ROOTCA']);
    expect((await waiting.next()).names).toEqual(['ROOTCA']);
    waiting.ack();
    await waiting.silence();
    const svid = await world.rotate();
    expect(serialOf((await waiting.next()).secrets[0])).toBe(svid.serial);
    expect((await world.client().get('default')).name).toBe('default');
  });

  test('istio 10a.12 gets a changed bundle once, and the leaf only when that changes too', async () => {
    const svid = await world.rotate();
    const other = await issueCa('other');
    const stream = world.client().openStream();
    stream.request(['ROOTCA', 'default']);
    await stream.next();
    stream.ack();
    const both = createTrustBundle([...svid.bundle.rootsDer, other.certificateDer]);
    world.state.set(currentState(svid, both));
    world.state.set(currentState(svid, createTrustBundle([...both.rootsDer].reverse())));
    const pushed = await stream.next();
    expect(pushed.names).toEqual(['ROOTCA']);
    expect(pushed.secrets[0]!.rootsPem).toBe(certificatesPem(both.rootsDer).toString());
    stream.ack();
    await stream.silence();
  });

  test('istio 10.24, 10.29, 10.30 lives beside others, on one connection and on several', async () => {
    const svid = await world.rotate();
    const shared = world.client();
    const streams = [...Array(20)].map((_, index) =>
      (index % 2 === 0 ? shared : world.client()).openStream(),
    );
    for (const stream of streams) stream.request(['default']);
    for (const stream of streams)
      expect(serialOf((await stream.next()).secrets[0])).toBe(svid.serial);
  });

  test('D23 gets the bundle before the leaf when both change at once', async () => {
    await world.rotate();
    const client = world.client();
    const [both, leaves, roots] = [client.openStream(), client.openStream(), client.openStream()];
    const order: string[] = [];
    both.request(['default', 'ROOTCA']);
    leaves.request(['default']);
    roots.request(['ROOTCA']);
    for (const each of [both, leaves, roots]) {
      await each.next();
      each.ack();
    }
    await both.silence(20);
    const other = await issueCa('other');
    const bundle = createTrustBundle([world.ca.certificateDer, other.certificateDer]);
    const arrivals = [roots, leaves].map(async (each) => order.push(...(await each.next()).names));
    world.state.set(currentState(await issueSvid(other, bundle), bundle));
    const first = await both.next();
    both.ack();
    const second = await both.next();
    expect([first.names, second.names]).toEqual([['ROOTCA'], ['default']]);
    await Promise.all(arrivals);
    expect(order).toEqual(['ROOTCA', 'default']);
  });

  test('an expired certificate is offered to nobody and taken from nobody', async () => {
    const svid = await world.rotate();
    const holder = world.client().openStream();
    holder.request(['default']);
    await holder.next();
    holder.ack();
    world.state.set(unavailableState(svid.bundle, svid));
    const newcomer = world.client().openStream();
    newcomer.request(['default']);
    await newcomer.silence();
    await holder.silence(20);
    const renewed = await world.rotate();
    for (const each of [holder, newcomer])
      expect(serialOf((await each.next()).secrets[0])).toBe(renewed.serial);
  });

  test('versions are the same for the same bytes, in every stream and method', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    const { version } = await stream.next();
    const delta = world.client().openDelta();
    delta.request({ subscribe: ['default'] });
    expect((await delta.next()).versions.get('default')).toBe(version);
    expect((await world.client().fetch(['default'])).version).toBe(version);
    expect(version).toMatch(/^[0-9a-f]{32}$/);
  });

  test('istio 10.33 the key is always inline: there are no private key providers', async () => {
    await world.rotate();
    expect((await world.client().get('default')).keyPem).toContain('BEGIN PRIVATE KEY');
  });

  test('a key asked for in its traditional form is SEC1', async () => {
    const other = await startSdsWorld(tempDir(), { keyFormat: 'traditional' });
    try {
      await other.rotate();
      const secret = await other.client().get('default');
      expect(secret.keyPem).toContain('BEGIN EC PRIVATE KEY');
      expect(
        new X509Certificate(secret.chainPem!).checkPrivateKey(createPrivateKey(secret.keyPem!)),
      ).toBe(true);
    } finally {
      await other.close();
    }
  });
});

describe('unknown names', () => {
  test('D1 are left out of state-of-the-world responses, and alone get none', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['nobody']);
    await stream.silence();
    stream.request(['nobody', 'default', 'file-cert:a', 'file-root:a~b', 'sds://x']);
    expect((await stream.next()).names).toEqual(['default']);
    stream.ack();
    await stream.silence();
  });

  test('D1 are listed as removed by delta, beside what is served', async () => {
    await world.rotate();
    const stream = world.client().openDelta();
    stream.request({ subscribe: ['nobody', 'default'] });
    const { names, removed } = await stream.next();
    expect([names, removed]).toEqual([['default'], ['nobody']]);
  });

  test('D1 are NOT_FOUND when fetched alone, and left out otherwise', async () => {
    await world.rotate();
    await expect(world.client().fetch(['nobody'])).rejects.toMatchObject({
      code: status.NOT_FOUND,
    });
    expect((await world.client().fetch(['nobody', 'ROOTCA'])).names).toEqual(['ROOTCA']);
  });

  test('D1 are logged once and counted every time', async () => {
    await world.rotate();
    for (let times = 0; times < 3; times += 1)
      await expect(world.client().fetch(['nobody'])).rejects.toThrow();
    expect(world.server.unknownNames()).toEqual([{ name: 'nobody', count: 3 }]);
    expect(world.events.filter(({ facts }) => facts.name === 'nobody')).toHaveLength(1);
  });
});

describe('delta', () => {
  test('D15 subscribes, is pushed rotations, and unsubscribes', async () => {
    await world.rotate();
    const stream = world.client().openDelta();
    stream.request({ subscribe: ['default', 'ROOTCA'] });
    expect((await stream.next()).names).toEqual(['ROOTCA', 'default']);
    stream.ack();
    const svid = await world.rotate();
    const pushed = await stream.next();
    expect(pushed.names).toEqual(['default']);
    expect(serialOf(pushed.secrets[0])).toBe(svid.serial);
    stream.ack();
    stream.request({ unsubscribe: ['default'] });
    await stream.silence(50);
    await world.rotate();
    await stream.silence();
  });

  test('D15 is not sent the version that it brings along, but the next one', async () => {
    await world.rotate();
    const before = world.client().openDelta();
    before.request({ subscribe: ['default'] });
    const version = (await before.next()).versions.get('default')!;
    const after = world.client().openDelta();
    after.request({ subscribe: ['default'], versions: { default: version } });
    await after.silence();
    expect(world.server.streams().at(-1)!.names[0]).toMatchObject({ acknowledgedVersion: version });
    const svid = await world.rotate();
    expect(serialOf((await after.next()).secrets[0])).toBe(svid.serial);
  });

  test('D15 is sent at once what it subscribes to while another response is unanswered', async () => {
    await world.rotate();
    const stream = world.client().openDelta();
    stream.request({ subscribe: ['default'] });
    await stream.next();
    stream.request({ subscribe: ['ROOTCA'] });
    expect((await stream.next()).names).toEqual(['ROOTCA']);
  });
});

describe('fetch', () => {
  test('D15 answers with what was asked for, the bundle first', async () => {
    const svid = await world.rotate();
    const { names, secrets } = await world.client().fetch(['default', 'ROOTCA']);
    expect(names).toEqual(['ROOTCA', 'default']);
    expect(serialOf(secrets[1])).toBe(svid.serial);
  });

  test('D9 waits for the first certificate', async () => {
    const coming: Promise<Received> = world.client().fetch(['default']);
    const svid = await world.rotate();
    expect(serialOf((await coming).secrets[0])).toBe(svid.serial);
  });

  test('keeps to the deadline of the client', async () => {
    await expect(world.client().fetch(['default'], { deadlineMs: 100 })).rejects.toMatchObject({
      code: status.DEADLINE_EXCEEDED,
    });
  });

  test.each([
    ['no names', [], undefined],
    ['another type', ['default'], 'type.googleapis.com/envoy.config.cluster.v3.Cluster'],
  ])('of %s is INVALID_ARGUMENT', async (_what, names, typeUrl) => {
    await world.rotate();
    const fetched = world.client().fetch(names, typeUrl === undefined ? {} : { typeUrl });
    await expect(fetched).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  });
});

describe('acknowledged', () => {
  test('resolves with the number of streams that took the leaf, or a later one', async () => {
    await world.rotate();
    const streams = [world.client().openStream(), world.client().openStream()];
    const roots = world.client().openStream();
    roots.request(['ROOTCA']);
    await roots.next();
    for (const stream of streams) {
      stream.request(['default']);
      await stream.next();
      stream.ack();
    }
    const svid = await world.rotate();
    let count: number | undefined;
    const done = world.server
      .acknowledged(svid.serial, AbortSignal.timeout(5_000))
      .then((streamCount) => {
        count = streamCount;
      });
    await streams[0]!.next();
    streams[0]!.ack();
    await streams[1]!.silence(50).catch(() => undefined);
    expect(count).toBeUndefined();
    await streams[1]!.next();
    await world.rotate();
    streams[1]!.ack();
    await done;
    expect(count).toBe(2);
  });

  test('does not wait for a stream that has gone', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    await stream.next();
    const svid = await world.rotate();
    const done = world.server.acknowledged(svid.serial, AbortSignal.timeout(5_000));
    stream.cancel();
    expect(await done).toBe(0);
  });

  test('rejects with the reason of the signal', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    await stream.next();
    const svid = await world.rotate();
    const enough = new Error('enough');
    const giveUp = new AbortController();
    const done = world.server.acknowledged(svid.serial, giveUp.signal);
    giveUp.abort(enough);
    await expect(done).rejects.toBe(enough);
  });
});

describe('the ledger', () => {
  test('shows what was sent, accepted and refused under each name', async () => {
    const first = await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    const sent = await stream.next();
    stream.ack();
    const second = await world.rotate();
    const pushed = await stream.next();
    stream.nack('no thanks');
    await stream.silence(50);
    const [status] = world.server.streams();
    expect(status).toMatchObject({ kind: 'sotw', node: 'test' });
    expect(status!.names).toEqual([
      {
        name: 'default',
        sentVersion: pushed.version,
        sentSerial: second.serial,
        sentAt: expect.any(String),
        acknowledgedVersion: sent.version,
        acknowledgedAt: expect.any(String),
        nack: { version: pushed.version, message: 'no thanks', at: expect.any(String) },
      },
    ]);
    expect(first.serial).not.toBe(second.serial);
  });
});

describe('the socket', () => {
  test('has the mode asked for, and the log says whom 0600 shuts out', async () => {
    expect(lstatSync(world.socketPath).mode & 0o777).toBe(0o600);
    expect(world.events).toContainEqual(
      expect.objectContaining({
        event: 'sds socket accessible to this user only',
        facts: expect.objectContaining({
          hint: expect.stringContaining('--sds-socket-mode 0660 --sds-socket-group'),
        }),
      }),
    );
  });

  test('is a fatal error when another server lives on it', async () => {
    await expect(startSdsWorld(tempDir(), { socketPath: world.socketPath })).rejects.toMatchObject({
      code: 'ERR_SOCKET_IN_USE',
    });
    await world.rotate();
    expect((await world.client().get('default')).name).toBe('default');
  });
});

describe('close', () => {
  test('ends streams as unavailable, removes the socket and takes well under a second with clients that hang', async () => {
    await world.rotate();
    const stream = world.client().openStream();
    stream.request(['default']);
    await stream.next();
    const fetching = world.client().fetch(['default', 'ROOTCA']);
    await fetching;
    const begun = Date.now();
    await world.server.close();
    expect(Date.now() - begun).toBeLessThan(underLoad(500));
    expect(existsSync(world.socketPath)).toBe(false);
    expect(await stream.ended).toMatchObject({ code: status.UNAVAILABLE });
  });

  test('ends calls that wait', async () => {
    const stream = world.client().openStream();
    stream.request(['default']);
    const fetching = world.client().fetch(['default']);
    const refused = expect(fetching).rejects.toMatchObject({ code: status.UNAVAILABLE });
    await stream.silence(50);
    await world.server.close();
    await refused;
    expect(await stream.ended).toMatchObject({ code: status.UNAVAILABLE });
  });

  test('leaves a path that a new server can take at once', async () => {
    await world.server.close();
    const next = await startSdsWorld(tempDir(), { socketPath: world.socketPath });
    try {
      await next.rotate();
      const client = createSdsClient(world.socketPath);
      expect((await client.get('ROOTCA')).name).toBe('ROOTCA');
      client.close();
    } finally {
      await next.close();
    }
  });
});
