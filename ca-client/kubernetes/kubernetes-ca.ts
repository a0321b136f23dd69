import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { isDeadline, linked, waitAtMost } from '../../agent/base/clock';
import type { Deps } from '../../agent/base/deps';
import { AgentError, errorText } from '../../agent/base/errors';
import { readSmallFile } from '../../agent/base/read-file';
import type { Watched } from '../../agent/base/watched';
import { formatSpiffeId } from '../../agent/identity/spiffe-id';
import type { TrustBundle } from '../../agent/identity/trust-bundle';
import type { KubeApi } from '../../agent/kube/kube-api';
import { isKubeStatus } from '../../agent/kube/kube-error';
import { followTrustFile } from '../../agent/trust/file-trust';
import { type FollowedFiles, followFiles } from '../../agent/trust/follow-files';
import { followKubeTrust } from '../../agent/trust/kube-trust';
import type { CaClient, IssuedChain, SignRequest } from '../ca-client';
import { awaitAnswer } from './await-answer';
import {
  CSR_PATH,
  type CsrBody,
  type CsrUsages,
  conditionOf,
  csrBody,
  csrPath,
  type KubeCsr,
} from './csr-object';

export interface KubernetesCaOptions {
  /** Closed by whoever made it. */
  readonly api: KubeApi;
  /** e.g. `clusterissuers.cert-manager.io/mesh`. */
  readonly signerName: string;
  readonly usages: CsrUsages;
  /** Trust anchors, PEM. Undefined: those that the cluster publishes for the signer. */
  readonly trustBundle: string | undefined;
  /** The trust domains whose roots may be among the anchors; undefined takes any. */
  readonly rootDomains?: ReadonlySet<string> | undefined;
  /** Where ConfigMap `istio-ca-root-cert` is looked for: the pod's own. */
  readonly namespace: string;
  /** Keeps the anchors of the cluster over restarts. */
  readonly stateDir?: string | undefined;
}

/** Removing what we leave behind may take so long, and so much of the time of `close`: whoever ends us gives a second in all. */
const REMOVE_TIMEOUT_MS = 5_000;
const REMOVE_AT_CLOSE_MS = 300;

/** In the state directory, where others keep other files. */
const KEPT_DIR = 'kubernetes-csr-roots';

/** A cluster that does not answer must not keep the agent from serving what it still has. */
const ANCHORS_AFTER_MS = 1_000;

/** What the anchors come from: `followTrustFile` or `followKubeTrust`. */
interface Anchors {
  readonly trust: Watched<TrustBundle | undefined>;
  readonly ready: Promise<void>;
  problem(): AgentError | undefined;
  refresh(): unknown;
  close(): Promise<void>;
}

/**
 * Any signer of the Kubernetes CSR API. Resolves when the trust anchors have been looked for once, whether or not they were found, or after
 * a second.
 *
 * The service account needs to create, get and watch certificatesigningrequests; where it may delete them too, none are left behind.
 */
export async function createKubernetesCa(
  options: KubernetesCaOptions,
  deps: Deps,
): Promise<CaClient> {
  const { api, signerName, trustBundle, namespace, stateDir, rootDomains: domains } = options;
  const keptDir = stateDir === undefined ? undefined : join(stateDir, KEPT_DIR);
  const anchors: Anchors =
    trustBundle === undefined
      ? followKubeTrust(api, { signerName, namespace, keptDir, domains }, deps)
      : followTrustFile(trustBundle, domains, deps);
  await waitAtMost(deps.clock, ANCHORS_AFTER_MS, anchors.ready);
  return new KubernetesCa(options, anchors, deps);
}

/** Changes with what the files hold; nothing can be learned from it. */
async function printOf(files: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const file of files) {
    const bytes = await readSmallFile(file, { field: file, code: 'ERR_TOKEN' }).catch(
      () => undefined,
    );
    hash.update(`${bytes?.length}:`).update(bytes ?? '');
  }
  return hash.digest('hex');
}

