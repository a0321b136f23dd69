import { resolve } from 'node:path';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';

const PATIENCE_MS = 10_000;

/** How a call ended. */
export interface Ended {
  readonly code: number;
  readonly details: string;
}

/** An open stream of the Workload API. */
export interface WorkloadStream<T> {
  /** The next answer, past or future, that was not taken yet. */
  next(): Promise<T>;
  /** Answers not yet taken. */
  readonly waiting: number;
  readonly ended: Promise<Ended>;
  pause(): void;
  resume(): void;
  cancel(): void;
}

/** A client of the SPIFFE Workload API with a connection of its own, whose calls carry whatever header a test wants. */
export interface WorkloadClient {
  stream<T>(
    method: string,
    read: (bytes: Buffer) => T,
    header?: Readonly<Record<string, string[]>>,
  ): WorkloadStream<T>;
  /** One request, one answer; rejects with gRPC's error. */
  call<T>(
    method: string,
    request: Uint8Array,
    read: (bytes: Buffer) => T,
    header?: Readonly<Record<string, string[]>>,
  ): Promise<T>;
  close(): void;
}

const SECURITY_HEADER = { 'workload.spiffe.io': ['true'] };

export function createWorkloadClient(socketPath: string): WorkloadClient {
  const client = new Client(`unix:${resolve(socketPath)}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  const open: WorkloadStream<unknown>[] = [];
  return {
    stream: (method, read, header = SECURITY_HEADER) => {
      const stream = openStream(client, method, read, header);
      open.push(stream);
      return stream;
    },
    call: (method, request, read, header = SECURITY_HEADER) =>
      new Promise((done, failed) => {
        const options = { deadline: Date.now() + PATIENCE_MS };
        const answered = (error: ServiceError | null, answer?: unknown) =>
          error ? failed(error) : done(answer as never);
        client.makeUnaryRequest(
          pathOf(method),
          Buffer.from,
          read,
          request as Buffer,
          metadataOf(header),
          options,
          answered,
        );
      }),
    close: () => {
      for (const each of open) each.cancel();
      client.close();
    },
  };
}

function openStream<T>(
  client: Client,
  method: string,
  read: (bytes: Buffer) => T,
  header: Readonly<Record<string, string[]>>,
): WorkloadStream<T> {
  const call = client.makeServerStreamRequest<Buffer, T>(
    pathOf(method),
    Buffer.from,
    read,
    Buffer.alloc(0),
    metadataOf(header),
  );
  const received: T[] = [];
  const takers: ((answer: T) => void)[] = [];
  const ended = new Promise<Ended>((done) =>
    call.on('status', ({ code, details }) => done({ code, details })),
  );
  call.on('error', () => undefined);
  call.on('data', (answer: T) => {
    const taker = takers.shift();
    if (taker) taker(answer);
    else received.push(answer);
  });
  return {
    next: async () => {
      const ready = received.shift();
      if (ready !== undefined) return ready;
      const coming = new Promise<T>((done) => takers.push(done));
      const gone = ended.then(({ code, details }) => {
        throw new Error(`the stream ended with ${code} ${details} before an answer`);
      });
      return Promise.race([coming, gone]);
    },
    get waiting() {
      return received.length;
    },
    ended,
    pause: () => call.pause(),
    resume: () => call.resume(),
    cancel: () => call.cancel(),
  };
}

function pathOf(method: string): string {
  return `/SpiffeWorkloadAPI/${method}`;
}

function metadataOf(header: Readonly<Record<string, string[]>>): Metadata {
  const metadata = new Metadata();
  for (const [name, values] of Object.entries(header))
    for (const value of values) metadata.add(name, value);
  return metadata;
}
