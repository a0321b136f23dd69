import { backoffMs, DEFAULT_BACKOFF } from '../../agent/base/backoff';
import type { Deps } from '../../agent/base/deps';
import { AgentError } from '../../agent/base/errors';
import { formatSpiffeId } from '../../agent/identity/spiffe-id';
import { type ApproverPolicy, judgePod, judgeRequest, type KubePod, type Requester } from './approver-rules';
import { CSR_PATH, type CsrCondition, conditionOf, type KubeCsr } from './csr-object';
import type { KubeApi } from './kube-api';
import { isKubeStatus } from './kube-error';

export interface ApproverOptions extends ApproverPolicy {
  readonly api: KubeApi;
  /** Requests to other signers are none of our business. */
  readonly signerName: string;
}

const PAGE = 500;
/** Requests that are judged at once. */
const PARALLEL = 8;
/** Every agent waits for it, so it looks again soon. */
const BACKOFF = { ...DEFAULT_BACKOFF, maxMs: 15_000 };

/** A server that ends watches as soon as they begin is not asked without end. */
const WATCH_AGAIN_MS = 500;

interface CsrList {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly KubeCsr[];
}

/**
 * Approves the requests to one signer that ask for their sender's own identity, and denies the others with the reason, until the signal
 * fires. It holds no state: what is undecided when it starts is decided then, and any number of replicas may run, for a decision is made
 * once by the API server's optimistic concurrency.
 *
 * It needs to get, list and watch certificatesigningrequests, to update their `approval`, to `approve` for the signer, and to get pods.
 */
export async function runApprover(options: ApproverOptions, deps: Deps, signal: AbortSignal): Promise<void> {
  const desk = new Desk(options, deps, signal);
  deps.log.info('approver started', { signer: options.signerName, trustDomain: options.trustDomain, server: options.api.server });
  for (let failures = 0; !signal.aborted; ) {
    let waitMs = WATCH_AGAIN_MS;
    try {
      const version = await listRequests(options, (csr) => desk.put(csr), signal);
      failures = 0;
      await watchRequests(options, version, (csr) => desk.put(csr), signal);
    } catch (caught) {
      if (signal.aborted) break;
      const error = AgentError.from(caught);
      failures += 1;
      waitMs = Math.max(backoffMs(failures, BACKOFF, deps.random), error.retryAfterMs ?? 0);
      // A watch that began too long ago is no event.
      if (!isKubeStatus(caught, 410)) deps.log.warn('requests cannot be followed', { retryInSeconds: waitMs / 1_000, cause: error });
    }
    await deps.clock.sleepUntil(deps.clock.now() + waitMs, signal).catch(() => undefined);
  }
  await desk.closed();
}

const selectorOf = (signerName: string) => `fieldSelector=${encodeURIComponent(`spec.signerName=${signerName}`)}`;

/** Resolves to the version to watch from. */
async function listRequests({ api, signerName }: ApproverOptions, each: (csr: KubeCsr) => void, signal: AbortSignal): Promise<string> {
  for (let page = ''; ; ) {
    const path = `${CSR_PATH}?${selectorOf(signerName)}&limit=${PAGE}${page}`;
    const { metadata, items } = await api.request<CsrList>('GET', path, { signal });
    items.forEach(each);
    if (!metadata.continue) return metadata.resourceVersion;
    page = `&continue=${encodeURIComponent(metadata.continue)}`;
  }
}

async function watchRequests(
  { api, signerName }: ApproverOptions,
  version: string,
  each: (csr: KubeCsr) => void,
  signal: AbortSignal,
): Promise<void> {
  await api.watch<KubeCsr>(
    `${CSR_PATH}?${selectorOf(signerName)}&resourceVersion=${encodeURIComponent(version)}`,
    ({ type, object }) => {
      if (type === 'ADDED' || type === 'MODIFIED') each(object);
    },
    signal,
  );
}

/** Decides what is put on it, a few at a time, each until it is decided. */
class Desk {
  readonly #queue: KubeCsr[] = [];
  /** By uid: waiting or being decided. */
  readonly #known = new Set<string>();
  readonly #working = new Set<Promise<void>>();

  constructor(
    private readonly options: ApproverOptions,
    private readonly deps: Deps,
    private readonly signal: AbortSignal,
  ) {}

