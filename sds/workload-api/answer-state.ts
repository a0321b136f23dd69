import { GrpcStatus } from '../../agent/http2/grpc-status';
import { areEqual, type Pieces } from '../grpc/pieces';

/** What a stream of the Workload API is to say at this moment. */
export type AnswerState =
  /** Encoded once and shared: equal answers are one object, and nobody is sent the same twice. It may hold a private key. */
  | { readonly kind: 'answer'; readonly message: Pieces }
  /** It will be known in a moment. */
  | { readonly kind: 'pending' }
  /** The stream ends with this. Clients come again after a back-off. */
  | { readonly kind: 'refusal'; readonly code: GrpcStatus; readonly details: string };

/** There is no identity, or not this one. @see SPIFFE Workload Endpoint, section 6. */
export function denied(details: string): AnswerState & { readonly kind: 'refusal' } {
  return { kind: 'refusal', code: GrpcStatus.PERMISSION_DENIED, details };
}

/** There will be an answer later. */
export function unavailable(details: string): AnswerState & { readonly kind: 'refusal' } {
  return { kind: 'refusal', code: GrpcStatus.UNAVAILABLE, details };
}

/** Keeps the object of an answer as long as its bytes stay the same. */
export function sameAnswer(previous: AnswerState | undefined, next: AnswerState): AnswerState {
  const isSame =
    previous?.kind === 'answer' &&
    next.kind === 'answer' &&
    areEqual(previous.message, next.message);
  return isSame ? previous : next;
}
