import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { OneATurn } from '../../../agent/base/one-a-turn';

type Done = (error?: Error | null) => void;

/**
 * What TLS reads from and writes to in place of the TCP socket: until the handshake is done, no more than so many octets get through. For
 * both runtimes verify every certificate that a client shows, whether or not anybody wants to know, before they say that one has come, and
 * on the main thread: a hundred of P-521 take 150 ms. What is beyond waits, for a request may come right behind the handshake. And what
 * gets through does so in its turn among all handshakes.
 */
export class HandshakeMeter extends Duplex {
  #isDone = false;
  #left: number;
  #held: Buffer | undefined;
  #isQueued = false;

  /**
   * @param maxBytes  Of a client until its handshake is done.
   * @param turns     Shared by all handshakes.
   */
  constructor(
    private readonly raw: Socket,
    maxBytes: number,
    private readonly turns: OneATurn,
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
    this.#isDone = true;
    this.#left = Number.POSITIVE_INFINITY;
    this.#held = undefined;
    if (held !== undefined && this.push(held)) this.raw.resume();
  }

  override _read(): void {
    if (!this.#isQueued && this.#held === undefined) this.raw.resume();
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
    if (this.#isDone) {
      if (!this.push(chunk)) this.raw.pause();
      return;
    }
    this.raw.pause();
    this.#isQueued = true;
    this.turns.add(() => {
      this.#isQueued = false;
      if (!this.destroyed) this.#pass(chunk);
    });
  }

  #pass(chunk: Buffer): void {
    const passed = chunk.subarray(0, this.#left);
    this.#left -= passed.length;
    if (passed.length < chunk.length) this.#held = chunk.subarray(passed.length);
    const goesOn = this.push(passed);
    if (goesOn && this.#held === undefined) this.raw.resume();
  }
}
