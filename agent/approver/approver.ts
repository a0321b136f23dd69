import {
  CSR_PATH,
  conditionOf,
  csrPath,
  type KubeCsr,
} from '../../ca-client/kubernetes/csr-object';
import { backoffMs, DEFAULT_BACKOFF } from '../base/backoff';
import type { Deps } from '../base/deps';
import { AgentError } from '../base/errors';
import { formatSpiffeId } from '../identity/spiffe-id';
import type { KubeApi } from '../kube/kube-api';
import { isKubeStatus } from '../kube/kube-error';
import { listObjects } from '../kube/kube-list';
import { fieldSelector, kubePath } from '../kube/kube-path';
import { WATCH_AGAIN_MS } from '../kube/watch-object';
import { addCondition } from './approval';
import { ApproverDesk, type StuckRequest } from './approver-desk';
import {
  type ApproverPolicy,
  judgePod,
  judgeRequest,
  type KubePod,
  type Requester,
} from './approver-rules';
import { APPROVER_REASON, approvalMessage } from './issued-check';
import { Violations } from './violations';

export interface ApproverOptions extends ApproverPolicy {
  readonly api: KubeApi;
  /** Requests to other signers are none of our business. */
  readonly signerName: string;
}

const MAX_PAGE = 500;
/** Every agent waits for it, so it looks again soon. */
const BACKOFF = { ...DEFAULT_BACKOFF, maxMs: 15_000 };

/**
 * Approves the requests to one signer that ask for their sender's own identity, and denies the others with the reason. After issuance it
 * compares the certificate with what was approved. It holds no state: what is undecided when it starts is decided then, and any number of
 * replicas may run, for a decision is made once by the API server's optimistic concurrency.
 *
 * It needs to get, list and watch certificatesigningrequests, to update their `approval`, to `approve` for the signer, and to get pods.
 */
