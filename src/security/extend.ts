import type { SecurityModel } from './model.ts';

/**
 * A model that differs from `base` in `changes`. The built-in models have private fields, so their methods work only on the
 * object itself: `{ ...base }` and Object.create lose them.
 */
export function extendModel(base: SecurityModel, changes: Partial<SecurityModel>): SecurityModel {
  const extended: Record<string, unknown> = {};
  for (let at: object = base; at !== Object.prototype; at = Object.getPrototypeOf(at) as object) {
    for (const name of Object.getOwnPropertyNames(at)) {
      if (name in extended) continue;
      const value = base[name as keyof SecurityModel] as unknown;
      extended[name] = typeof value === 'function' ? value.bind(base) : value;
    }
  }
  return { ...extended, ...changes } as unknown as SecurityModel;
}
