import cluster, { type Worker } from 'node:cluster';
import { createServer } from 'node:net';
import type { Limiter } from '../authority/server/rate-limits';
import type { FromWorker, ToWorker } from '../authority/server/worker-line';
import { AgentError, errorText, systemCode } from '../base/errors';
import { formatHostPort, parseHostPort } from '../base/host-port';
import type { AgentDeps } from './agent';

/** What the workers share, which is kept here alone. */
export interface SharedByWorkers {
  readonly limiter: Limiter;
  /** Hands audit lines to the kernel. */
  appendAudit(lines: string): Promise<void>;
}

/** Processes that answer on one port. */
export interface CaWorkers {
  /** `host:port` that they listen on. */
  readonly address: string;
  /** Why one of them cannot issue, or that none is there. */
  problems(): readonly string[];
  /** Brings what they counted into the metrics of this process. */
  collect(): Promise<void>;
  /** Lets each come to its end. */
  close(): Promise<void>;
}

interface Seat {
  readonly worker: Worker;
  readonly startedAt: number;
  listening: boolean;
  problems: readonly string[];
  /** Whoever waits for its next report. */
  reported: (() => void)[];
}

/** A worker that ends sooner than that is not replaced before: what ends it may end the next. */
const CALM_MS = 1_000;
const REPORT_MS = 500;

/**
 * Runs `count` more processes of this very command line, which share the port: whichever is free takes a connection. One that ends is replaced.
 * They end with this process, however that ends, since the line to it breaks.
 *
 * @param listen  `host:port`; a port 0 becomes a free one.
 * @throws        AgentError of the first worker that cannot start; ERR_SOCKET where the port is taken.
 */
export async function startCaWorkers(
  count: number,
  listen: string,
  shared: SharedByWorkers,
  deps: AgentDeps,
): Promise<CaWorkers> {
  const address = await freeAddress(listen);
  // Each accepts for itself: a connection that is handed over to one that has just died would wait for ever.
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  cluster.setupPrimary({
    exec: process.argv[1]!,
    args: [...process.argv.slice(2), '--listen', address],
  });
  const crew = new Crew(shared, deps);
  try {
    await Promise.all(Array.from({ length: count }, () => crew.seat()));
  } catch (caught) {
    await crew.close();
    throw caught;
  }
  return {
    address,
    problems: () => crew.problems(),
    collect: () => crew.collect(),
    close: () => crew.close(),
  };
}

class Crew {
  readonly #seats = new Set<Seat>();
  readonly #stop = new AbortController();
  readonly #endings = new Set<Promise<void>>();

  constructor(
    private readonly shared: SharedByWorkers,
    private readonly deps: AgentDeps,
  ) {}

  /** Resolves when a new worker listens. @throws AgentError what it says why it cannot. */
  seat(): Promise<void> {
    // The service manager hears of one process.
    const worker = cluster.fork({ NOTIFY_SOCKET: '' });
    const seat: Seat = {
      worker,
      startedAt: this.deps.clock.now(),
      listening: false,
      problems: [],
      reported: [],
    };
    this.#seats.add(seat);
    return new Promise((started, failed) => {
      let why = new AgentError('ERR_BUG', 'a worker ended before it listened');
      worker.on('message', (message: FromWorker) => {
        if (message.kind === 'failed')
          why = new AgentError(
            message.code,
            message.message,
            message.hint === undefined ? {} : { hint: message.hint },
          );
        else if (message.kind !== 'started') this.#hear(seat, message);
        else {
          seat.listening = true;
          started();
        }
      });
      const ending = new Promise<void>((ended) => {
        worker.once('exit', (code, signal) => {
          this.#seats.delete(seat);
          for (const each of seat.reported) each();
          failed(why);
          if (seat.listening) void this.#replace(seat, code ?? signal);
          ended();
        });
      });
      this.#endings.add(ending);
      void ending.then(() => this.#endings.delete(ending));
    });
  }

  problems(): readonly string[] {
    const listening = [...this.#seats].filter((seat) => seat.listening);
    return listening.length === 0
      ? ['no worker is running']
      : [...new Set(listening.flatMap(({ problems }) => problems))];
  }

  async collect(): Promise<void> {
    const all = Promise.all([...this.#seats].map((seat) => this.#report(seat)));
    const late = new AbortController();
    const waited = this.deps.clock
      .sleepUntil(this.deps.clock.now() + REPORT_MS, late.signal)
      .catch(() => undefined);
    await Promise.race([all, waited]);
    late.abort();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    for (const { worker } of this.#seats) worker.process.kill('SIGTERM');
    await Promise.all(this.#endings);
  }

  #report(seat: Seat): Promise<void> {
    return new Promise((done) => {
      seat.reported.push(done);
      send(seat.worker, { kind: 'report' });
    });
  }

  #hear(seat: Seat, message: Exclude<FromWorker, { readonly kind: 'started' | 'failed' }>): void {
    const { limiter, appendAudit } = this.shared;
    if (message.kind === 'report') {
      this.deps.metrics.add(message.counted);
      seat.problems = message.problems;
      for (const done of seat.reported.splice(0)) done();
    } else if (message.kind === 'audit') {
      const answer = (failure?: string) =>
        send(seat.worker, { kind: 'audited', number: message.number, failure });
      appendAudit(message.lines).then(
        () => answer(),
        (caught) => answer(errorText(caught)),
      );
    } else {
      void Promise.resolve(limiter.take(message.id)).then((waitMs) =>
        send(seat.worker, { kind: 'taken', number: message.number, waitMs }),
      );
    }
  }

  async #replace({ worker, startedAt }: Seat, how: number | string): Promise<void> {
    const { clock, log } = this.deps;
    if (this.#stop.signal.aborted) return;
    log.error('ca worker ended, starting another', { worker: worker.process.pid, how });
    let dueAt = startedAt + CALM_MS;
    for (;;) {
      await clock.sleepUntil(dueAt, this.#stop.signal).catch(() => undefined);
      if (this.#stop.signal.aborted) return;
      try {
        return await this.seat();
      } catch (caught) {
        if (this.#stop.signal.aborted) return;
        log.error('ca worker failed to start', { cause: AgentError.from(caught) });
        dueAt = clock.now() + CALM_MS;
      }
    }
  }
}

function send(worker: Worker, message: ToWorker): void {
  // One that has ended needs no answer.
  if (worker.isConnected()) worker.send(message, undefined, () => undefined);
}

async function freeAddress(listen: string): Promise<string> {
  const { host, port } = parseHostPort(listen, '--listen');
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const why = systemCode(cause) === 'EADDRINUSE' ? 'the address is in use' : systemCode(cause);
      reject(
        new AgentError('ERR_SOCKET', `listen on ${listen} for certificate requests: ${why}`, {
          cause,
          hint: 'choose another address with --listen',
        }),
      );
    });
    server.listen({ host, port }, () => {
      const bound = server.address();
      const taken = typeof bound === 'object' && bound !== null ? bound.port : port;
      server.close(() => resolve(formatHostPort({ host, port: taken })));
    });
  });
}