export class Approver {
  #watching = false;
  #problem: AgentError | undefined = new AgentError(
    'ERR_CA_UNAVAILABLE',
    'watch requests: not started',
    { retry: 'soon' },
  );
  readonly #stop = new AbortController();
  readonly #desk: ApproverDesk;
  readonly #violations: Violations;
  /** The last look at a state of a request; looks are taken one after the other. */
  #looking: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly options: ApproverOptions,
    private readonly deps: Deps,
  ) {
    this.#desk = new ApproverDesk(
      (name, uid) => this.#decideNamed(name, uid),
      deps,
      this.#stop.signal,
    );
    this.#violations = new Violations(options.trustDomain, deps);
  }

  /** Why somebody has to act; undefined where all is well, also for the moment between two watches. The gravest comes first. */
  problem(): AgentError | undefined {
    const found = [
      this.#violations.problem(),
      this.#problem,
      stuckProblem(this.#desk.stuck()),
    ].filter((each) => each !== undefined);
    const [first, ...others] = found;
    if (!first || others.length === 0) return first;
    return new AgentError(first.code, found.map(({ message }) => message).join('; '), {
      retry: first.retry,
      cause: first,
    });
  }

  /** Whether the API server reports requests to us at this moment. */
  get watching(): boolean {
    return this.#watching;
  }

  /** Requests that are waiting or being decided. */
  get undecided(): number {
    return this.#desk.size;
  }

  /** Of those, the ones that failed again and again. */
  get stuck(): number {
    return this.#desk.stuck().length;
  }

  /** Requests with a violation that is not acknowledged. */
  get violations(): number {
    return this.#violations.size;
  }

  /** Resolves when the signal has fired and the last decision is over. */
  async run(signal: AbortSignal): Promise<void> {
    const { options, deps } = this;
    const stop = () => this.#stop.abort();
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    const { allowedAnnotations: annotations, allowedLabels: labels } = options;
    if (annotations.length + labels.length > 0)
      deps.log.warn('annotations or labels pass with any value, and the signer may act on them', {
        annotations,
        labels,
      });
    deps.log.info('approver started', {
      signer: options.signerName,
      trustDomain: options.trustDomain,
      server: options.api.server,
    });
    for (let failures = 0; !signal.aborted; ) {
      let waitMs = WATCH_AGAIN_MS;
      try {
        await this.#follow(signal, () => {
          failures = 0;
        });
      } catch (caught) {
        if (signal.aborted) break;
        failures += 1;
        waitMs = this.#failed(caught, failures);
      }
      await deps.clock.sleepUntil(deps.clock.now() + waitMs, signal).catch(() => undefined);
    }
    await this.#desk.closed();
    await this.#looking;
  }

  /** One list and one watch; `onOpen` when both were granted. */
  async #follow(signal: AbortSignal, onOpen: () => void): Promise<void> {
    const { api, signerName } = this.options;
    const path = `${CSR_PATH}?${fieldSelector('spec.signerName', signerName)}`;
    const listed = new Set<string>();
    const version = await listObjects<KubeCsr>(api, { path, maxPage: MAX_PAGE, signal }, (csr) => {
      listed.add(csr.metadata.uid);
      this.#see(csr);
    });
    this.#desk.listed(listed);
    this.#violations.keepOnly(listed);
    const opened = () => {
      onOpen();
      this.#watching = true;
      this.#problem = undefined;
    };
    try {
      await api.watch<KubeCsr>(
        `${path}&resourceVersion=${encodeURIComponent(version)}`,
        ({ type, object }) => {
          if (type === 'ADDED' || type === 'MODIFIED') this.#see(object);
          if (type === 'DELETED') this.#gone(object);
        },
        signal,
        opened,
      );
    } finally {
      this.#watching = false;
    }
  }

  #see(csr: KubeCsr): void {
    if (isDecided(csr)) this.#desk.forget(csr.metadata.uid);
    else this.#desk.put(csr.metadata);
    this.#look(csr);
  }

  #gone(csr: KubeCsr): void {
    const { uid } = csr.metadata;
    this.#desk.forget(uid);
    // With its last state, which no event before may have shown.
    this.#look(csr, () => this.#violations.forget(uid));
  }

  #look(csr: KubeCsr, then = () => {}): void {
    this.#looking = this.#looking
      .then(() => this.#violations.look(csr))
      .catch((cause: unknown) =>
        this.deps.log.error('certificate check failed', { request: csr.metadata.name, cause }),
      )
      .then(then);
  }

  /** Returns how long to wait. */
  #failed(caught: unknown, failures: number): number {
    const error = AgentError.from(caught);
    const waitMs = Math.max(
      backoffMs(failures, BACKOFF, this.deps.random),
      error.retryAfterMs ?? 0,
    );
    // A watch that began too long ago is no event.
    if (isKubeStatus(caught, 410)) return waitMs;
    this.#problem = error;
    this.deps.metrics.record('approver_failures_total', { operation: 'follow', code: error.code });
    this.deps.log.warn('watch of requests failed', {
      retryInSeconds: waitMs / 1_000,
      cause: error,
    });
    return waitMs;
  }

  async #decideNamed(name: string, uid: string): Promise<void> {
    const { signal } = this.#stop;
    const csr = await this.options.api.request<KubeCsr>('GET', csrPath(name), { signal });
    if (!isDecided(csr) && csr.metadata.uid === uid) await this.#decide(csr, signal);
  }

  /** One decision, one line that says it, and its count. */
  async #decide(csr: KubeCsr, signal: AbortSignal): Promise<void> {
    const facts = {
      request: csr.metadata.name,
      requester: csr.spec.username,
      expirationSeconds: csr.spec.expirationSeconds,
    };
    let approval: { readonly id: string; readonly pod: string | undefined };
    try {
      const { requester, id } = await judgeRequest(csr, this.options);
      judgePod(requester, await this.#podOf(requester, signal));
      approval = { id: formatSpiffeId(id), pod: requester.pod?.name };
    } catch (caught) {
      if (!isDenial(caught)) throw caught;
      await addCondition(
        this.options.api,
        csr,
        { type: 'Denied', status: 'True', reason: APPROVER_REASON, message: caught.message },
        signal,
      );
      this.deps.metrics.record('approver_decisions_total', {
        decision: 'denied',
        reason: caught.field ?? 'none',
      });
      this.deps.log.warn('request denied', { ...facts, field: caught.field, rule: caught.rule });
      return;
    }
    const message = approvalMessage(approval.id, csr.metadata);
    await addCondition(
      this.options.api,
      csr,
      { type: 'Approved', status: 'True', reason: APPROVER_REASON, message },
      signal,
    );
    this.deps.metrics.record('approver_decisions_total', { decision: 'approved', reason: 'none' });
    this.deps.log.info('request approved', { ...facts, ...approval });
  }

  async #podOf({ namespace, pod }: Requester, signal: AbortSignal): Promise<KubePod | undefined> {
    if (!pod) return undefined;
    try {
      return await this.options.api.request<KubePod>(
        'GET',
        kubePath`/api/v1/namespaces/${namespace}/pods/${pod.name}`,
        { signal },
      );
    } catch (caught) {
      if (isKubeStatus(caught, 404)) return undefined;
      throw caught;
    }
  }
}

function stuckProblem([first, ...others]: readonly StuckRequest[]): AgentError | undefined {
  if (!first) return undefined;
  const { name, error } = first;
  const more = others.length === 0 ? '' : `, nor can ${others.length} more`;
  return new AgentError(error.code, `request ${name} cannot be decided${more}: ${error.message}`, {
    retry: error.retry,
    cause: error,
    ...(error.hint !== undefined && { hint: error.hint }),
  });
}

/** A rule that the request breaks, as opposed to what kept us from judging it. */
function isDenial(caught: unknown): caught is AgentError {
  return (
    caught instanceof AgentError && caught.code === 'ERR_CA_REJECTED' && caught.rule !== undefined
  );
}

function isDecided(csr: KubeCsr): boolean {
  return conditionOf(csr, 'Approved') !== undefined || conditionOf(csr, 'Denied') !== undefined;
}
