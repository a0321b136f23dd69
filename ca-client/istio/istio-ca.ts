import { access } from 'node:fs/promises';
import { linked } from '../../agent/base/clock';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { formatHostPort } from '../../agent/base/host-port';
import { writePem } from '../../agent/base/pem';
import type { Lease } from '../../agent/base/pool';
import type { Watched } from '../../agent/base/watched';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import { readTokenClaims } from '../../agent/jwt/token-claims';
import { type CaRoot, readCaRoot } from '../../agent/trust/ca-root';
import { type FollowedFiles, followFiles } from '../../agent/trust/follow-files';
import type { CaClient, IssuedChain, SignRequest } from '../ca-client';
import { Metadata } from '../grpc/grpc-js';
import { type BrokenRules, brokenRules } from './broken-rules';
import { CaChannel, CallFailure } from './channel';
import { issuerJudge } from './client-certificate';
import { CredentialSelector, isJoinToken } from './credential-selector';
import { type LearningTrust, openLearningTrust } from './learning-trust';
import { bundleJudge, requireBundle } from './one-time-token';
import { checkIstioOptions, type IstioCaOptions, type IstioCaSettings } from './options';
import type { Credentials } from './rank-credentials';
import { readReply } from './reply';
import type { ServerVerifier } from './server-verifier';
import {
  isCertificateRefused,
  isKeyturn,
  isUnauthenticated,
  mayBlameRequest,
  mayHideRefusal,
  refusal,
} from './status';
import { encodeCertificateRequest } from './wire/messages';

/**
 * istiod, or cert-manager's istio-csr, asked over `istio.v1.auth.IstioCertificateService`. Resolves when the trust bundle and what was
 * learned have been read, whether or not there is any yet; the CA itself is not spoken to before `sign`.
 *
 * @throws AgentError ERR_CONFIG, as `checkIstioOptions`.
 */
export async function createIstioCa(options: IstioCaOptions, deps: Deps): Promise<CaClient> {
  const settings = checkIstioOptions(options);
  if (settings.plaintext)
    deps.log.warn('connecting to the CA without TLS, credentials are sent in plaintext', {
      address: options.address,
    });
  const {
    name: ca,
    stateDir,
    rootDomains: domains,
    where: address,
    serverName,
    plaintext,
  } = settings;
  const proof = new CredentialSelector(settings, deps);
  // At once: each is a handful of waits for files.
  const [roots, print, shared] = await Promise.all([
    trustPath(settings).then((path) =>
      openLearningTrust({ ca, address: formatHostPort(address), path, stateDir, domains }, deps),
    ),
    proof.print(),
    settings.lendChannel?.({ address, serverName, plaintext }),
    proof.look(),
  ]);
  return new IstioCa(settings, roots, proof, shared, print, deps);
}

/** By which file leaves are judged: never by the machine's own roots, which vouch for half the internet. */
async function trustPath({
  trustBundle,
  mountedRoot,
  rootSource,
}: IstioCaSettings): Promise<string> {
  if (trustBundle !== undefined) return trustBundle;
  const isMounted = await access(mountedRoot).then(
    () => true,
    () => false,
  );
  return isMounted || rootSource.kind === 'system' ? mountedRoot : rootSource.path;
}

class IstioCa implements CaClient {
  readonly name: string;
  readonly #channel: CaChannel;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<{ readonly call: (what: 'signer' | 'credential') => void }>();
  readonly #following: FollowedFiles;
  readonly #address: string;
  #calls = new Set<Promise<unknown>>();

  constructor(
    private readonly settings: IstioCaSettings,
    private readonly roots: LearningTrust,
    private readonly proof: CredentialSelector,
    private readonly shared: Lease<CaChannel> | undefined,
    /** Of the credential files at the last look. */
    private print: string,
    private readonly deps: Deps,
  ) {
    this.name = settings.name;
    this.#address = formatHostPort(settings.where);
    const { where, serverName, plaintext } = settings;
    this.#channel = new CaChannel({ address: where, serverName, plaintext }, deps.clock);
    this.#following = followFiles(this.proof.paths(), () => this.#lookAtCredentials(), deps);
  }

