/** Uniform in [0, 1). A fixed value makes jitter exact in tests. Not for keys, serials or nonces: those come from node:crypto. */
export type Random = () => number;

export const systemRandom: Random = () => Math.random();
