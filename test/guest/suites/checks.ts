import type { Check } from '../check.ts';
import { data } from '../checks/data.ts';
import { names } from '../checks/names.ts';
import { ownership } from '../checks/ownership.ts';

/** All of them. */
export const checks: Check[] = [...ownership, ...names, ...data];