  put(csr: KubeCsr): void {
    if (isDecided(csr) || this.#known.has(csr.metadata.uid)) return;
    this.#known.add(csr.metadata.uid);
    this.#queue.push(csr);
    if (this.#working.size >= PARALLEL) return;
    const work = this.#work().finally(() => this.#working.delete(work));
    this.#working.add(work);
  }

  async closed(): Promise<void> {
    await Promise.allSettled(this.#working);
  }

  async #work(): Promise<void> {
    for (let csr = this.#queue.shift(); csr && !this.signal.aborted; csr = this.#queue.shift()) await this.#decideUntilDone(csr);
  }

  async #decideUntilDone(csr: KubeCsr): Promise<void> {
    const { api } = this.options;
    const { name, uid } = csr.metadata;
    let latest: KubeCsr | undefined = csr;
    for (let failures = 0; !this.signal.aborted; ) {
      try {
        latest ??= await api.request<KubeCsr>('GET', `${CSR_PATH}/${name}`, { signal: this.signal });
        if (!isDecided(latest) && latest.metadata.uid === uid) await this.#decide(latest);
        break;
      } catch (caught) {
        if (isKubeStatus(caught, 404) || this.signal.aborted) break;
        latest = undefined;
        failures += 1;
        // Another replica was faster, most likely: look again.
        if (isKubeStatus(caught, 409) && failures === 1) continue;
        const error = AgentError.from(caught);
        const waitMs = Math.max(backoffMs(failures, BACKOFF, this.deps.random), error.retryAfterMs ?? 0);
        this.deps.log.warn('request cannot be decided', { request: name, retryInSeconds: waitMs / 1_000, cause: error });
        await this.deps.clock.sleepUntil(this.deps.clock.now() + waitMs, this.signal).catch(() => undefined);
      }
    }
    this.#known.delete(uid);
  }

  /** One decision, and one line that says it. */
  async #decide(csr: KubeCsr): Promise<void> {
    const facts = { request: csr.metadata.name, requester: csr.spec.username, expirationSeconds: csr.spec.expirationSeconds };
    let approval: { readonly id: string; readonly pod: string | undefined };
    try {
      const { requester, id } = await judgeRequest(csr, this.options);
      judgePod(requester, await this.#podOf(requester));
      approval = { id: formatSpiffeId(id), pod: requester.pod?.name };
    } catch (caught) {
      if (!isDenial(caught)) throw caught;
      await this.#write(csr, { type: 'Denied', status: 'True', reason: 'KeyturnPolicy', message: caught.message });
      this.deps.log.warn('request denied', { ...facts, field: caught.field, rule: caught.rule });
      return;
    }
    await this.#write(csr, { type: 'Approved', status: 'True', reason: 'KeyturnPolicy', message: `the requester is ${approval.id}` });
    this.deps.log.info('request approved', { ...facts, ...approval });
  }

  async #podOf({ namespace, pod }: Requester): Promise<KubePod | undefined> {
    if (!pod) return undefined;
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(pod.name)}`;
    try {
      return await this.options.api.request<KubePod>('GET', path, { signal: this.signal });
    } catch (caught) {
      if (isKubeStatus(caught, 404)) return undefined;
      throw caught;
    }
  }

  /** Fails with 409 where the object has changed since it was read: then somebody else may have decided. */
  async #write(csr: KubeCsr, condition: CsrCondition): Promise<void> {
    const conditions = [...(csr.status?.conditions ?? []), condition];
    const body = { ...csr, apiVersion: 'certificates.k8s.io/v1', kind: 'CertificateSigningRequest', status: { ...csr.status, conditions } };
    await this.options.api.request('PUT', `${CSR_PATH}/${csr.metadata.name}/approval`, { body, signal: this.signal });
  }
}

/** A rule that the request breaks, as opposed to whatever kept us from judging it. */
function isDenial(caught: unknown): caught is AgentError {
  return caught instanceof AgentError && caught.code === 'ERR_CA_REJECTED' && caught.rule !== undefined;
}

function isDecided(csr: KubeCsr): boolean {
  return conditionOf(csr, 'Approved') !== undefined || conditionOf(csr, 'Denied') !== undefined;
}
