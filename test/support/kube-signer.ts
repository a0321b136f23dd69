import { readPem } from '../../agent/base/pem';
import { certificatesPem } from '../../agent/identity/certificate';
import { parseCsr } from '../../agent/identity/csr';
import type { KubeApi } from '../../agent/kube/kube-api';
import { isKubeStatus } from '../../agent/kube/kube-error';
import { CSR_PATH, type KubeCsr } from '../../ca-client/kubernetes/csr-object';
import { HOUR_MS, issueLeaf, makeTestCa, type TestCa } from './certs';

/** One request in the hands of a signer that does as the test tells it. */
export interface CsrInHand {
  readonly csr: KubeCsr;
  /** URI SANs that it asks for. */
  readonly uris: readonly string[];
  approve(): Promise<void>;
  deny(reason: string, message: string): Promise<void>;
  fail(reason: string, message: string): Promise<void>;
  /** A chain of `ca` for the key and the URIs of the request, PEM. */
  chainPem(ca?: TestCa, ttlSeconds?: number): Buffer;
  /** Sets `status.certificate`; default `chainPem()`. */
  issue(pem?: Uint8Array): Promise<void>;
  remove(): Promise<void>;
}

/** Approver and signer in one: for each new request to `signerName` it does as `behave` does. */
export interface TestSigner {
  readonly ca: TestCa;
  /** Replaced at will. */
  behave: (request: CsrInHand) => Promise<void>;
  /** Names of the requests seen, in order. */
  readonly seen: readonly KubeCsr[];
  stop(): Promise<void>;
}

/** A root with an intermediate that signs. Valid around the machine's clock, which the API server goes by. */
export async function makeSignerCa(name = 'mesh'): Promise<TestCa> {
  const validity = {
    notBeforeAt: Date.now() - HOUR_MS,
    notAfterAt: Date.now() + 100 * 365 * 24 * HOUR_MS,
  };
  const root = await makeTestCa({ name: `${name} root`, ...validity });
  return makeTestCa({ name: `${name} signer`, parent: root, ...validity });
}

/** Approves and signs whatever it is asked, unless told otherwise; first what was asked before it came. */
export async function startTestSigner(
  api: KubeApi,
  signerName: string,
  ca?: TestCa,
): Promise<TestSigner> {
  const signerCa = ca ?? (await makeSignerCa());
  const stop = new AbortController();
  const seen: KubeCsr[] = [];
  const working = new Set<Promise<void>>();
  const signer: TestSigner = {
    ca: signerCa,
    seen,
    behave: async (request) => {
      await request.approve();
      await request.issue();
    },
    stop: async () => {
      stop.abort();
      await Promise.allSettled([watching, ...working]);
    },
  };
  const take = (csr: KubeCsr) => {
    seen.push(csr);
    const work = signer.behave(inHand(api, csr, signerCa)).catch((caught) => {
      // The agent gave up and removed it, or the test is over.
      if (!stop.signal.aborted && !isKubeStatus(caught, 404) && !isKubeStatus(caught, 409))
        throw caught;
    });
    working.add(work);
  };
  const selector = `fieldSelector=${encodeURIComponent(`spec.signerName=${signerName}`)}`;
  type List = {
    readonly metadata: { readonly resourceVersion: string };
    readonly items: readonly KubeCsr[];
  };
  const { metadata, items } = await api.request<List>('GET', `${CSR_PATH}?${selector}`);
  const watching = api.watch<KubeCsr>(
    `${CSR_PATH}?${selector}&resourceVersion=${metadata.resourceVersion}`,
    ({ type, object }) => {
      if (type === 'ADDED') take(object);
    },
    stop.signal,
  );
  watching.catch(() => undefined);
  // In a moment, when the caller has said how to behave.
  setImmediate(() => {
    for (const csr of items)
      if (csr.status?.conditions === undefined && csr.status?.certificate === undefined) take(csr);
  });
  return signer;
}

function inHand(api: KubeApi, csr: KubeCsr, signerCa: TestCa): CsrInHand {
  const path = `${CSR_PATH}/${csr.metadata.name}`;
  const facts = parseCsr(readPem(Buffer.from(csr.spec.request, 'base64'), 'request')[0]!.der).facts;
  // By patches: the order of two changes is then nobody's conflict.
  const condition = async (
    subresource: 'approval' | 'status',
    type: string,
    reason: string,
    message: string,
  ) => {
    const latest = await api.request<KubeCsr>('GET', path);
    const conditions = [
      ...(latest.status?.conditions ?? []),
      { type, status: 'True', reason, message },
    ];
    await api.request('PATCH', `${path}/${subresource}`, { body: { status: { conditions } } });
  };
  const chainPem = (
    ca = signerCa,
    ttlSeconds = Math.min(csr.spec.expirationSeconds!, 365 * 86_400),
  ) => {
    const leaf = issueLeaf(ca, {
      key: { spkiDer: facts.spkiDer },
      uris: facts.uris,
      notBeforeAt: Date.now() - 60_000,
      notAfterAt: Date.now() + ttlSeconds * 1_000,
    });
    return certificatesPem([leaf, ...ca.intermediatesDer]);
  };
  return {
    csr,
    uris: facts.uris,
    approve: () => condition('approval', 'Approved', 'Test', 'as the test says'),
    deny: (reason, message) => condition('approval', 'Denied', reason, message),
    fail: (reason, message) => condition('status', 'Failed', reason, message),
    chainPem,
    issue: async (pem = chainPem()) => {
      await api.request('PATCH', `${path}/status`, {
        body: { status: { certificate: Buffer.from(pem).toString('base64') } },
      });
    },
    remove: async () => {
      await api.request('DELETE', path);
    },
  };
}
