import { randomUUID } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { readPem } from '../../agent/base/pem';
import { certificatesPem } from '../../agent/identity/certificate';
import { directEngine } from '../../agent/identity/direct-engine';
import { EXTENSION, PURPOSE } from '../../agent/identity/extensions';
import {
  encodeCertificateReply,
  parseCertificateRequest,
} from '../../ca-client/istio/wire/messages';
import { type CsrReading, readAnyCsr } from '../../ca-client/lint/csr-reading';
import { issueLeaf, type TestCa } from './certs';
import { liveCa, type PemPair, rootsPem, serverPair } from './tls-ca';
import {
  startUnaryServer,
  type UnaryAnswer,
  type UnaryCall,
  type UnaryServer,
  type UnaryServerOptions,
} from './unary-server';

/** A token as its issuer knows it. */
interface KnownToken {
  readonly uri: string;
  readonly audiences: readonly string[];
  readonly expiresAt: number;
}

export interface FakeCaOptions {
  /** Signs leaves, and unless `pair` is given the server's own certificate. */
  readonly signer?: TestCa;
  readonly pair?: PemPair;
  readonly port?: number;
  /** The roots at the reply's end; default the signer's. */
  readonly roots?: readonly TestCa[];
  /** Tokens of an instance that went before. */
  readonly tokens?: Map<string, KnownToken>;
  /** `--enable-client-cert-authenticator`; istiod always does. */
  readonly clientCertificates?: boolean;
  /** Looks at a call first, and may answer it in its own way. */
  readonly misbehave?: (
    call: UnaryCall,
  ) => UnaryAnswer | undefined | Promise<UnaryAnswer | undefined>;
  readonly tls?: UnaryServerOptions['tls'];
  /** How long an answer takes, milliseconds: istio-csr waits for a timer of one second in each. */
  readonly answerAfterMs?: number;
}

/** What changes while it runs. */
export interface Mood {
  /** As `FakeCaOptions`: an issuer behind istio-csr takes seconds, or waits for a person. */
  readonly answerAfterMs: number;
  /** The API server is away, so no token can be reviewed: UNAUTHENTICATED for everything. */
  readonly reviewsTokens: boolean;
}

/** A certificate authority that a test can talk to over TLS, and what stands behind it. */
export interface FakeCa {
  readonly server: UnaryServer;
  readonly signer: TestCa;
  readonly tokens: Map<string, KnownToken>;
  /** A service account token, in the form of a JWT. Its signature is worth nothing: this server knows the tokens that it gave out. */
  token(
    uri: string,
    options?: { readonly audiences?: readonly string[]; readonly expiresAt?: number },
  ): string;
  /** From now on this token is of nobody: its pod is gone. */
  revoke(token: string): void;
  /** Signs by another from now on, as istio-csr does when its runtime issuer is changed; its own roots and certificate stay. */
  changeIssuer(issuer: TestCa): void;
  /** From now on. */
  become(mood: Partial<Mood>): void;
  /** Calls that it has not answered yet, each a CertificateRequest; those whose caller has gone are deleted. */
  waiting(): number;
  close(): Promise<void>;
}

const OPAQUE = { status: status.UNAUTHENTICATED, words: 'request authenticate failure' };
const UNSIGNED = { status: status.INTERNAL, words: 'failed to sign certificate request' };
const UNVERIFIED = {
  status: status.INTERNAL,
  words: 'failed to parse and verify signed certificate from issuer',
};
const HOUR = 3_600;

/**
 * istio-csr as it was seen to behave, version f96fca50: three errors that say nothing, every refusal of token or CSR the same
 * UNAUTHENTICATED, usages that cert-manager compares in their order, a validity cut to one hour in silence, leaves without KeyUsage and without backdating, the whole root bundle last, and
 * more than a second for every answer.
 */
