/** The same object but for some of its methods. */
export function but<T extends object>(object: T, other: Partial<T>): T {
  return new Proxy(object, {
    get: (target, name) => {
      const value = Reflect.get(name in other ? other : target, name);
      // What it has of private is its own.
      return typeof value === 'function' && !(name in other) ? value.bind(target) : value;
    },
  });
}
