import { Agent, get } from 'node:http';

export interface TrafficReport {
  readonly sent: number;
  readonly succeeded: number;
  /** How often each kind of failure was met, e.g. `503 upstream connect error...` or `ECONNRESET`. */
  readonly failures: ReadonlyMap<string, number>;
}

export interface Traffic {
  /** The numbers so far. */
  report(): TrafficReport;
  /** Ends the sending and resolves when the last answer has come. */
  stop(): Promise<TrafficReport>;
}

const REQUEST_MS = 10_000;
/** Failures of more kinds than this are counted as `other`: a message may hold a varying number. */
const MAX_KINDS = 50;

/**
 * Sends requests to a plain HTTP port of this machine, steadily: `perSecond` on average, at most `concurrency` at once. Nothing is tried
 * twice: a failure is a failure.
 */
export function startTraffic(options: {
  readonly port: number;
  readonly perSecond: number;
  readonly concurrency: number;
}): Traffic {
  const agent = new Agent({ keepAlive: true, maxSockets: options.concurrency });
  const failures = new Map<string, number>();
  let [sent, succeeded, open, stopped] = [0, 0, 0, false];
  const startedAt = Date.now();
  let idle = () => {};
  const send = () => {
    sent += 1;
    open += 1;
    void request(options.port, agent).then((failure) => {
      open -= 1;
      if (failure === undefined) succeeded += 1;
      else count(failures, failure);
      if (stopped && open === 0) idle();
    });
  };
  const timer = setInterval(() => {
    const due = ((Date.now() - startedAt) / 1000) * options.perSecond - sent;
    for (let left = Math.min(due, options.concurrency - open); left >= 1; left -= 1) send();
  }, 5);
  const report = () => ({ sent, succeeded, failures });
  return {
    report,
    stop: async () => {
      clearInterval(timer);
      stopped = true;
      if (open > 0) {
        await new Promise<void>((done) => {
          idle = done;
        });
      }
      agent.destroy();
      return report();
    },
  };
}

/** Resolves with undefined for a 200, else with what happened. */
function request(port: number, agent: Agent): Promise<string | undefined> {
  return new Promise((done) => {
    const asked = get(
      { host: '127.0.0.1', port, path: '/', agent, timeout: REQUEST_MS },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.on('error', (error) => done(error.message));
        response.on('end', () =>
          done(
            response.statusCode === 200
              ? undefined
              : `${response.statusCode} ${body.slice(0, 200)}`,
          ),
        );
      },
    );
    asked.on('timeout', () => asked.destroy(new Error('no answer')));
    asked.on('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
  });
}

function count(failures: Map<string, number>, kind: string): void {
  const name = failures.has(kind) || failures.size < MAX_KINDS ? kind : 'other';
  failures.set(name, (failures.get(name) ?? 0) + 1);
}
