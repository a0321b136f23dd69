import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

export type Done = (error?: Error | null) => void;

/**
 * Stands between a socket and what reads from it: decides which octets that is shown, and when. What is written goes to the socket as it is,
 * and either ends with the other; an error of the socket is the client's, and is for whoever made it to listen to.
 */
export abstract class OverSocket extends Duplex {
  constructor(protected readonly raw: Socket) {
    super();
    raw.on('data', (chunk: Buffer) => this.received(chunk));
    raw.on('end', () => this.push(null));
    raw.on('close', () => this.destroy());
  }

  /** Octets have come. */
  protected abstract received(chunk: Buffer): void;

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.raw.write(chunk, done);
  }

  override _final(done: Done): void {
    this.raw.end(() => done());
  }

  override _destroy(_error: Error | null, done: Done): void {
    this.raw.destroy();
    done(null);
  }
}
