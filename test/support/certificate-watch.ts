import { type Certificate, parseCertificates } from '../../agent/identity/certificate';
import { createSdsClient, type ReceivedSecret } from './sds-client';
import { until } from './until';

/** A certificate as a proxy got it. */
export interface SeenCertificate {
  /** When it came, epoch milliseconds. */
  readonly at: number;
  readonly leaf: Certificate;
  /** The leaf and what came with it. */
  readonly chain: readonly Certificate[];
}

/** A proxy that keeps count of the certificates that it is given, by any agent that serves SDS. */
export interface CertificateWatch {
  /** In the order in which they came. */
  readonly seen: readonly SeenCertificate[];
  /** The first beyond those, as soon as it comes, that is the `count`th from now or for which `where` holds. */
  next(options?: {
    readonly count?: number;
    readonly where?: (seen: SeenCertificate) => boolean;
    readonly ms?: number;
  }): Promise<SeenCertificate>;
  /** The roots that peers are judged by now. */
  roots(): Promise<readonly Certificate[]>;
  /** Times without a valid certificate since the first one came. Empty is good. */
  gaps(): readonly string[];
  close(): void;
}

/** Connects as soon as somebody listens, and again whenever the connection is lost. */
export function watchCertificates(sdsSocket: string): CertificateWatch {
  const client = createSdsClient(sdsSocket);
  const seen: SeenCertificate[] = [];
  let closed = false;
  const follow = async () => {
    const stream = client.openStream();
    stream.request(['default']);
    let over = false;
    void stream.ended.then(() => {
      over = true;
    });
    while (!closed && !over) {
      if (stream.waiting > 0) {
        const [secret] = (await stream.next()).secrets;
        stream.ack();
        note(seen, secret!);
      }
      await pause();
    }
    stream.cancel();
  };
  const loop = async () => {
    while (!closed) {
      await follow();
      await pause();
    }
  };
  void loop();
  return {
    seen,
    next: ({ count = 1, where, ms = 60_000 } = {}) => {
      const from = seen.length;
      const look = async () => (where ? seen.slice(from).find(where) : seen[from + count - 1]);
      return until('the next certificate', look, ms, 20);
    },
    roots: async () =>
      parseCertificates(Buffer.from((await client.get('ROOTCA')).rootsPem!), 'ROOTCA'),
    gaps: () => [...seen.keys()].flatMap((index) => gapAfter(seen, index)),
    close: () => {
      closed = true;
      client.close();
    },
  };
}

function note(seen: SeenCertificate[], secret: ReceivedSecret): void {
  const chain = parseCertificates(Buffer.from(secret.chainPem!), 'default');
  // A new connection is told again what is known already.
  if (chain[0]!.serial !== seen.at(-1)?.leaf.serial)
    seen.push({ at: Date.now(), leaf: chain[0]!, chain });
}

function gapAfter(seen: readonly SeenCertificate[], index: number): string[] {
  const { leaf } = seen[index]!;
  const until = seen[index + 1]?.at ?? Date.now();
  if (until <= leaf.notAfterAt) return [];
  return [
    `${until - leaf.notAfterAt} ms after ${leaf.serial} ended at ${new Date(leaf.notAfterAt).toISOString()}`,
  ];
}

function pause(): Promise<void> {
  return new Promise((done) => setTimeout(done, 20));
}
