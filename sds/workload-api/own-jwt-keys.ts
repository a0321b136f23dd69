import type { Deps } from '../../agent/base/deps';
import type { JwtAuthority } from '../../agent/identity/jwt-svid';
import type { JwtKey } from '../../agent/identity/spiffe-bundle';
import type { AnswerState } from './answer-state';
import { type JwtSources, jwtUnavailable, openAuthority } from './jwt-answers';

/** The keys that our own tokens are verified by, from the moment on that a stream asks for them. */
export class OwnJwtKeys {
  #authority: JwtAuthority | undefined;
  #state: 'unopened' | 'opening' | 'opened' | 'failed' = 'unopened';
  #end: () => void = () => undefined;

  /** @param changed  Called when there is something else to offer. */
  constructor(
    private readonly jwt: JwtSources,
    private readonly changed: () => void,
    private readonly failed: (cause: unknown) => void,
    private readonly deps: Deps,
  ) {}

  /** What `make` makes of the keys; none where the CA issues no tokens. */
  offer(make: (keys: readonly JwtKey[]) => AnswerState): AnswerState {
    switch (this.#state) {
      case 'unopened':
        this.#open();
        return { kind: 'pending' };
      case 'opening':
        return { kind: 'pending' };
      case 'failed':
        // The next call tries again.
        this.#state = 'unopened';
        return jwtUnavailable();
      case 'opened':
        return make(this.#authority?.keys.value ?? []);
    }
  }

  /** With another certificate may have come another CA, and with that other keys. */
  look(): void {
    if (this.#state === 'opened') this.#open();
  }

  close(): void {
    this.#end();
  }

  #open(): void {
    const first = this.#state !== 'opened';
    if (first) this.#state = 'opening';
    openAuthority(this.jwt, this.deps).then(
      (authority) => {
        this.#state = 'opened';
        if (authority === this.#authority && !first) return;
        this.#authority = authority;
        this.#end();
        this.#end = authority?.keys.subscribe(() => this.changed()) ?? (() => undefined);
        this.changed();
      },
      (cause) => {
        this.failed(cause);
        if (!first) return;
        this.#state = 'failed';
        this.changed();
      },
    );
  }
}
