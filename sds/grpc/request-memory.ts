import type { Connection } from './connections';
import { LIMITS } from './limits';
import type { MessageReader } from './message-reader';

/** What clients make us hold of requests that are not whole: bounded in all, at the expense of whoever makes us hold the most. */
export class RequestMemory {
  readonly #held = new Map<MessageReader, number>();
  readonly #ofConnection = new Map<Connection, number>();
  #bytes = 0;

  /** @param refused  Told of each connection that was closed for it. */
  constructor(private readonly refused: (facts: Readonly<Record<string, unknown>>) => void) {}

  /** The reader has read. */
  hold(connection: Connection, reader: MessageReader): void {
    this.#set(connection, reader, reader.heldBytes);
    if (this.#bytes <= LIMITS.incompleteBytes) return;
    const [greediest] = [...this.#ofConnection].reduce((most, each) =>
      each[1] > most[1] ? each : most,
    );
    this.refused({ limit: LIMITS.incompleteBytes, connection: greediest.id });
    greediest.socket.destroy();
  }

  release(connection: Connection, reader: MessageReader): void {
    this.#set(connection, reader, 0);
  }

  #set(connection: Connection, reader: MessageReader, bytes: number): void {
    const by = bytes - (this.#held.get(reader) ?? 0);
    if (by === 0) return;
    const ofConnection = (this.#ofConnection.get(connection) ?? 0) + by;
    this.#bytes += by;
    if (bytes === 0) this.#held.delete(reader);
    else this.#held.set(reader, bytes);
    if (ofConnection === 0) this.#ofConnection.delete(connection);
    else this.#ofConnection.set(connection, ofConnection);
  }
}
