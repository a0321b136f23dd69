import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

type Done = (error?: Error | null) => void;

/**
 * What TLS reads from and writes to in place of the TCP socket: until the handshake is done, no more than so many octets get through. For
 * both runtimes verify every certificate that a client shows, whether or not anybody wants to know, before they say that one has come, and
 * on the main thread: a hundred of P-521 take 150 ms. What is beyond waits, for a request may come right behind the handshake.
 */
export class HandshakeMeter extends Duplex {
  #left: number;
  #held: Buffer | undefined;

  /** @param maxBytes  Of a client until its handshake is done. */
  constructor(
    private readonly raw: Socket,
    maxBytes: number,
  ) {
    super();
    this.#left = maxBytes;
    raw.on('data', (chunk: Buffer) => this.#take(chunk));
    raw.on('end', () => this.push(null));
    raw.on('close', () => this.destroy());
  }

  /** From now on everything gets through. */
  handshakeDone(): void {
    const held = this.#held;
    this.#left = Number.POSITIVE_INFINITY;
    this.#held = undefined;
    if (held !== undefined && this.push(held)) this.raw.resume();
  }

  override _read(): void {
    if (this.#held === undefined) this.raw.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.raw.write(chunk, done);
  }

  override _writev(chunks: readonly { readonly chunk: Buffer }[], done: Done): void {
    this.raw.write(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  override _final(done: Done): void {
    this.raw.end(() => done());
  }

  override _destroy(_error: Error | null, done: Done): void {
    this.raw.destroy();
    done(null);
  }

  #take(chunk: Buffer): void {
    const passed = chunk.subarray(0, this.#left);
    this.#left -= passed.length;
    if (passed.length < chunk.length) this.#held = chunk.subarray(passed.length);
    const goesOn = this.push(passed);
    if (!goesOn || this.#held !== undefined) this.raw.pause();
  }
}
