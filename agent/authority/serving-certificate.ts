import { withDeadline } from '../base/clock';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { certificatesPem } from '../identity/certificate';
import { generateKeyPair, privateKeyPem } from '../identity/keys';
import type { TrustBundle } from '../identity/trust-bundle';
import { chainToHandOut } from '../identity/valid-now';
import type { Authority, IssuedLeaf } from './authority';
import type { ServerNames } from './certificate-specs';

/** What a TLS server shows and asks for. */
export interface ServingIdentity {
  readonly certPem: Buffer;
  readonly keyPem: Buffer;
  readonly bundle: TrustBundle;
}

/** Renewed at half of it, so a server is without a certificate of its own only after the authority could not sign for twelve hours. */
const TTL_SECONDS = 24 * 3_600;
const RETRY_MS = 5_000;
/** The register may be a Kubernetes API, with its own time for each of two requests. */
const RENEW_MS = 150_000;
/** Never more often, however short the authority's own validity is. */
const LEAST_MS = 1_000;

export interface ServingCertificateOptions {
  readonly authority: Pick<Authority, 'trust' | 'issueServer' | 'onSignerChange'>;
  readonly names: ServerNames;
  /** Takes a new one into use. Connections that exist keep theirs. */
  use(identity: ServingIdentity): void;
  /** Enters it into the register before it is used. */
  record(leaf: IssuedLeaf, spkiDer: Uint8Array): Promise<void>;
}

/**
 * The server's own certificate, from the authority that it serves: made anew with a new key at half of its life, and at once when another
 * key, certificate or root comes into use.
 *
 * @throws AgentError ERR_CA_UNAVAILABLE where the authority cannot sign the first one.
 */
export async function createServingCertificate(
  options: ServingCertificateOptions,
  deps: Deps,
): Promise<{ close(): Promise<void> }> {
  const stop = new AbortController();
  let wake = new AbortController();
  let usedRoots = '';
  const renew = async () => {
    // Made anew before signing, so that a change meanwhile is not lost.
    wake = new AbortController();
    const { identity, renewAt } = await issue(options, deps);
    options.use(identity);
    usedRoots = identity.bundle.version;
    return renewAt;
  };
  let dueAt = await renew();
  const woken = () => wake.abort();
  const unsubscribe = [
    options.authority.onSignerChange(woken),
    options.authority.trust.subscribe(({ version }) => version !== usedRoots && woken()),
  ];
  stop.signal.addEventListener('abort', woken, { once: true });
  const running = (async () => {
    while (!stop.signal.aborted) {
      await deps.clock.sleepUntil(dueAt, wake.signal).catch(() => undefined);
      if (stop.signal.aborted) return;
      try {
        dueAt = await withDeadline(
          deps.clock,
          RENEW_MS,
          'renew the serving certificate',
          stop.signal,
          renew,
        );
      } catch (caught) {
        deps.log.error('serving certificate renewal failed', { cause: AgentError.from(caught) });
        dueAt = deps.clock.now() + RETRY_MS;
        wake = new AbortController();
      }
    }
  })();
  return {
    close: async () => {
      stop.abort();
      for (const end of unsubscribe) end();
      await running;
    },
  };
}

async function issue({ authority, names, record }: ServingCertificateOptions, deps: Deps) {
  const key = await generateKeyPair('ecdsa-p256');
  const bundle = authority.trust.value;
  const leaf = await authority.issueServer(key.spkiDer, names, TTL_SECONDS);
  await record(leaf, key.spkiDer);
  const now = deps.clock.now();
  return {
    identity: {
      certPem: certificatesPem(chainToHandOut(leaf, now)),
      keyPem: privateKeyPem(key, 'pkcs8'),
      bundle,
    },
    renewAt: Math.max(now + (leaf.notAfterAt - now) / 2, now + LEAST_MS),
  };
}