  get trust(): Watched<TrustBundle | undefined> {
    return this.roots.trust;
  }

  async sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    return linked([signal, this.#stop.signal], 'sign', async (either) => {
      const call = this.#sign(request, either);
      this.#calls.add(call);
      try {
        return await call;
      } catch (caught) {
        throw either.aborted ? aborted() : caught;
      } finally {
        this.#calls.delete(call);
      }
    });
  }

  onChange(listener: (what: 'signer' | 'credential') => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  problem(): AgentError | undefined {
    return this.roots.problem();
  }

  credentialExpiresAt(): number | undefined {
    return this.proof.expiresAt();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#listeners.clear();
    await Promise.allSettled(this.#calls);
    await Promise.all([
      this.#channel.close(),
      this.shared?.release(),
      this.#following.close(),
      this.roots.close(),
    ]);
  }

  async #sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    const { plaintext, rootSource, certSigner } = this.settings;
    const [file] = await Promise.all([
      plaintext ? undefined : readCaRoot(rootSource),
      this.roots.refresh(),
    ]);
    const root = file && this.roots.ofServer(file);
    const message = encodeCertificateRequest({
      csrPem: writePem('CERTIFICATE REQUEST', Buffer.from(request.csrDer)).toString('latin1'),
      ttlSeconds: request.ttlSeconds,
      metadata: new Map([['CertSigner', certSigner]]),
    });
    const credentials = await this.proof.choose(this.#rootsOfPeer(root));
    try {
      return await this.#ask(message, credentials, root, request, signal);
    } catch (caught) {
      if (!(caught instanceof CallFailure) || signal.aborted)
        throw AgentError.from(caught, 'ERR_CA_UNAVAILABLE', { retry: 'soon' });
      const refused = isUnauthenticated(caught);
      // Replaced while the call was under way: the refusal was of the old one.
      const replaced =
        refused &&
        credentials.token !== undefined &&
        (await this.proof.isTokenReplaced(credentials));
      const refusal = replaced ? undefined : await this.#refusal(caught, credentials, request);
      const others = refused
        ? await this.proof.choose(this.#rootsOfPeer(root)).catch(() => undefined)
        : undefined;
      // A token that is believed no more is no failure where a certificate proves us, nor the other way round, nor a provisioned certificate
      // where our own does: that is shown at once.
      const withoutToken = [others, credentials].filter((each) => each?.token === undefined).length;
      const isSameKind =
        withoutToken === 0 || (withoutToken === 2 && others?.kind === credentials.kind);
      if (others === undefined || (refusal && isSameKind))
        throw refusal ?? (await this.#refusal(caught, credentials, request));
      return this.#ask(message, others, root, request, signal).catch(async (second) => {
        if (!(second instanceof CallFailure)) throw second;
        const next = await this.#refusal(second, others, request);
        // Of two refusals the one that somebody can mend by a new token.
        throw refusal && credentials.token ? refusal : next;
      });
    }
  }

  async #ask(
    message: Buffer,
    credentials: Credentials,
    root: CaRoot | undefined,
    request: SignRequest,
    signal: AbortSignal,
  ): Promise<IssuedChain> {
    // Nothing is sent for somebody who left while files were read.
    if (signal.aborted) throw aborted();
    const judge = await this.#beforeOnce(credentials, root, request, signal);
    const facts = { root, certificate: credentials.certificate, judge };
    // What a certificate proves, and what a server has to satisfy, is of the connection: it is nobody else's.
    const channel =
      credentials.certificate || judge ? this.#channel : (this.shared?.value ?? this.#channel);
    const { reply, shownDer } = await channel.call(
      facts,
      message,
      this.#metadata(credentials),
      signal,
    );
    this.proof.worked(credentials);
    const { certificatesDer, damaged } = readReply(reply);
    if (damaged.length > 0)
      this.deps.log.warn('reply contains an element that is not a certificate', {
        ca: this.name,
        damaged,
      });
    this.roots.learn(certificatesDer, request, root?.bundle && { roots: root.bundle, shownDer });
    return { certificatesDer };
  }

  /** Whatever would make the certificate useless is looked for before something is shown that buys no second one. */
  async #beforeOnce(
    { token, certificate, kind }: Credentials,
    root: CaRoot | undefined,
    request: SignRequest,
    signal: AbortSignal,
  ): Promise<ServerVerifier | undefined> {
    const now = () => this.deps.clock.now();
    if (certificate && root && kind === 'expired certificate') {
      const judge = issuerJudge(
        certificate,
        [requireBundle(this.name, this.trust.value), ...this.#rootsOfPeer(root)],
        now,
      );
      await this.#channel.judge(root, judge, signal).catch((caught) => {
        if (caught instanceof AgentError) this.proof.isNotIssuer();
        throw caught;
      });
      await request.keepKey?.();
      return judge;
    }
    if (!token || !isJoinToken(token)) return undefined;
    const bundle = requireBundle(this.name, this.trust.value);
    await request.keepKey?.();
    return bundleJudge(bundle, now);
  }

  /** Whom our certificate must verify to: what the mesh trusts, and what the server itself hangs on. */
  #rootsOfPeer(root: CaRoot | undefined): TrustBundle[] {
    return [this.trust.value, root?.bundle].filter((each) => each !== undefined);
  }

  #metadata({ token }: Credentials): Metadata {
    const metadata = new Metadata();
    for (const [name, value] of this.settings.headers) metadata.set(name, value);
    metadata.set('clusterid', this.settings.clusterId);
    if (token) metadata.set('authorization', `Bearer ${token.value.reveal()}`);
    return metadata;
  }

  async #refusal(
    failure: CallFailure,
    credentials: Credentials,
    request: SignRequest,
  ): Promise<AgentError> {
    const unauthenticated = isUnauthenticated(failure);
    if (unauthenticated || isCertificateRefused(failure))
      this.proof.refusedCertificate(credentials);
    // A server that hangs up may have refused the certificate: TLS 1.3 does not always say.
    if (unauthenticated || mayHideRefusal(failure)) this.proof.failed();
    const token = credentials.token?.value.reveal();
    // A join token is between us and a `ca serve`: Istio's rules for tokens do not speak of it.
    const judged = credentials.token && isJoinToken(credentials.token) ? undefined : token;
    const rules = mayBlameRequest(failure)
      ? await this.#brokenRules(failure, request, judged)
      : undefined;
    const isBlameless = judged !== undefined && rules?.isError === false;
    const hints = [
      unauthenticated ? this.proof.refused(credentials, isBlameless) : undefined,
      rules?.text,
    ];
    const known = hints.filter((each) => each !== undefined);
    return refusal(failure, {
      ca: this.name,
      address: this.#address,
      token,
      hint: known.length > 0 ? known.join('; ') : undefined,
      isBlameless,
    });
  }

  #brokenRules(
    failure: CallFailure,
    request: SignRequest,
    token: string | undefined,
  ): Promise<BrokenRules> {
    const { name, clusterId } = this.settings;
    const facts = {
      now: this.deps.clock.now(),
      clusterId,
      ...(token !== undefined && { token: { claims: readTokenClaims(token) } }),
    };
    return brokenRules(
      { name, isKeyturn: isKeyturn(failure), isUnauthenticated: isUnauthenticated(failure) },
      request,
      facts,
    );
  }

  async #lookAtCredentials(): Promise<void> {
    const print = await this.proof.print();
    await this.proof.look();
    if (print === this.print || this.#stop.signal.aborted) return;
    this.print = print;
    this.proof.renewed();
    this.deps.log.info('credential files changed', { ca: this.name });
    for (const { call } of [...this.#listeners]) call('credential');
  }
}

function aborted(): AgentError {
  return new AgentError('ERR_ABORTED', 'sign: aborted');
}