class KubernetesCa implements CaClient {
  readonly name = 'kubernetes-csr';
  readonly #stop = new AbortController();
  readonly #leaveBehind = new AbortController();
  readonly #calls = new Set<Promise<unknown>>();
  readonly #listeners = new Set<{ readonly call: (what: 'signer' | 'credential') => void }>();
  readonly #stopTrust: () => void;
  readonly #following: FollowedFiles;
  /** Of the credential files at the last look. */
  #print: string | undefined;
  readonly #waiting = new Map<string, Promise<unknown>>();
  /** The request that was begun last, by name. */
  #begun: string | undefined;
  /** Requests that were not answered in time, by name. */
  readonly #open = new Map<string, KubeCsr>();
  #mayDelete = true;
  #hadTrust: boolean;

  constructor(
    private readonly options: KubernetesCaOptions,
    private readonly anchors: Anchors,
    private readonly deps: Deps,
  ) {
    this.#hadTrust = anchors.trust.value !== undefined;
    this.#stopTrust = anchors.trust.subscribe((value) => {
      // What failed for want of anchors is worth trying at once.
      if (value && !this.#hadTrust) this.#tellCredential();
      this.#hadTrust ||= value !== undefined;
    });
    const { credentialFiles } = options.api;
    this.#following = followFiles(credentialFiles, () => this.#lookAtCredentials(), deps);
    void this.#lookAtCredentials();
  }

  get trust(): Watched<TrustBundle | undefined> {
    return this.anchors.trust;
  }

  async sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    return linked([signal, this.#stop.signal], 'sign', (either) =>
      this.#tracked(this.#sign(request, either)),
    );
  }

  onChange(listener: (what: 'signer' | 'credential') => void): () => void {
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  problem(): AgentError | undefined {
    return this.anchors.problem();
  }

  credentialExpiresAt(): undefined {
    return undefined;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#listeners.clear();
    this.#stopTrust();
    this.#removeOpen();
    await waitAtMost(this.deps.clock, REMOVE_AT_CLOSE_MS, this.#settled());
    this.#leaveBehind.abort();
    await this.#settled();
    await Promise.all([this.#following.close(), this.anchors.close()]);
  }

  /** Calls that end may begin others, which remove what they made. */
  async #settled(): Promise<void> {
    while (this.#calls.size > 0) await Promise.allSettled(this.#calls);
  }

  #tellCredential(): void {
    for (const listener of [...this.#listeners]) listener.call('credential');
  }

  async #lookAtCredentials(): Promise<void> {
    const print = await printOf(this.options.api.credentialFiles);
    const isChanged = this.#print !== undefined && print !== this.#print;
    this.#print = print;
    if (!isChanged || this.#stop.signal.aborted) return;
    this.deps.log.info('credential files changed', { ca: this.name });
    this.anchors.refresh();
    this.#tellCredential();
  }

  async #sign(request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    const { signerName, usages } = this.options;
    const body = csrBody(request, signerName, usages);
    await this.#knowAnchors();
    const { name } = body.metadata;
    // An attempt that was given up for the same request has to leave its object first.
    await this.#waiting.get(name)?.catch(() => undefined);
    const answer = this.#answer(body, request, signal);
    this.#waiting.set(name, answer);
    return answer.finally(() => this.#waiting.delete(name));
  }

  async #answer(body: CsrBody, request: SignRequest, signal: AbortSignal): Promise<IssuedChain> {
    const { name } = body.metadata;
    this.#begun = name;
    let latest = this.#open.get(name);
    this.#open.delete(name);
    this.#removeOpen();
    latest ??= await this.#create(body, signal);
    try {
      return await awaitAnswer(
        this.options.api,
        latest,
        (csr) => (latest = csr),
        this.deps,
        signal,
      );
    } catch (caught) {
      if (isDeadline(signal) && !this.#stop.signal.aborted) {
        this.#tellUnanswered(latest, request);
        // The same request may come again: then this object is waited for, unless another has come already.
        if (this.#begun === name) this.#open.set(name, latest);
      }
      throw caught;
    } finally {
      if (!this.#open.has(name)) this.#removeLater(name);
    }
  }

  /** The object of a request: made now, or already there where the answer to an earlier attempt was lost. */
  async #create(body: CsrBody, signal: AbortSignal): Promise<KubeCsr> {
    const { api } = this.options;
    try {
      // Admission webhooks take their time; cut and repeated, they would only have more to do.
      return await api.request<KubeCsr>('POST', CSR_PATH, {
        body,
        signal,
        timeoutMs: Number.POSITIVE_INFINITY,
      });
    } catch (caught) {
      if (!isKubeStatus(caught, 409)) throw caught;
      const there = await api
        .request<KubeCsr>('GET', csrPath(body.metadata.name), { signal })
        .catch(() => undefined);
      if (
        there?.spec.request !== body.spec.request ||
        there.spec.signerName !== body.spec.signerName
      )
        throw caught;
      return there;
    }
  }

  /** Objects that are no longer waited for. Nobody waits for their removal but `close`. */
  #removeOpen(): void {
    for (const name of this.#open.keys()) this.#removeLater(name);
    this.#open.clear();
  }

  #removeLater(name: string): void {
    void this.#tracked(this.#remove(name)).catch(() => undefined);
  }

  /** Nobody is asked for a certificate that could not be judged. */
  async #knowAnchors(): Promise<void> {
    await this.anchors.ready;
    if (this.trust.value) return;
    const cause = this.anchors.problem();
    const text = `sign by ${this.options.signerName}: no trust anchors yet`;
    // A cluster that refuses our token says nothing of its anchors: then the token is what to look at.
    const refusal =
      cause?.cause instanceof AgentError && cause.cause.code === 'ERR_TOKEN'
        ? cause.cause
        : undefined;
    const hint = cause?.hint === undefined ? {} : { hint: cause.hint };
    if (refusal)
      throw new AgentError('ERR_TOKEN', `${text}: ${refusal.message}`, {
        retry: refusal.retry,
        cause: refusal,
        ...hint,
      });
    throw new AgentError('ERR_CA_UNAVAILABLE', text, { retry: 'soon', cause, ...hint });
  }

  #tellUnanswered(csr: KubeCsr, { id }: SignRequest): void {
    const isApproved = conditionOf(csr, 'Approved') !== undefined;
    this.deps.log.warn(
      isApproved
        ? 'request was approved but not signed in time'
        : 'request was neither approved nor signed in time',
      {
        request: csr.metadata.name,
        signer: csr.spec.signerName,
        id: formatSpiffeId(id),
        hint: isApproved
          ? 'check that the signer runs and that this issuer exists'
          : 'run an approver for this signer, e.g. keyturn approver',
      },
    );
  }

  async #remove(name: string): Promise<void> {
    if (!this.#mayDelete) return;
    const { api } = this.options;
    try {
      await api.request('DELETE', csrPath(name), {
        timeoutMs: REMOVE_TIMEOUT_MS,
        signal: this.#leaveBehind.signal,
      });
    } catch (caught) {
      if (isKubeStatus(caught, 403)) {
        this.#mayDelete = false;
        this.deps.log.debug('requests not deleted, Kubernetes removes them after an hour', {
          cause: caught,
        });
      } else if (!isKubeStatus(caught, 404)) {
        this.deps.log.debug('deleting the request failed', {
          request: name,
          cause: errorText(caught),
        });
      }
    }
  }

  async #tracked<T>(task: Promise<T>): Promise<T> {
    this.#calls.add(task);
    try {
      return await task;
    } finally {
      this.#calls.delete(task);
    }
  }
}
