import { access } from 'node:fs/promises';
import { Metadata } from '@grpc/grpc-js';
import { withDeadline } from '../../agent/base/clock';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { formatHostPort } from '../../agent/base/host-port';
import { writePem } from '../../agent/base/pem';
import { WatchedSource } from '../../agent/base/watched';
import { parseCertificate } from '../../agent/identity/certificate';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import type { CaClient, IssuedChain, SignRequest } from '../ca-client';
import { type FileTrust, followTrustFile } from '../file-trust';
import { type FollowedFiles, followFiles } from '../follow-files';
import { type CaRoot, readCaRoot } from './ca-root';
import { CaChannel, CallFailure } from './channel';
import type { Credentials } from './choose-credentials';
import { IdentityProof } from './identity-proof';
import { extendBundle, type LearnedRoot, mergeLearned, rootsOfReply } from './learned-roots';
import { learnedRootsDir, loadLearned, saveLearned } from './learned-roots-file';
import { encodeCertificateRequest } from './messages';
import { checkIstioOptions, type IstioCaOptions, type IstioCaSettings } from './options';
import { readReply } from './reply';
import { isTransient, isUnauthenticated, mayBlameRequest, refusal } from './status';

/**
 * istiod, or cert-manager's istio-csr, asked over `istio.v1.auth.IstioCertificateService`. Resolves when the trust bundle and what was
 * learned have been read, whether or not there is any yet; the CA itself is not spoken to before `sign`.
 *
 * @throws AgentError ERR_CONFIG, as `checkIstioOptions`.
 */
export async function createIstioCa(options: IstioCaOptions, deps: Deps): Promise<CaClient> {
  const settings = checkIstioOptions(options);
  if (settings.plaintext)
    deps.log.warn('the CA is asked without TLS: token and certificate travel in the clear', { address: options.address });
  const trustFile = followTrustFile(await trustPath(settings), deps);
  await trustFile.ready;
  const { stateDir, name } = settings;
  const learned = stateDir === undefined ? [] : await loadLearned(learnedRootsDir(stateDir, name), deps);
  return new IstioCa(settings, trustFile, learned, deps);
}

/** By which file leaves are judged: never by the machine's own roots, which vouch for half the internet. */
async function trustPath({ trustBundle, mountedRoot, rootSource }: IstioCaSettings): Promise<string> {
  if (trustBundle !== undefined) return trustBundle;
  const isMounted = await access(mountedRoot).then(
    () => true,
    () => false,
  );
  return isMounted || rootSource.kind === 'system' ? mountedRoot : rootSource.path;
}

class IstioCa implements CaClient {
  readonly name: string;
  readonly trust: WatchedSource<TrustBundle | undefined>;
  readonly #channel: CaChannel;
  readonly #proof: IdentityProof;
  readonly #stop = new AbortController();
  readonly #listeners = new Set<{ readonly call: (what: 'signer' | 'credential') => void }>();
  readonly #following: FollowedFiles;
  readonly #stopTrust: () => void;
  readonly #address: string;
  #learned: readonly LearnedRoot[];
  #saving: Promise<void> = Promise.resolve();
  #calls = new Set<Promise<unknown>>();
  /** Of the credential files at the last look. */
  #print: string | undefined;

  constructor(
    private readonly settings: IstioCaSettings,
    private readonly trustFile: FileTrust,
    learned: readonly LearnedRoot[],
    private readonly deps: Deps,
  ) {
    this.name = settings.name;
    this.#address = formatHostPort(settings.where);
    this.#learned = learned;
    this.trust = new WatchedSource<TrustBundle | undefined>(undefined);
    this.#stopTrust = trustFile.trust.subscribe(() => this.#retrust());
    this.#channel = new CaChannel({ address: settings.where, serverName: settings.serverName, plaintext: settings.plaintext });
    this.#proof = new IdentityProof(settings, deps);
    this.#following = followFiles(this.#proof.paths(), () => this.#lookAtCredentials(), deps);
  }

