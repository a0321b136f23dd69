import type { Deps } from '../../agent/base/deps';
import { GrpcStatus } from '../../agent/http2/grpc-status';
import type { Call } from './call';
import type { Method } from './grpc-server';

/** What answers calls of some service. */
export interface Answerer {
  /** Open streams. */
  streams(): number;
  /** Whether a client owes anything, so that time has to be watched. */
  isOwed(): boolean;
  sweep(): void;
  /** Ends every stream. */
  close(): Promise<void>;
}

/** A service whose code is loaded by the first call of one of its methods: a waiting proxy needs none of it. */
export class Lazy<T extends Answerer> implements Answerer {
  #opening: Promise<T> | undefined;
  #opened: T | undefined;

  /** @param what  Names the service in the log. */
  constructor(
    private readonly what: string,
    private readonly load: () => Promise<T>,
    private readonly deps: Deps,
  ) {}

  /** A method with one request. */
  one(use: (service: T, call: Call, request: Buffer) => void): Method {
    return {
      requests: 'one',
      serve: (call, request) => this.#withService(call, (service) => use(service, call, request)),
    };
  }

  /** A method with many requests; `use` sets the call's listener. */
  many(use: (service: T, call: Call) => void): Method {
    return {
      requests: 'many',
      serve: (call) => {
        const early: Buffer[] = [];
        let ended = false;
        const end = () => {
          ended = true;
        };
        call.follow({ message: (bytes) => early.push(bytes), end, gone: () => undefined });
        this.#withService(call, (service) => {
          if (call.over) return;
          use(service, call);
          for (const bytes of early) call.listener?.message?.(bytes);
          if (ended) call.listener?.end?.();
        });
      },
    };
  }

  streams(): number {
    return this.#opened?.streams() ?? 0;
  }

  isOwed(): boolean {
    return this.#opened?.isOwed() ?? false;
  }

  sweep(): void {
    this.#opened?.sweep();
  }

  async close(): Promise<void> {
    await this.#opening?.then((service) => service.close());
  }

  #withService(call: Call, use: (service: T) => void): void {
    this.#opening ??= this.#open();
    this.#opening.then(use).catch((cause) => {
      this.deps.log.error(`${this.what} call failed`, { cause });
      call.fail(GrpcStatus.INTERNAL, 'internal error; see the log of the agent');
    });
  }

  async #open(): Promise<T> {
    this.#opened = await this.load();
    return this.#opened;
  }
}
