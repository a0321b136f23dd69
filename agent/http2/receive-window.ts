import { INITIAL_WINDOW_BYTES, windowFrame } from './frames';
import { Http2Error } from './http2-error';

/**
 * What the other side may still send of DATA, on a connection or one of its streams: ours stays at
 * `INITIAL_WINDOW_BYTES` (RFC 9113 section 5.2).
 */
export class ReceiveWindow {
  #received = 0;

  /** @param stream  Undefined for the connection itself. */
  constructor(private readonly stream?: number) {}

  /**
   * Counts the octets of a frame, padding included.
   *
   * @param isLast  Nothing comes after it, so nothing needs to be given back.
   * @returns       WINDOW_UPDATE, once half of the window is used.
   * @throws        Http2Error FLOW_CONTROL_ERROR.
   */
  take(bytes: number, isLast = false): Buffer | undefined {
    this.#received += bytes;
    if (this.#received > INITIAL_WINDOW_BYTES)
      throw new Http2Error('FLOW_CONTROL_ERROR', 'DATA must keep to the window', this.stream);
    if (isLast || this.#received <= INITIAL_WINDOW_BYTES / 2) return undefined;
    const update = windowFrame(this.stream ?? 0, this.#received);
    this.#received = 0;
    return update;
  }
}