  async sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    // Linked by hand: what AbortSignal.any makes of a long-lived signal stays with it.
    const both = new AbortController();
    const stop = () => both.abort();
    for (const each of [signal, this.#stop.signal]) {
      if (each.aborted) throw aborted();
      each.addEventListener('abort', stop, { once: true });
    }
    const call = this.#signWithin(request, both.signal);
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
      for (const each of [signal, this.#stop.signal]) each.removeEventListener('abort', stop);
    }
  }

  onChange(listener: (what: 'signer' | 'credential') => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  problem(): AgentError | undefined {
    return this.trustFile.problem();
  }

  credentialExpiresAt(): number | undefined {
    return this.#proof.expiresAt();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#listeners.clear();
    this.#stopTrust();
    await Promise.allSettled(this.#calls);
    this.#channel.close();
    await Promise.all([this.#following.close(), this.trustFile.close(), this.#saving]);
  }

  async #signWithin(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    const { attemptMs } = this.settings;
    try {
      return await withDeadline(this.deps.clock, attemptMs, `sign at ${this.name}`, signal, (each) => this.#sign(request, each));
    } catch (caught) {
      if (signal.aborted) throw aborted();
      if (AgentError.from(caught).code !== 'ERR_TIMEOUT') throw caught;
      this.#proof.failed();
      throw new AgentError('ERR_CA_UNAVAILABLE', `sign at ${this.name}: no answer of ${this.#address} within ${attemptMs / 1_000} s`, {
        retry: 'soon',
        cause: caught,
      });
    }
  }

  async #sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    const { plaintext, rootSource, certSigner } = this.settings;
    await this.trustFile.refresh();
    const root = plaintext ? undefined : await readCaRoot(rootSource);
    const message = encodeCertificateRequest({
      csrPem: writePem('CERTIFICATE REQUEST', Buffer.from(request.csrDer)).toString('latin1'),
      ttlSeconds: request.ttlSeconds,
      metadata: new Map([['CertSigner', certSigner]]),
    });
    const credentials = await this.#proof.choose(this.#rootsOfPeer(root));
    try {
      return await this.#ask(message, credentials, root, request, signal);
    } catch (caught) {
      if (!(caught instanceof CallFailure) || signal.aborted) throw caught;
      // Replaced while the call was under way: the refusal was of the old one.
      const again = isUnauthenticated(caught) && credentials.token && (await this.#proof.isTokenReplaced(credentials));
      if (!again) throw await this.#refusal(caught, credentials, request);
      const others = await this.#proof.choose(this.#rootsOfPeer(root));
      return this.#ask(message, others, root, request, signal).catch(async (second) => {
        throw second instanceof CallFailure ? await this.#refusal(second, others, request) : second;
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
    const facts = { root, certificate: credentials.certificate };
    const reply = await this.#channel.call(facts, message, this.#metadata(credentials), signal);
    this.#proof.worked();
    const { certificatesDer, damaged } = readReply(reply);
    if (damaged.length > 0) this.deps.log.warn('reply holds what is no certificate', { ca: this.name, damaged });
    this.#learn(certificatesDer, request);
    return { certificatesDer };
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

  async #refusal(failure: CallFailure, credentials: Credentials, request: SignRequest): Promise<AgentError> {
    const unauthenticated = isUnauthenticated(failure);
    // A server that could not be reached may have refused the certificate: TLS 1.3 does not always say.
    if (unauthenticated || isTransient(failure)) this.#proof.failed();
    const rule = mayBlameRequest(failure) ? await this.settings.explainRefusal?.(request.csrDer) : undefined;
    const hints = [unauthenticated ? this.#proof.refused(credentials) : undefined, rule].filter((each) => each !== undefined);
    return refusal(failure, {
      ca: this.name,
      address: this.#address,
      token: credentials.token?.value.reveal(),
      hint: hints.length > 0 ? hints.join('; ') : undefined,
    });
  }

  #learn(certificatesDer: readonly Uint8Array[], request: SignRequest): void {
    const trust = this.trust.value;
    if (!trust) return;
    const offered = rootsOfReply(certificatesDer, request, trust, this.deps.clock.now());
    const learned = mergeLearned(this.#learned, offered);
    if (learned === this.#learned) return;
    this.#learned = learned;
    for (const { der, voucher } of offered) {
      const { subject, sha256 } = parseCertificate(der, 'root');
      this.deps.log.info('root learned from the CA', { ca: this.name, subject, sha256, voucher });
    }
    const { stateDir } = this.settings;
    if (stateDir !== undefined) {
      this.#saving = this.#saving.then(() => saveLearned(learnedRootsDir(stateDir, this.name), this.#learned, this.deps));
    }
    this.#retrust();
  }

  #retrust(): void {
    const configured = this.trustFile.trust.value;
    if (!configured) return;
    const bundle = extendBundle(configured, this.#learned, this.deps.clock.now());
    if (bundle.version !== this.trust.value?.version) this.trust.set(bundle);
  }

  async #lookAtCredentials(): Promise<void> {
    const print = await this.#proof.print();
    await this.#proof.look();
    const changed = this.#print !== undefined && this.#print !== print;
    this.#print = print;
    if (!changed || this.#stop.signal.aborted) return;
    this.deps.log.info('credential files changed', { ca: this.name });
    for (const { call } of [...this.#listeners]) call('credential');
  }
}

function aborted(): AgentError {
  return new AgentError('ERR_ABORTED', 'sign: aborted');
}