export function startFakeIstioCsr(options: FakeCaOptions = {}): Promise<FakeCa> {
  return startFakeCa({ answerAfterMs: 1_000, ...options }, async (call, caller, signer, roots) => {
    const request = parseCertificateRequest(call.message);
    const clusterId = call.headers.clusterid ?? '';
    if (caller === undefined || (clusterId !== '' && clusterId !== 'Kubernetes')) return OPAQUE;
    const csr = readGoCsr(request.csrPem);
    const refusal = csr ? refusalOf(csr, caller) : OPAQUE;
    if (!csr || refusal) return refusal ?? OPAQUE;
    // It verifies what it got by its own roots, which do not follow the issuer.
    if (
      !roots.some(({ bundle }) =>
        bundle.rootsDer.some((root) => includes(signer.bundle.rootsDer, root)),
      )
    )
      return UNVERIFIED;
    if (request.ttlSeconds <= 1) return request.ttlSeconds === 1 ? UNVERIFIED : UNSIGNED;
    const now = Math.floor(Date.now() / 1_000) * 1_000;
    const leaf = issueLeaf(signer, {
      key: { spkiDer: csr.publicKey.spkiDer },
      // cert-manager copies the names as they are written.
      uris: [csr.names[0]!.value],
      keyUsage: undefined,
      notBeforeAt: now,
      notAfterAt: now + Math.min(request.ttlSeconds, HOUR) * 1_000,
    });
    const chain = [leaf, ...signer.intermediatesDer].map((der) =>
      certificatesPem([der]).toString(),
    );
    return { message: encodeCertificateReply([...chain, rootsPem(...roots).toString()]) };
  });
}

/** The first block, whatever its label, as leniently as Go: SHA-1, weak keys. */
function readGoCsr(csrPem: string): CsrReading | undefined {
  try {
    return readAnyCsr(readPem(Buffer.from(csrPem), 'csr')[0]!.der);
  } catch {
    return undefined;
  }
}

const PURPOSES = [PURPOSE.clientAuth, PURPOSE.serverAuth];
const EXTENSIONS: readonly string[] = [
  EXTENSION.subjectAltName,
  EXTENSION.keyUsage,
  EXTENSION.extendedKeyUsage,
];

/** By istio-csr, or by cert-manager behind it, which compares usages with those that istio-csr asks for: none, and client before server. */
function refusalOf(
  { signed, hasCommonName, names, extensions, keyUsages, purposes }: CsrReading,
  caller: string,
) {
  const [name, ...more] = names;
  // Go reads the scheme of a URI in lower case.
  const uri =
    name?.kind === 'uri'
      ? name.value.replace(/^\w+:/, (scheme) => scheme.toLowerCase())
      : undefined;
  if (!signed || hasCommonName || uri !== caller || more.length > 0) return OPAQUE;
  if (extensions.some((oid) => !EXTENSIONS.includes(oid)) || keyUsages?.includes('keyCertSign'))
    return OPAQUE;
  if (purposes?.some((oid) => !(PURPOSES as readonly string[]).includes(oid))) return OPAQUE;
  return keyUsages || (purposes && purposes.join() !== PURPOSES.join()) ? UNSIGNED : undefined;
}

/**
 * istiod's own CA: takes nothing from the CSR but the key, backdates by two minutes, refuses a life of more than 90 days, gives 24 hours
 * where none is asked for, and believes client certificates.
 */
export function startFakeIstiod(options: FakeCaOptions = {}): Promise<FakeCa> {
  return startFakeCa(
    { clientCertificates: true, ...options },
    async (call, caller, signer, roots) => {
      const request = parseCertificateRequest(call.message);
      if (caller === undefined) return OPAQUE;
      const csr = await readCsr(request.csrPem);
      if (!csr)
        return {
          status: status.INVALID_ARGUMENT,
          words: 'CSR signing error (failed to parse CSR)',
        };
      const ttlSeconds = request.ttlSeconds > 0 ? request.ttlSeconds : 24 * HOUR;
      if (ttlSeconds > 90 * 24 * HOUR)
        return {
          status: status.INVALID_ARGUMENT,
          words: `CSR signing error (requested TTL ${ttlSeconds}s)`,
        };
      return {
        message: istiodReply(signer, roots, { uri: caller, spkiDer: csr.spkiDer, ttlSeconds }),
      };
    },
  );
}

