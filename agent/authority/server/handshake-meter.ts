import type { Socket } from 'node:net';
import type { OneATurn } from '../../base/one-a-turn';
import { type Done, OverSocket } from '../../base/over-socket';

/** What a client may send until its handshake is done, octets. */
export interface HandshakeBytes {
  /** Before the server has answered: its ClientHello. */
  readonly hello: number;
  /** After that: its certificates, and what proves the key of the first. */
  readonly certificates: number;
}

/** Lanes by how many octets came after the ClientHello: at most so many, and one above for more. Most clients show a leaf, or one more. */
const LANES = [1_024, 2_048];
export const HANDSHAKE_LANES = LANES.length + 1;

/**
 * What TLS reads from and writes to in place of the TCP socket: until the handshake is done, no more than so many octets get through. For
 * both runtimes verify every certificate that a client shows, whether or not anybody wants to know, before they say that one has come, and
 * on the main thread: a hundred of P-521 take 150 ms. What is beyond waits, for a request may come right behind the handshake. And what
 * gets through does so in its turn among all handshakes, addresses by turns, in a lane by how much there is to verify at most.
 */
export class HandshakeMeter extends OverSocket {
  #isDone = false;
  /** Octets that may still pass, and those that have passed since the server's answer. */
  #left: number;
  #shown = 0;
  #isAnswered = false;
  #held: Buffer | undefined;
  #isQueued = false;

  /**
   * @param address  Of the client, without its port.
   * @param turns    Shared by all handshakes, with `HANDSHAKE_LANES` lanes.
   */
  constructor(
    raw: Socket,
    private readonly address: string,
    private readonly bytes: HandshakeBytes,
    private readonly turns: OneATurn,
  ) {
    super(raw);
    this.#left = bytes.hello;
  }

  /** From now on everything gets through. */
  handshakeDone(): void {
    const held = this.#held;
    this.#isDone = true;
    this.#held = undefined;
    if (held !== undefined && this.push(held)) this.raw.resume();
  }

  override _read(): void {
    if (!this.#isQueued && this.#held === undefined) this.raw.resume();
  }

  override _write(chunk: Buffer, encoding: BufferEncoding, done: Done): void {
    this.#answered();
    super._write(chunk, encoding, done);
  }

  override _writev(chunks: readonly { readonly chunk: Buffer }[], done: Done): void {
    this.#answered();
    this.raw.write(Buffer.concat(chunks.map(({ chunk }) => chunk)), done);
  }

  protected received(chunk: Buffer): void {
    if (this.#isDone) {
      if (!this.push(chunk)) this.raw.pause();
      return;
    }
    this.raw.pause();
    this.#isQueued = true;
    const step = () => {
      this.#isQueued = false;
      if (!this.destroyed) this.#pass(chunk);
    };
    this.turns.add(step, this.address, this.#laneOf(chunk));
  }

  #laneOf(chunk: Buffer): number {
    const shown = this.#isAnswered ? this.#shown + chunk.length : 0;
    const lane = LANES.findIndex((atMost) => shown <= atMost);
    return lane < 0 ? LANES.length : lane;
  }

  /** Before that no certificate can have come. */
  #answered(): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    this.#left = this.bytes.certificates;
  }

  #pass(chunk: Buffer): void {
    const passed = chunk.subarray(0, this.#left);
    this.#left -= passed.length;
    if (this.#isAnswered) this.#shown += passed.length;
    if (passed.length < chunk.length) this.#held = chunk.subarray(passed.length);
    const goesOn = this.push(passed);
    if (goesOn && this.#held === undefined) this.raw.resume();
  }
}
