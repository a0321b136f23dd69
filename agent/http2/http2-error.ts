/** The error codes of RFC 9113 section 7. */
export const ERROR_CODE = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  ENHANCE_YOUR_CALM: 11,
} as const;
export type ErrorName = keyof typeof ERROR_CODE;

/** What a client did that ends its connection, or its stream where that is named. */
export class Http2Error extends Error {
  constructor(
    readonly code: ErrorName,
    /** The rule that was broken, for the log and the client. */
    readonly rule: string,
    readonly stream?: number,
  ) {
    super(rule);
  }
}
