import { AgentError, type ErrorCode } from '../../base/errors';
import type { CountedSeries } from '../../base/metrics';

/** What a worker of `ca serve` tells and asks the process that watches over it. A number goes with its answer. */
export type FromWorker =
  | { readonly kind: 'started' }
  | {
      readonly kind: 'failed';
      readonly code: ErrorCode;
      readonly message: string;
      readonly hint: string | undefined;
    }
  | { readonly kind: 'take'; readonly number: number; readonly id: string }
  | { readonly kind: 'audit'; readonly number: number; readonly lines: string }
  | {
      readonly kind: 'report';
      readonly counted: readonly CountedSeries[];
      readonly problems: readonly string[];
    };

/** What it is answered, or asked. */
export type ToWorker =
  | { readonly kind: 'taken'; readonly number: number; readonly waitMs: number | undefined }
  | { readonly kind: 'audited'; readonly number: number; readonly failure: string | undefined }
  | { readonly kind: 'report' };

/** The worker's end of the line: the one rate limit and the one audit log are at the other end. It ends with the process there. */
export interface WorkerLine {
  tell(message: FromWorker): Promise<void>;
  /** As `RateLimiter.take`, over all workers. */
  take(id: string): Promise<number | undefined>;
  /** Resolves when the lines were handed to the kernel. @throws AgentError ERR_OUTPUT. */
  append(lines: string): Promise<void>;
  /** Calls back when a report is asked for. */
  onReport(listener: () => void): void;
}

type Asked = {
  readonly [K in 'taken' | 'audited']: (answer: Extract<ToWorker, { readonly kind: K }>) => void;
};

/** @param channel  This process, with a line to its parent. */
export function openWorkerLine(channel: Pick<NodeJS.Process, 'send' | 'on'>): WorkerLine {
  const asked = new Map<number, Partial<Asked>>();
  let report = (): void => undefined;
  let number = 0;
  const tell = (message: FromWorker) =>
    new Promise<void>((done) => channel.send!(message, undefined, undefined, () => done()));
  channel.on('message', (message: ToWorker) => {
    if (message.kind === 'report') return report();
    const entry = asked.get(message.number);
    asked.delete(message.number);
    if (message.kind === 'taken') entry?.taken?.(message);
    else entry?.audited?.(message);
  });
  return {
    tell,
    take: (id) =>
      new Promise((done) => {
        number += 1;
        asked.set(number, { taken: ({ waitMs }) => done(waitMs) });
        void tell({ kind: 'take', number, id });
      }),
    append: (lines) =>
      new Promise((done, failed) => {
        number += 1;
        asked.set(number, {
          audited: ({ failure }) =>
            failure === undefined
              ? done()
              : failed(new AgentError('ERR_OUTPUT', failure, { retry: 'soon' })),
        });
        void tell({ kind: 'audit', number, lines });
      }),
    onReport: (listener) => {
      report = listener;
    },
  };
}
