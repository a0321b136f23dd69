import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { AgentError } from '../../agent/base/errors';
import { firstValue } from '../../agent/base/watched';
import { directEngine } from '../../agent/identity/direct-engine';
import type { KeyAlgorithm } from '../../agent/identity/keys';
import { parseSpiffeId, type SpiffeId } from '../../agent/identity/spiffe-id';
import { acceptIssuedChain, type Svid } from '../../agent/identity/svid';
import type { CaClient } from '../../ca-client/ca-client';

/** A CA client with whatever it talks to, ready to certify `id`. */
export interface CaUnderTest {
  readonly ca: CaClient;
  readonly id: SpiffeId;
  /** Epoch milliseconds, as the CA and the gate see it. */
  now(): number;
  /** What the gate warns of in every certificate of this CA; default nothing. */
  readonly warnings?: readonly string[];
  /** Ends what `ca.close()` does not: servers and processes. */
  close(): Promise<void>;
}

/** Asks for this long: no backend refuses it, the shortest that the Kubernetes API signs is ten minutes. */
const TTL_SECONDS = 900;
const CODES = [
  'ERR_CA_UNAVAILABLE',
  'ERR_CA_REJECTED',
  'ERR_TOKEN',
  'ERR_CA_STATE',
  'ERR_CA_RESPONSE',
  'ERR_ABORTED',
];

/** What every implementation of `CaClient` promises. */
export function describeCaClient(name: string, make: () => Promise<CaUnderTest>): void {
  describe(`the CA client ${name}`, () => {
    let peer: CaUnderTest;
    beforeEach(async () => {
      peer = await make();
    });
    afterEach(async () => {
      await peer.ca.close();
      await peer.close();
    });

    /** One certificate for `id`, as the gate takes it. */
    async function issue(
      options: {
        algorithm?: KeyAlgorithm;
        id?: SpiffeId;
        ttlSeconds?: number;
        signal?: AbortSignal;
      } = {},
    ): Promise<Svid> {
      const {
        algorithm = 'ecdsa-p256',
        id = peer.id,
        ttlSeconds = TTL_SECONDS,
        signal = AbortSignal.timeout(20_000),
      } = options;
      const key = await directEngine.generateKeyPair(algorithm);
      const csrDer = await directEngine.createCsr(key, id);
      const { certificatesDer } = await peer.ca.sign({ id, csrDer, ttlSeconds }, signal);
      const trust = peer.ca.trust.value;
      if (!trust) throw new Error('the trust bundle is not known after a signature');
      return acceptIssuedChain(
        { id, key, source: peer.ca.name },
        certificatesDer,
        trust,
        peer.now(),
      );
    }

    const failure = (promise: Promise<unknown>) =>
      promise.then(
        () => undefined,
        (caught: unknown) => caught,
      );

    test.each(['ecdsa-p256', 'ecdsa-p384', 'rsa-2048'] as const)(
      'certifies a key of %s, and the gate accepts it',
      async (algorithm) => {
        const svid = await issue({ algorithm });
        expect(svid).toMatchObject({
          id: peer.id,
          source: name,
          warnings: peer.warnings ?? [],
          key: { algorithm },
        });
      },
    );

    test('knows its roots, and they are those that the certificate verified to', async () => {
      const trust = await firstValue(
        peer.ca.trust,
        (value) => value !== undefined,
        AbortSignal.timeout(20_000),
      );
      expect((await issue()).bundle).toEqual(trust);
    });

    test('gives the lifetime that was asked for', async () => {
      const svid = await issue();
      const wantedAt = peer.now() + TTL_SECONDS * 1_000;
      expect(Math.abs(svid.notAfterAt - wantedAt)).toBeLessThanOrEqual(10_000);
      expect(svid.notBeforeAt).toBeLessThanOrEqual(peer.now());
    });

    test('answers a lifetime beyond its own with its own, or with a refusal', async () => {
      const error = await failure(
        issue({ ttlSeconds: 100 * 365 * 86_400 }).then((svid) => {
          // No further warning: the leaf does not outlive what signed it.
          expect(svid.warnings).toEqual(peer.warnings ?? []);
        }),
      );
      if (error !== undefined) expect(error).toMatchObject({ code: 'ERR_CA_REJECTED' });
    });

    test('certifies no other identity than that of its caller', async () => {
      const other = parseSpiffeId(`spiffe://${peer.id.trustDomain}/ns/kube-system/sa/admin`);
      expect(await failure(issue({ id: other }))).toMatchObject({
        code: expect.stringMatching(/^ERR_CA_(REJECTED|RESPONSE)$/),
      });
    });

    test('refuses a request that is not one, in a typed error that says when to try again', async () => {
      const request = { id: peer.id, csrDer: Buffer.from('no request'), ttlSeconds: TTL_SECONDS };
      const error = await failure(peer.ca.sign(request, AbortSignal.timeout(20_000)));
      expect(error).toBeInstanceOf(AgentError);
      expect(error).toMatchObject({ code: 'ERR_CA_REJECTED', retry: 'slow' });
    });

    test('signs fifty requests at once, each for its own key with its own serial', async () => {
      const svids = await Promise.all(Array.from({ length: 50 }, () => issue()));
      expect(new Set(svids.map(({ serial }) => serial)).size).toBe(50);
    });

    test('gives up at once when its signal fires, before the request and during it', async () => {
      expect(await failure(issue({ signal: AbortSignal.abort() }))).toMatchObject({
        code: 'ERR_ABORTED',
      });
      const giveUp = new AbortController();
      const during = failure(issue({ signal: giveUp.signal }));
      setImmediate(() => giveUp.abort());
      const error = await during;
      // It may have been answered before the signal fired.
      if (error !== undefined) expect(error).toMatchObject({ code: 'ERR_ABORTED' });
      await expect(issue()).resolves.toBeDefined();
    });

    test('lets a listener go', () => {
      const stop = peer.ca.onChange(() => undefined);
      stop();
      expect(() => stop()).not.toThrow();
    });

    test('needs no credential, or one that is still valid', () => {
      const expiresAt = peer.ca.credentialExpiresAt();
      if (expiresAt !== undefined) expect(expiresAt).toBeGreaterThan(peer.now());
    });

    test('closes twice, and signs no more', async () => {
      const inFlight = failure(issue());
      await peer.ca.close();
      await peer.ca.close();
      const error = await inFlight;
      if (error !== undefined) expect(CODES).toContain((error as AgentError).code);
      expect(await failure(issue())).toMatchObject({ code: 'ERR_ABORTED' });
    });
  });
}