/** The bytes of a good answer. */
export function istiodReply(
  signer: TestCa,
  roots: readonly TestCa[],
  leaf: { readonly uri: string; readonly spkiDer: Uint8Array; readonly ttlSeconds: number },
): Buffer {
  const now = Date.now();
  const leafDer = issueLeaf(signer, {
    key: { spkiDer: leaf.spkiDer },
    uris: [leaf.uri],
    keyUsage: ['digitalSignature', 'keyEncipherment'],
    notBeforeAt: now - 120_000,
    notAfterAt: now + leaf.ttlSeconds * 1_000,
  });
  const chain = [leafDer, ...signer.intermediatesDer].map((der) =>
    certificatesPem([der]).toString(),
  );
  return encodeCertificateReply([...chain, rootsPem(...roots).toString()]);
}

const includes = (all: readonly Uint8Array[], one: Uint8Array) =>
  all.some((each) => Buffer.compare(each, one) === 0);

type Decide = (
  call: UnaryCall,
  caller: string | undefined,
  signer: TestCa,
  roots: readonly TestCa[],
) => Promise<UnaryAnswer>;

async function startFakeCa(options: FakeCaOptions, decide: Decide): Promise<FakeCa> {
  const signer = options.signer ?? (await liveCa({ parent: await liveCa() }));
  const mood = { answerAfterMs: options.answerAfterMs ?? 0, reviewsTokens: true };
  let waiting = 0;
  const roots = options.roots ?? [signer];
  const tokens = options.tokens ?? new Map<string, KnownToken>();
  let issuer = signer;
  const server = await startUnaryServer({
    pair: options.pair ?? serverPair(signer),
    clientRootsPem: rootsPem(...roots),
    ...(options.port !== undefined && { port: options.port }),
    ...(options.tls && { tls: options.tls }),
    answer: async (call) => {
      const own = await options.misbehave?.(call);
      if (own) return own;
      if (call.headers[':path'] !== '/istio.v1.auth.IstioCertificateService/CreateCertificate')
        return { status: status.UNIMPLEMENTED };
      // Tokens are reviewed first, and without a review nothing is asked of an issuer.
      if (!mood.reviewsTokens) return OPAQUE;
      waiting += 1;
      await passed(mood.answerAfterMs, call);
      waiting -= 1;
      return decide(
        call,
        callerOf(call, tokens, options.clientCertificates ?? false),
        issuer,
        roots,
      );
    },
  });
  return {
    server,
    signer,
    tokens,
    token(uri, { audiences = ['istio-ca'], expiresAt = Date.now() + HOUR * 1_000 } = {}) {
      const token = makeJwt({
        iss: 'test',
        sub: uri,
        aud: audiences,
        exp: Math.floor(expiresAt / 1_000),
        jti: randomUUID(),
      });
      tokens.set(token, { uri, audiences, expiresAt });
      return token;
    },
    revoke: (token) => void tokens.delete(token),
    changeIssuer: (next) => {
      issuer = next;
    },
    become: (changed) => void Object.assign(mood, changed),
    waiting: () => waiting,
    close: () => server.close(),
  };
}

/** Resolves after that time, or when the caller has gone. */
function passed(ms: number, { stream }: UnaryCall): Promise<void> {
  if (ms === 0) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stream.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function callerOf(
  call: UnaryCall,
  tokens: Map<string, KnownToken>,
  clientCertificates: boolean,
): string | undefined {
  if (clientCertificates && call.clientUris?.length === 1) return call.clientUris[0];
  const token = tokens.get(/^Bearer (.*)$/.exec(call.headers.authorization ?? '')?.[1] ?? '');
  return token && token.expiresAt > Date.now() && token.audiences.includes('istio-ca')
    ? token.uri
    : undefined;
}

export async function readCsr(csrPem: string) {
  try {
    return await directEngine.readCsr(readPem(Buffer.from(csrPem), 'csr')[0]!.der);
  } catch {
    return undefined;
  }
}

/** A JWT of these claims that nobody signed. */
export function makeJwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'ES256', kid: 'test' })}.${part(claims)}.${Buffer.alloc(64, 1).toString('base64url')}`;
}
