/** The methods of the SPIFFE Workload API whose answer is a stream. Written out: the start reads no codec of their messages for them. */
export const STREAMED_METHODS = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles'] as const;
export type StreamedMethod = (typeof STREAMED_METHODS)[number];

/** Those with one answer. */
export const UNARY_METHODS = ['FetchJWTSVID', 'ValidateJWTSVID'] as const;
export type UnaryMethod = (typeof UNARY_METHODS)[number];

/** The service has no package. */
const WORKLOAD_API = 'SpiffeWorkloadAPI';

export function pathOf(method: StreamedMethod | UnaryMethod): string {
  return `/${WORKLOAD_API}/${method}`;
}
