/**
 * Makes something dear that many ask for at the same time once for all of them: whoever asks in the same turn of the event loop, or before
 * it is there, gets the same. So any number of askers cost a turn no more than one.
 */
export function onceATurn<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  const forget = () => {
    made = undefined;
  };
  return () => {
    if (made === undefined) {
      made = make();
      const later = () => setImmediate(forget);
      made.then(later, later);
    }
    return made;
  };
}
